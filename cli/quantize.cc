// pare quantize: stores weights in smaller types, rounding to nearest.
#include <map>

#include "commands.h"
#include "format.h"
#include "model/ternary.h"
#include "quantize/mixes.h"

namespace pare::cli {
namespace {

struct QuantizeOptions {
  std::filesystem::path model, output, plan;
  std::optional<DType> weights, embedding, head;
  const Mix* mix = nullptr;
  bool requantize = false;
  GgufReader reader = GgufReader::kPare;
};

/// A type that more than one value shares a scale in: encoding loses what the scale cannot say.
bool is_block_type(DType type) { return info(type).block_size > 1; }

Plan make_plan(const QuantizeOptions& options, const ModelConfig& config) {
  Plan plan;
  if (!options.plan.empty()) plan = parse_plan(read_text_file(options.plan), options.plan.string());
  if (options.mix) plan = merge(plan, mix_plan(*options.mix, config));
  // Later rules win, so that what is said on the command line overrides the plan's file.
  const auto add = [&](const char* tensor, std::optional<DType> type) {
    if (!type) return;
    StoreRule rule;
    rule.tensor = tensor;
    rule.type = *type;
    plan.store.push_back(rule);
  };
  add("*", options.weights);
  add("embedding", options.embedding);
  if (config.tied_embedding && options.head && options.embedding.value_or(*options.head) != *options.head) {
    throw UsageError("the model's embedding is its head, too: --embedding and --head must be the same type");
  }
  add(config.tied_embedding ? "embedding" : "output", options.head);
  if (plan == Plan()) {
    throw UsageError("nothing to do: give --weights TYPE, --head TYPE or --plan FILE (see pare quantize --help)");
  }
  return plan;
}

/// Weights that were rounded once already lose again, or grow for nothing: that happens only on request.
void check_requantizing(const Checkpoint& before, const Checkpoint& after, const QuantizeOptions& options,
                        Common& common) {
  std::map<std::pair<DType, DType>, int64_t> changes;
  for (const auto& weight : before.weights) {
    const WeightTensor* stored = after.find(weight.id);
    if (!stored || !is_block_type(weight.type) || stored->type == weight.type) continue;
    // From one ternary type to another, ternary weights lose nothing.
    if (is_ternary_weight(before.config, weight) && is_ternary_weight(after.config, *stored)) continue;
    ++changes[{weight.type, stored->type}];
  }
  for (const auto& [types, count] : changes) {
    const std::string what = fmt::format("{} of {} {} already quantized to {}", plural(count, "weight"), before.name,
                                         count == 1 ? "is" : "are", info(types.first).name);
    const bool grows = info(types.second).bits_per_value() > info(types.first).bits_per_value();
    const char* effect = grows ? "makes the file larger and nothing better" : "rounds them a second time";
    if (is_block_type(types.second) && !options.requantize) {
      fail("{}: storing them as {} {}; start from the original, or give --requantize", what, info(types.second).name,
           effect);
    }
    common.warn(fmt::format("warning: {}: storing them as {} {}", what, info(types.second).name, effect));
  }
}

Json size_json(const Checkpoint& checkpoint) {
  const auto bytes = checkpoint.bytes();
  return {{"bytes", bytes},
          {"bits_per_weight", 8.0 * static_cast<double>(bytes) / static_cast<double>(checkpoint.parameters())}};
}

void report(const Checkpoint& before, const Checkpoint& after, const QuantizeOptions& options,
            const std::vector<std::string>& notes, Common& common) {
  const auto file = std::filesystem::is_regular_file(options.output)
                        ? static_cast<int64_t>(std::filesystem::file_size(options.output))
                        : after.bytes();
  const double ratio = static_cast<double>(before.bytes()) / static_cast<double>(after.bytes());
  if (common.json) {
    common.print_json({{"output", options.output.string()},
                       {"file_bytes", file},
                       {"before", size_json(before)},
                       {"after", size_json(after)},
                       {"ratio", ratio},
                       {"plan", Json::parse(to_json(after.plan))},
                       {"notes", notes}});
    return;
  }
  for (const auto& note : notes) common.remark("note: " + note);
  Table table;
  table.column("", Table::Align::kLeft).column("size").column("bits per weight");
  const auto row = [&](const char* name, const Checkpoint& checkpoint) {
    table.row({name, human_bytes(checkpoint.bytes()),
               fmt::format("{:.2f}", 8.0 * static_cast<double>(checkpoint.bytes()) /
                                         static_cast<double>(checkpoint.parameters()))});
  };
  row("before", before);
  row("after", after);
  common.print(table.render(common.style()));
  common.print("{} smaller: {} ({})\n", common.style().green(fmt::format("{:.2f}x", ratio)),
               printable(options.output.string()), human_bytes(file));
}

void quantize(const QuantizeOptions& options, Common& common) {
  const Checkpoint before = open_checkpoint(options.model, common.open);
  const Plan plan = make_plan(options, before.config);
  std::vector<std::string> notes;
  const Checkpoint after = apply_plan(before, plan, &notes);
  check_requantizing(before, after, options, common);
  check_reader(after, options.output, options.reader);
  check_finite(before, common.stoppable_progress());
  write_output(after, options.output, options.reader, common);
  report(before, after, options, notes, common);
}

/// --weights: a type or a mix of types.
void add_weights_option(CLI::App* command, QuantizeOptions& options) {
  std::string mixes;
  for (const Mix& mix : all_mixes()) mixes += std::string(mixes.empty() ? "" : ", ") + mix.name;
  command
      ->add_option_function<std::string>(
          "-w,--weights",
          [&options, mixes](const std::string& text) {
            const DTypeInfo* type = find_dtype(text);
            options.mix = find_mix(text);
            if (type) options.weights = type->type;
            if (type || options.mix) return;
            throw CLI::ValidationError("--weights",
                                       fmt::format("'{}' is not one of {}, {}", text, dtype_names(), mixes));
          },
          "Type of all matrices: " + dtype_names() + "; or a mix as llama.cpp's quantizer makes them: " + mixes)
      ->type_name("TYPE");
}

}  // namespace

void add_quantize_command(CLI::App& app, Common& common) {
  auto options = std::make_shared<QuantizeOptions>();
  auto* command = add_command(
      app, common, "quantize", "Store a model's weights in smaller types, rounding to nearest",
      {"pare quantize ~/models/SmolLM2-360M --weights q8_0 -o small.gguf",
       "pare quantize model.gguf --weights q4_k_m -o small.gguf",
       "pare quantize model.gguf --weights q4_0 --embedding q8_0 -o small.gguf",
       "pare quantize bitnet/ --head q6_k -o small.gguf", "pare quantize model.gguf --plan plan.json -o small.gguf"});
  add_model_argument(command, options->model, common);
  add_output_option(command, options->output);
  add_for_option(command, options->reader);
  add_weights_option(command, *options);
  add_dtype_option(command, "--embedding", options->embedding, "Type of the token embedding, if another");
  add_dtype_option(command, "--head", options->head,
                   "Type of the output matrix, if another, which in some models is the token embedding, too");
  add_dtype_option(command, "--output-matrix", options->head, "What --head was called")->group("");  // not in the help
  command->add_option("--plan", options->plan, "A plan (JSON); what is given on the command line overrides it")
      ->type_name("FILE");
  command->add_flag("--requantize", options->requantize, "Quantize weights again that were quantized before");
  on_run(command, [options, &common] { quantize(*options, common); });
}

}  // namespace pare::cli
