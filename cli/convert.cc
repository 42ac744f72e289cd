// pare convert: the same model as a GGUF file or a Hugging Face folder.
#include <algorithm>
#include <map>

#include "commands.h"
#include "format.h"
#include "model/ternary.h"

namespace pare::cli {
namespace {

struct ConvertOptions {
  std::filesystem::path model, output;
  std::optional<DType> type;
  GgufReader reader = GgufReader::kPare;
};

bool is_matrix(const WeightTensor& weight) { return info(weight.id.kind).matrix; }

/// The types that have to change: all matrices for --type, else those that a Hugging Face folder cannot hold. It holds
/// ternary weights packed.
Plan type_plan(const Checkpoint& checkpoint, const ConvertOptions& options) {
  Plan plan;
  StoreRule rule;
  rule.type = options.type.value_or(DType::kF16);
  if (options.type) {
    plan.store.push_back(rule);
    return plan;
  }
  if (options.output.extension() == ".gguf") return plan;
  const auto must = [&](const WeightTensor& weight) {
    return !info(weight.type).safetensors && !is_ternary_weight(checkpoint.config, weight);
  };
  const bool all = std::all_of(checkpoint.weights.begin(), checkpoint.weights.end(),
                               [&](const WeightTensor& weight) { return !is_matrix(weight) || must(weight); });
  if (all) {
    plan.store.push_back(rule);
    return plan;
  }
  for (const WeightTensor& weight : checkpoint.weights) {
    if (!is_matrix(weight) || !must(weight)) continue;
    rule.tensor = info(weight.id.kind).name;
    if (weight.id.layer >= 0) rule.first_layer = rule.last_layer = weight.id.layer;
    plan.store.push_back(rule);
  }
  return plan;
}

/// "210 weights: q8_0 -> f16", one for each pair of types.
std::vector<std::string> type_changes(const Checkpoint& before, const Checkpoint& after) {
  std::map<std::pair<DType, DType>, int64_t> changes;
  for (const WeightTensor& weight : before.weights) {
    const WeightTensor* stored = after.find(weight.id);
    if (stored && stored->type != weight.type) ++changes[{weight.type, stored->type}];
  }
  std::vector<std::string> lines;
  for (const auto& [types, count] : changes) {
    lines.push_back(fmt::format("{} stored as {} instead of {}", plural(count, "weight"), info(types.second).name,
                                info(types.first).name));
  }
  return lines;
}

int64_t bytes_on_disk(const std::filesystem::path& path) {
  if (!std::filesystem::is_directory(path)) return static_cast<int64_t>(std::filesystem::file_size(path));
  int64_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(path)) {
    if (entry.is_regular_file()) bytes += static_cast<int64_t>(entry.file_size());
  }
  return bytes;
}

void convert(const ConvertOptions& options, Common& common) {
  const Checkpoint before = open_checkpoint(options.model, common.open);
  const Plan plan = type_plan(before, options);
  const Checkpoint after = plan == Plan() ? before : apply_plan(before, plan);
  check_reader(after, options.output, options.reader);
  const std::vector<std::string> notes = type_changes(before, after);
  write_output(after, options.output, options.reader, common);
  const int64_t bytes = bytes_on_disk(options.output);
  const char* format = options.output.extension() == ".gguf" ? "gguf" : "safetensors";
  if (common.json) {
    common.print_json({{"output", options.output.string()},
                       {"format", format},
                       {"bytes", bytes},
                       {"weight_bytes", after.bytes()},
                       {"parameters", after.parameters()},
                       {"notes", notes}});
    return;
  }
  for (const std::string& note : notes) common.remark("note: " + note);
  common.print("{}: {} ({})\n", printable(options.output.string()),
               std::string_view(format) == "gguf" ? "a GGUF file" : "a Hugging Face folder", human_bytes(bytes));
}

}  // namespace

void add_convert_command(CLI::App& app, Common& common) {
  auto options = std::make_shared<ConvertOptions>();
  auto* command = add_command(app, common, "convert", "Write the same model as a GGUF file or a Hugging Face folder",
                              {"pare convert ~/models/SmolLM2-360M -o SmolLM2-360M.gguf",
                               "pare convert model.gguf -o model/", "pare convert small.gguf --type bf16 -o small/",
                               "pare convert dropped/ --for llama.cpp -o dropped.gguf  # stock llama.cpp runs it"});
  add_model_argument(command, options->model, common);
  add_output_option(command, options->output);
  command
      ->add_option_function<std::string>(
          "--type",
          [options](const std::string& name) {
            const DTypeInfo* found = find_dtype(name);
            if (!found || !found->safetensors) {
              throw CLI::ValidationError("--type", fmt::format("'{}' is not one of f32, bf16, f16", name));
            }
            options->type = found->type;
          },
          "Type of all matrices: f32, bf16 or f16 (default: as they are; block types become f16 in a folder)")
      ->type_name("TYPE");
  add_for_option(command, options->reader);
  on_run(command, [options, &common] { convert(*options, common); });
}

}  // namespace pare::cli
