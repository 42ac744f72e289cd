// pare run: continues a text, token by token.
#include <algorithm>
#include <random>

#include "commands.h"
#include "format.h"
#include "model/generate.h"

namespace pare::cli {
namespace {

struct RunOptions {
  std::filesystem::path model;
  std::string prompt;
  std::filesystem::path prompt_file;
  int64_t tokens = 256;
  SamplerOptions sampler;
  std::optional<uint64_t> seed;
  bool greedy = false, ignore_end = false, no_bos = false, deterministic = false;
  DType kv = DType::kF16;
};

const char* name_of(StopReason reason) {
  switch (reason) {
    case StopReason::kLength:
      return "length";
    case StopReason::kEnd:
      return "end";
    case StopReason::kContext:
      return "context";
    case StopReason::kCancelled:
      return "cancelled";
  }
  return "unknown";
}

const char* explain(StopReason reason) {
  switch (reason) {
    case StopReason::kLength:
      return "reached -n";
    case StopReason::kEnd:
      return "the text ended";
    case StopReason::kContext:
      return "the context is full";
    case StopReason::kCancelled:
      return "interrupted";
  }
  return "unknown";
}

std::string prompt_text(const RunOptions& options, Common& common) {
  if (!options.prompt_file.empty()) return read_text_file(options.prompt_file);
  return options.prompt == "-" ? read_stdin(common) : options.prompt;
}

std::vector<int32_t> prompt_tokens(const RunOptions& options, const Tokenizer& tokenizer, const std::string& text) {
  EncodeOptions how;
  how.add_special = !options.no_bos;
  auto ids = tokenizer.encode(text, how);
  // An end token that the tokenizer would close a document with must not stand before what is to be written.
  const auto eos = tokenizer.data().eos;
  if (tokenizer.data().add_eos && ids.size() > 1 && eos && ids.back() == *eos) ids.pop_back();
  if (ids.empty()) {
    const auto& data = tokenizer.data();
    const auto first = data.bos ? data.bos : data.eos;
    if (!first) throw UsageError("the model has no beginning token to start from: give it a prompt (-p TEXT)");
    ids.push_back(*first);
  }
  return ids;
}

double rate(size_t tokens, double seconds) { return seconds > 0 ? static_cast<double>(tokens) / seconds : 0; }

/// Passes that the decode time covers: the first token comes out of the prompt's, and one that ends the text is not
/// kept.
size_t decoded(const GenerateResult& result) {
  if (result.tokens.empty() || result.reason == StopReason::kEnd) return result.tokens.size();
  return result.tokens.size() - 1;
}

Json to_json(const RunOptions& options, const std::vector<int32_t>& prompt, const std::string& text,
             const GenerateResult& result) {
  return {{"prompt_tokens", prompt},
          {"tokens", result.tokens},
          {"text", text},
          {"reason", name_of(result.reason)},
          {"seed", options.sampler.seed},
          {"timings",
           {{"prefill_seconds", result.prefill_seconds},
            {"prefill_tokens_per_second", rate(prompt.size(), result.prefill_seconds)},
            {"decode_seconds", result.decode_seconds},
            {"decode_tokens_per_second", rate(decoded(result), result.decode_seconds)}}}};
}

std::string summary(const RunOptions& options, size_t prompt, const GenerateResult& result) {
  std::string out = fmt::format(
      "prompt {} at {} tok/s, text {} at {} tok/s; {}", plural(static_cast<int64_t>(prompt), "token"),
      three_digits(rate(prompt, result.prefill_seconds)), plural(static_cast<int64_t>(result.tokens.size()), "token"),
      three_digits(rate(decoded(result), result.decode_seconds)), explain(result.reason));
  if (options.sampler.temperature > 0) out += fmt::format("; --seed {}", options.sampler.seed);
  return out;
}

void run(RunOptions& options, Common& common) {
  Checkpoint checkpoint = open_checkpoint(options.model, common.open);
  if (options.greedy) options.sampler.temperature = 0;
  options.sampler.seed = options.seed ? *options.seed : std::random_device()();
  check_sampler_options(options.sampler);
  if (common.context > checkpoint.config.context) {
    common.remark(fmt::format("note: the model was made for {}; --ctx goes beyond it",
                              plural(checkpoint.config.context, "token")));
  }
  const std::string text = prompt_text(options, common);
  auto loaded = load_model(std::move(checkpoint), common);
  const Tokenizer& tokenizer = loaded.need_tokenizer();
  const auto prompt = prompt_tokens(options, tokenizer, text);
  const int64_t context = common.context_for(loaded.model->config(), loaded.model->config().context);
  if (static_cast<int64_t>(prompt.size()) > context) {
    fail("the prompt has {} tokens, more than the context of {}", prompt.size(), context);
  }
  KvCache cache(loaded.model->config(), 1, context, options.kv);

  // On a terminal the whole text is shown; into a pipe or file goes only what the model wrote.
  const bool to_terminal = !common.json && isatty(STDOUT_FILENO);
  if (to_terminal && !common.quiet) {
    common.print(common.style().bold(text));
    common.flush();
  }
  GenerateOptions how;
  how.max_tokens = options.tokens > 0 ? options.tokens : context;
  how.sampler = options.sampler;
  how.ignore_end = options.ignore_end;
  how.cancel = common.cancel();
  Utf8Stream stream;
  std::string written;
  const auto show = [&](const std::string& piece) {
    written += piece;
    if (common.json || piece.empty()) return;
    common.print(piece);
    common.flush();
  };
  const auto on_token = [&](int32_t id) {
    // At the very beginning the blank that opens a SentencePiece word is not text.
    const bool first = text.empty() && written.empty();
    show(stream.feed(first ? tokenizer.decode({&id, 1}) : tokenizer.decode_one(id)));
  };
  GenerateResult result;
  try {
    result = generate(*loaded.model, cache, 0, prompt, how, tokenizer.data().end_of_generation, on_token);
  } catch (const NotFinite& error) {
    check_finite(loaded.checkpoint, common.progress());  // names the tensor, if one is to blame
    fail("{}: {}", options.model.string(), error.what());
  }
  show(stream.finish());
  if (common.json) {
    common.print_json(to_json(options, prompt, written, result));
  } else if (to_terminal || (!written.empty() && written.back() != '\n')) {
    common.print("\n");
  }
  common.flush();
  common.remark(Style::of(STDERR_FILENO).dim(summary(options, prompt.size(), result)));
  if (result.reason == StopReason::kCancelled) throw Interrupted();
}

}  // namespace

void add_run_command(CLI::App& app, Common& common) {
  auto options = std::make_shared<RunOptions>();
  auto* command = add_command(app, common, "run", "Let a model write: continues a prompt, streaming",
                              {"pare run model.gguf -p \"Once upon a time\" -n 200",
                               "pare run model.gguf -p \"The capital of France is\" --greedy",
                               "pare run model.gguf --file prompt.txt --temp 0.7 --seed 1 > story.txt",
                               "echo -n 'Dear diary,' | pare run model.gguf -p - --json"});
  add_model_argument(command, options->model, common);
  auto* prompt =
      command->add_option("-p,--prompt", options->prompt,
                          "Text to continue; '-' reads it from standard input (default: start from nothing)");
  prompt->type_name("TEXT");
  command->add_option("-f,--file", options->prompt_file, "Read the prompt from a file")
      ->type_name("FILE")
      ->excludes(prompt);
  command
      ->add_option("-n,--tokens", options->tokens,
                   "Tokens to write at most; 0: until the text ends or the context is full")
      ->type_name("N")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 40));
  command->add_flag("--ignore-eos", options->ignore_end, "Go on where the model would end the text");
  command->add_flag("--no-bos", options->no_bos, "Do not put the beginning token before the prompt");

  auto& sampler = options->sampler;
  const char* group = "Choosing tokens";
  const auto number = [&](const char* name, auto& value, const char* what) {
    command->add_option(name, value, what)->type_name("X")->capture_default_str()->group(group);
  };
  command->add_flag("--greedy", options->greedy, "Always take the likeliest token (the same as --temp 0)")
      ->group(group);
  number("--temp", sampler.temperature, "Temperature: lower is more predictable; 0 is greedy");
  number("--top-k", sampler.top_k, "Keep only the K likeliest tokens; 0: all");
  number("--top-p", sampler.top_p, "Keep the likeliest tokens that together have this probability; 1: all");
  number("--min-p", sampler.min_p, "Keep tokens at least this likely, relative to the likeliest; 0: all");
  number("--repeat-penalty", sampler.repetition_penalty, "Make recent tokens less likely; 1: no");
  number("--repeat-window", sampler.repetition_window, "How many recent tokens the penalty looks at");
  command->add_option("--seed", options->seed, "Seed of the random choices (default: a new one, shown at the end)")
      ->type_name("N")
      ->group(group);

  const char* engine = "Engine";
  add_kv_option(command, options->kv)->group(engine);
  add_kernel_option(command, common)->group(engine);
  add_threshold_option(command, common)->group(engine);
  command
      ->add_flag("--deterministic", options->deterministic,
                 "Use only kernels whose results are the same on every machine and with any number of threads. So far "
                 "pare has "
                 "no others: this changes nothing yet")
      ->group(engine);
  on_run(command, [options, &common] { run(*options, common); });
}

}  // namespace pare::cli
