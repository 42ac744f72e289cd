// pare drop: removes the attentions, MLPs or blocks that do least.
#include <algorithm>

#include "base/file.h"
#include "calibration.h"
#include "commands.h"
#include "format.h"
#include "redundancy/choose.h"
#include "redundancy/greedy.h"

namespace pare::cli {
namespace {

struct DropOptions {
  std::filesystem::path model, output, plan;
  GgufReader reader = GgufReader::kPare;
  DropRequest request;
  bool greedy = false;
  GreedyOptions greedy_options;
  int64_t trial_tokens = 4096;
  CalibrationArguments calibration;
};

/// What was chosen, and how.
struct Choice {
  Plan plan;
  std::optional<Redundancy> redundancy;
  std::optional<GreedyResult> greedy;
  std::string calibration;
};

int64_t kv_bytes_per_token(const ModelConfig& config) {
  int64_t values = 0;
  for (const LayerConfig& layer : config.layers) {
    if (layer.attention) values += int64_t{2} * layer.attention->kv_heads * layer.attention->head_dim;
  }
  return values * info(DType::kF16).block_bytes;
}

void check_usage(const DropOptions& options) {
  const DropRequest& request = options.request;
  const bool counts = request.attention > 0 || request.mlp > 0 || request.block > 0 || request.joint > 0;
  if (!counts && options.plan.empty()) {
    throw UsageError("nothing to drop: give --attention N, --mlp N, --block N, --joint N, or --plan FILE");
  }
  if (counts && !options.plan.empty())
    throw UsageError("--plan says what to drop already: it takes no counts beside it");
  if (options.greedy && !options.plan.empty()) throw UsageError("--greedy chooses itself: it cannot follow --plan");
}

/// Refuses before the model is run what cannot be carried out afterwards.
void check_counts(const Checkpoint& checkpoint, const DropRequest& request) {
  const int attention = checkpoint.config.attention_count(), mlp = checkpoint.config.mlp_count();
  const auto blocks = static_cast<int>(
      std::count_if(checkpoint.config.layers.begin(), checkpoint.config.layers.end(),
                    [](const LayerConfig& layer) { return layer.attention.has_value() || layer.mlp.has_value(); }));
  const auto check = [&](int wanted, int present, const char* what) {
    if (wanted > present)
      fail("{}: cannot drop {} {}: the model has {}", checkpoint.path.string(), wanted, what, present);
  };
  check(request.attention, attention, "attentions");
  check(request.mlp, mlp, "MLPs");
  check(request.block, blocks, "blocks");
  check(request.joint, attention + mlp, "attentions and MLPs");
}

GreedyResult choose_greedily(const DropOptions& options, Variants& variants, const CalibrationText& text,
                             const Redundancy& redundancy, Common& common) {
  const TextWindows windows = scoring_windows(text.windows, options.trial_tokens);
  const Reference reference =
      Reference::measure(variants.base(), windows, DType::kF16, common.progress(), common.cancel());
  return greedy_drops(redundancy, options.request, divergence_cost(variants, reference, DType::kF16, common.cancel()),
                      options.greedy_options, common.progress(), common.cancel());
}

Choice choose(const DropOptions& options, const Checkpoint& checkpoint, Common& common) {
  Choice choice;
  if (!options.plan.empty()) {
    choice.plan = parse_plan(read_text_file(options.plan), options.plan.string());
    return choice;
  }
  check_counts(checkpoint, options.request);
  if (!checkpoint.tokenizer) fail("{}: the model has no tokenizer", checkpoint.path.string());
  const Tokenizer tokenizer(*checkpoint.tokenizer);
  ThreadPool pool(common.thread_count());
  Variants variants(checkpoint, pool, &common.progress());
  const CalibrationText text = read_calibration(options.calibration, variants.base(), tokenizer, common);
  choice.calibration = text.name;
  choice.redundancy = measure_redundancy(variants.base(), text.windows, common.progress(), common.cancel());
  if (options.greedy) {
    choice.greedy = choose_greedily(options, variants, text, *choice.redundancy, common);
    choice.plan = choice.greedy->plan;
  } else {
    choice.plan = choose_drops(*choice.redundancy, options.request);
  }
  return choice;
}

Json size_json(const Checkpoint& checkpoint) {
  return {{"bytes", checkpoint.bytes()},
          {"parameters", checkpoint.parameters()},
          {"attention_layers", checkpoint.config.attention_count()},
          {"mlp_layers", checkpoint.config.mlp_count()},
          {"kv_bytes_per_token", kv_bytes_per_token(checkpoint.config)}};
}

Json greedy_json(const GreedyResult& greedy) {
  Json steps = Json::array();
  for (const GreedyStep& step : greedy.steps) {
    steps.push_back({{"part", step.part.to_string()}, {"kl", step.cost}, {"tried", step.tried}});
  }
  return {{"kl", greedy.cost},
          {"one_shot_kl", greedy.one_shot_cost},
          {"one_shot_won", greedy.one_shot_won},
          {"steps", steps}};
}

Json to_json(const DropOptions& options, const Choice& choice, const Checkpoint& before, const Checkpoint& after) {
  Json json = {{"output", options.output.string()},
               {"dropped", {{"attention", choice.plan.drop_attention}, {"mlp", choice.plan.drop_mlp}}},
               {"before", size_json(before)},
               {"after", size_json(after)},
               {"plan", Json::parse(to_json(after.plan))}};
  if (choice.redundancy) json["calibration"] = {{"text", choice.calibration}, {"tokens", choice.redundancy->tokens}};
  if (choice.greedy) json["greedy"] = greedy_json(*choice.greedy);
  return json;
}

/// "attention of layers 3, 7 and 12"
std::string list(const char* what, const std::vector<int>& layers) {
  std::string text = fmt::format("{} of layer{} ", what, layers.size() == 1 ? "" : "s");
  for (size_t i = 0; i < layers.size(); ++i) {
    const char* before = i == 0 ? "" : i + 1 == layers.size() ? " and " : ", ";
    text += fmt::format("{}{}", before, layers[i]);
  }
  return text;
}

void print_greedy(const GreedyResult& greedy, Common& common) {
  Table table(2);
  table.column("step").column("dropped", Table::Align::kLeft).column("KL so far").column("tried");
  for (size_t i = 0; i < greedy.steps.size(); ++i) {
    const GreedyStep& step = greedy.steps[i];
    table.row(
        {std::to_string(i + 1), step.part.to_string(), fmt::format("{:.4f}", step.cost), std::to_string(step.tried)});
  }
  if (!greedy.steps.empty()) common.print("{}", table.render(common.style()));
  if (greedy.one_shot_won) {
    common.print("  the one-shot choice diverges less than the one made step by step, so it was taken: KL {:.4f}\n",
                 greedy.cost);
  } else {
    common.print("  KL from the model before {:.4f}; the one-shot choice would have had {:.4f}\n", greedy.cost,
                 greedy.one_shot_cost);
  }
}

void print_result(const DropOptions& options, const Choice& choice, const Checkpoint& before, const Checkpoint& after,
                  Common& common) {
  if (!choice.plan.drop_attention.empty()) common.print("dropped {}\n", list("attention", choice.plan.drop_attention));
  if (!choice.plan.drop_mlp.empty()) common.print("dropped {}\n", list("MLP", choice.plan.drop_mlp));
  if (choice.greedy) print_greedy(*choice.greedy, common);
  Table table(2);
  table.column("", Table::Align::kLeft).column("before").column("after").column("");
  const auto row = [&](const char* name, const std::string& old_text, const std::string& new_text, double old_value,
                       double new_value) {
    const double share = old_value > 0 ? 100 * (new_value - old_value) / old_value : 0;
    table.row({name, old_text, new_text, fmt::format("{:+.1f}%", share)});
  };
  const auto sizes = [&](const char* name, int64_t old_value, int64_t new_value, std::string (*text)(int64_t)) {
    row(name, text(old_value), text(new_value), static_cast<double>(old_value), static_cast<double>(new_value));
  };
  sizes("weights", before.bytes(), after.bytes(), human_bytes);
  sizes("parameters", before.parameters(), after.parameters(),
        [](int64_t n) { return human_count(static_cast<double>(n)); });
  sizes("attention layers", before.config.attention_count(), after.config.attention_count(), grouped);
  sizes("MLP layers", before.config.mlp_count(), after.config.mlp_count(), grouped);
  sizes("KV cache a token, f16", kv_bytes_per_token(before.config), kv_bytes_per_token(after.config), human_bytes);
  common.print("{}wrote {}\n", table.render(common.style()), printable(options.output.string()));
}

void drop(const DropOptions& options, Common& common) {
  check_usage(options);
  const Checkpoint before = open_checkpoint(options.model, common.open);
  check_reader(before, options.output, options.reader);
  check_finite(before, common.progress());
  throw_if_cancelled(common.cancel());
  const Choice choice = choose(options, before, common);
  std::vector<std::string> notes;
  const Checkpoint after = apply_plan(before, choice.plan, &notes);
  for (const std::string& note : notes) common.warn("note: " + note);
  write_output(after, options.output, options.reader, common);
  if (common.json) {
    common.print_json(to_json(options, choice, before, after));
  } else {
    print_result(options, choice, before, after, common);
  }
}

CLI::Option* add_count(CLI::App* command, const char* name, int& count, const char* description) {
  return command->add_option(name, count, description)->type_name("N")->check(CLI::Range(0, 100'000));
}

}  // namespace

void add_drop_command(CLI::App& app, Common& common) {
  auto options = std::make_shared<DropOptions>();
  auto* command = add_command(
      app, common, "drop", "Remove the attentions, MLPs or blocks that do least",
      {"pare drop model.gguf --attention 8 -o smaller.gguf", "pare drop model/ --joint 12 --greedy -o smaller/",
       "pare drop model.gguf --block 4 --calibration my-texts.txt -o smaller.gguf",
       "pare drop model.gguf --plan plan.json -o smaller.gguf",
       "pare drop model.gguf --attention 8 --for llama.cpp -o smaller.gguf"});
  add_model_argument(command, options->model, common);
  add_output_option(command, options->output);
  add_for_option(command, options->reader);
  add_count(command, "--attention", options->request.attention, "Attentions to drop");
  add_count(command, "--mlp", options->request.mlp, "MLPs to drop");
  add_count(command, "--block", options->request.block, "Whole blocks to drop");
  add_count(command, "--joint", options->request.joint, "Attentions and MLPs to drop, whichever do least");
  command->add_option("--plan", options->plan, "A plan (JSON) that says what to drop")->type_name("FILE");
  command->add_flag("--greedy", options->greedy,
                    "Drop one by one, each time what makes the predictions differ least (KL divergence)");
  command
      ->add_option("--shortlist", options->greedy_options.shortlist,
                   "With --greedy: candidates tried at each step, those that do least; 0 = all")
      ->type_name("N")
      ->check(CLI::Range(0, 100'000))
      ->capture_default_str();
  command->add_option("--trial-tokens", options->trial_tokens, "With --greedy: tokens that a candidate is tried on")
      ->type_name("N")
      ->check(CLI::Range(int64_t{64}, int64_t{1} << 30))
      ->capture_default_str();
  add_calibration_options(command, options->calibration);
  on_run(command, [options, &common] { drop(*options, common); });
}

}  // namespace pare::cli
