// pare eval: perplexity of a model, and how far its predictions are from those of another.
#include <algorithm>

#include "calibration.h"
#include "commands.h"
#include "evaluate/divergence.h"
#include "format.h"

namespace pare::cli {
namespace {

struct EvalOptions {
  std::filesystem::path model, against;
  std::string text, protocol = "strided";
  int64_t context = 0, stride = 0, tokens = 0;
  DType kv = DType::kF16;
  std::optional<DType> against_kv;

  DType base_kv() const { return against_kv.value_or(kv); }
};

/// What a result was measured on, for people.
struct Measured {
  std::string text_name;
  TextWindows windows;
  int64_t context = 0, stride = 0;
};

WindowOptions window_options(const EvalOptions& options, const Common& common) {
  WindowOptions windows;
  windows.protocol = parse_protocol(options.protocol);
  windows.context = options.context > 0 ? options.context : common.context;
  windows.stride = options.stride;
  windows.max_tokens = options.tokens;
  return windows;
}

Measured read_windows(const EvalOptions& options, const Model& model, const Tokenizer& tokenizer, Common& common) {
  Measured measured;
  const WindowOptions how = window_options(options, common);
  std::vector<int32_t> tokens;
  if (options.text.empty()) {
    measured.text_name = "the stories that come with pare";
    tokens = joined_documents(tokenizer, default_calibration_text(), options.tokens > 0 ? options.tokens : 32768);
  } else {
    measured.text_name = options.text == "-" ? "standard input" : options.text;
    tokens = tokenizer.encode(read_utf8_text(options.text, common));
  }
  try {
    measured.windows = make_windows(tokens, how, model, tokenizer.data());
  } catch (const Error& error) {
    fail("{}: {}", measured.text_name, error.what());
  }
  for (const TextWindows::Window& window : measured.windows.windows) {
    measured.context = std::max(measured.context, static_cast<int64_t>(window.tokens.size()));
  }
  return measured;
}

void check_same_tokens(const Checkpoint& model, const Checkpoint& base) {
  if (model.config.vocabulary != base.config.vocabulary) {
    fail("{} has a vocabulary of {} tokens and {} one of {}: their predictions cannot be compared", model.path.string(),
         model.config.vocabulary, base.path.string(), base.config.vocabulary);
  }
  if (model.tokenizer && base.tokenizer && model.tokenizer->pieces != base.tokenizer->pieces) {
    const auto& a = model.tokenizer->pieces;
    const auto& b = base.tokenizer->pieces;
    const auto differs = std::mismatch(a.begin(), a.begin() + std::min(a.size(), b.size()), b.begin()).first;
    fail("the tokenizers of {} and {} differ (first at token {}): their predictions cannot be compared",
         model.path.string(), base.path.string(), differs - a.begin());
  }
}

const char* in_words(double kl) {
  if (kl < 1e-4) return "no difference worth the name";
  if (kl < 0.005) return "hardly any difference";
  if (kl < 0.03) return "a small difference";
  if (kl < 0.1) return "a noticeable difference";
  if (kl < 0.5) return "a large difference";
  return "hardly the same model";
}

std::string protocol_text(const EvalOptions& options, const Measured& measured) {
  return fmt::format("{}, windows of {}, {} counted, KV cache {}", options.protocol, measured.context,
                     plural(measured.windows.counted(), "token"), info(options.kv).name);
}

Json to_json(const PerplexityResult& result) {
  return {{"perplexity", result.perplexity},
          {"nats_per_token", result.nats_per_token},
          {"standard_error", result.standard_error},
          {"tokens", result.tokens}};
}

Json base_json(const EvalOptions& options, const Measured& measured, const PerplexityResult& result) {
  Json json = {{"model", options.model.string()},
               {"text", measured.text_name},
               {"protocol", options.protocol},
               {"context", measured.context},
               {"kv", info(options.kv).name}};
  json.update(to_json(result));
  return json;
}

std::string perplexity_text(const PerplexityResult& result) {
  // An error of the mean in nats is a relative error of its exponential.
  return fmt::format("{:.4f} ± {:.4f}", result.perplexity, result.perplexity * result.standard_error);
}

void evaluate_alone(const EvalOptions& options, Common& common) {
  LoadedModel loaded = load_model(options.model, common);
  const Measured measured = read_windows(options, *loaded.model, loaded.need_tokenizer(), common);
  const PerplexityResult result = explain_non_finite(loaded.checkpoint, common, [&] {
    return perplexity(*loaded.model, measured.windows, options.kv, common.progress(), common.cancel());
  });
  if (common.json) {
    common.print_json(base_json(options, measured, result));
    return;
  }
  common.print("{}: perplexity {} on {}\n", printable(loaded.checkpoint.name),
               common.style().bold(perplexity_text(result)), printable(measured.text_name));
  common.print("  {}\n", protocol_text(options, measured));
}

void print_comparison(const EvalOptions& options, const Measured& measured, const DivergenceResult& result,
                      Common& common) {
  const Style& style = common.style();
  Table table(2);
  table.column("", Table::Align::kLeft).column("").column("", Table::Align::kLeft);
  table.row({"quality", style.bold(fmt::format("{:.2f}%", 100 * result.quality())),
             "of the base model's: its perplexity divided by this one's"});
  table.row({"perplexity", fmt::format("{:.4f}", result.model.perplexity),
             fmt::format("± {:.4f}; the base model has {}", result.model.perplexity * result.model.standard_error,
                         perplexity_text(result.base))});
  table.row({"same next word", fmt::format("{:.2f}%", 100 * result.top1_agreement),
             "how often both models hold the same token for the likeliest"});
  table.row({"KL divergence", fmt::format("{:.5f}", result.mean_kl),
             fmt::format("nats a token: {}; 99% of tokens are below {:.4f}", in_words(result.mean_kl), result.p99_kl)});
  const std::string base_cache =
      options.base_kv() == options.kv ? "" : fmt::format(" with a KV cache of {}", info(options.base_kv()).name);
  common.print("{} against {}, on {}\n{}", style.bold(printable(options.model.string())),
               printable(options.against.string()) + base_cache, printable(measured.text_name), table.render(style));
  common.print("  {}\n", style.dim(protocol_text(options, measured)));
}

void compare(const EvalOptions& options, Common& common) {
  const Checkpoint model = open_checkpoint(options.model, common.open),
                   base = open_checkpoint(options.against, common.open);
  check_same_tokens(model, base);
  Measured measured;
  std::optional<Reference> reference;
  {
    // One model in memory at a time: what the base predicted is kept, the base itself is not.
    LoadedModel loaded = load_model(base, common);
    loaded.model->set_attention_threshold(0);  // what the other leaves out is part of the difference
    measured = read_windows(options, *loaded.model, loaded.need_tokenizer(), common);
    reference = explain_non_finite(base, common, [&] {
      return Reference::measure(*loaded.model, measured.windows, options.base_kv(), common.progress(), common.cancel());
    });
  }
  LoadedModel loaded = load_model(model, common);
  const DivergenceResult result = explain_non_finite(model, common, [&] {
    return divergence(*loaded.model, *reference, options.kv, common.progress(), common.cancel());
  });
  if (!common.json) return print_comparison(options, measured, result, common);
  Json json = base_json(options, measured, result.model);
  json["against"] = {{"model", options.against.string()},
                     {"quality", result.quality()},
                     {"mean_kl", result.mean_kl},
                     {"p99_kl", result.p99_kl},
                     {"top1_agreement", result.top1_agreement},
                     {"kv", info(options.base_kv()).name},
                     {"base", to_json(result.base)}};
  common.print_json(json);
}

void eval(const EvalOptions& options, Common& common) {
  if (options.text.empty() && options.against.empty()) {
    throw UsageError("nothing to measure: give --perplexity FILE, or --against BASE to compare with another model");
  }
  if (options.against.empty() && options.against_kv) throw UsageError("--against-kv belongs to --against BASE");
  if (options.protocol == "chunked" && options.stride > 0) throw UsageError("--stride belongs to the strided protocol");
  options.against.empty() ? evaluate_alone(options, common) : compare(options, common);
}

}  // namespace

void add_eval_command(CLI::App& app, Common& common) {
  auto options = std::make_shared<EvalOptions>();
  auto* command = add_command(app, common, "eval", "Measure perplexity, and the distance from another model",
                              {"pare eval model.gguf --perplexity wiki.test.raw",
                               "pare eval model.gguf --perplexity wiki.test.raw --protocol chunked  # as llama.cpp",
                               "pare eval small.gguf --against model.gguf",
                               "pare eval model.gguf --kv q8_0 --against model.gguf --against-kv f32",
                               "pare eval small.gguf --against model/ --perplexity my-texts.txt --json"});
  add_model_argument(command, options->model, common);
  command->add_option("-p,--perplexity", options->text, "Text to measure on (- is standard input)")->type_name("FILE");
  command->add_option("--against", options->against, "Base model to compare with")->type_name("BASE");
  command
      ->add_option("--protocol", options->protocol,
                   "strided: overlapping windows, as transformers' guide; chunked: as llama.cpp's perplexity")
      ->type_name("NAME")
      ->check(CLI::IsMember({"strided", "chunked"}))
      ->capture_default_str();
  command
      ->add_option("--context", options->context,
                   "Tokens of a window (default: at most 1024 strided, 512 chunked; no more than the model's own)")
      ->type_name("N")
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 24));
  command->add_option("--stride", options->stride, "Tokens from one window to the next (default: half the context)")
      ->type_name("N")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24));
  command->add_option("--tokens", options->tokens, "Use only the first N tokens of the text")
      ->type_name("N")
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 40));
  add_kv_option(command, options->kv);
  add_kernel_option(command, common);
  add_threshold_option(command, common);
  command
      ->add_option_function<std::string>(
          "--against-kv",
          [options](const std::string& name) { options->against_kv = parse_kv_type("--against-kv", name); },
          "Type of the base model's KV cache (default: that of --kv)")
      ->type_name("TYPE");
  on_run(command, [options, &common] { eval(*options, common); });
}

}  // namespace pare::cli
