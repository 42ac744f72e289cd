// pare inspect: everything that a model's headers say, without reading its weights.
#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "commands.h"
#include "format.h"
#include "inspect_kernels.h"
#include "model/ternary.h"

namespace pare::cli {
namespace {

struct InspectOptions {
  std::filesystem::path model;
  bool tensors = false, metadata = false, kernels = false;
};

/// Weights of one kind that look alike, in whichever layers.
struct TensorGroup {
  std::string kind;
  Shape shape;
  DType type = DType::kF32;
  std::vector<int> layers;
  int64_t parameters = 0, bytes = 0;
};

std::vector<TensorGroup> group_tensors(const Checkpoint& checkpoint) {
  std::vector<TensorGroup> groups;
  for (const auto& weight : checkpoint.weights) {
    const std::string kind = info(weight.id.kind).name;
    auto found = std::find_if(groups.begin(), groups.end(), [&](const TensorGroup& g) {
      return g.kind == kind && g.shape == weight.shape && g.type == weight.type;
    });
    if (found == groups.end()) {
      groups.push_back({kind, weight.shape, weight.type, {}, 0, 0});
      found = std::prev(groups.end());
    }
    if (weight.id.layer >= 0) found->layers.push_back(weight.id.layer);
    found->parameters += weight.shape.count();
    found->bytes += weight.bytes();
  }
  for (auto& group : groups) std::sort(group.layers.begin(), group.layers.end());
  return groups;
}

double bits_per_weight(const Checkpoint& checkpoint) {
  const int64_t count = checkpoint.parameters();
  return count == 0 ? 0 : 8.0 * static_cast<double>(checkpoint.bytes()) / static_cast<double>(count);
}

int64_t kv_values_per_token(const ModelConfig& config) {
  int64_t values = 0;
  for (const auto& layer : config.layers) {
    if (layer.attention) values += int64_t{2} * layer.attention->kv_heads * layer.attention->head_dim;
  }
  return values;
}

const char* name_of(RopeScalingKind kind) {
  switch (kind) {
    case RopeScalingKind::kNone:
      return "none";
    case RopeScalingKind::kLinear:
      return "linear";
    case RopeScalingKind::kDynamic:
      return "dynamic";
    case RopeScalingKind::kYarn:
      return "yarn";
    case RopeScalingKind::kLongRope:
      return "longrope";
    case RopeScalingKind::kLlama3:
      return "llama3";
  }
  return "unknown";
}

const char* name_of(TokenizerKind kind) {
  switch (kind) {
    case TokenizerKind::kByteLevelBpe:
      return "byte-level BPE";
    case TokenizerKind::kSentencePieceBpe:
      return "SentencePiece BPE";
  }
  return "unknown";
}

const char* name_of(Activation activation) { return activation == Activation::kReluSquared ? "squared ReLU" : "SiLU"; }

/// What linear layers do to their inputs, as the end of a line.
const char* describe(const LinearConfig& linear) {
  return linear.activations == ActivationQuantization::kInt8Row ? ", int8 activations for ternary weights" : "";
}

std::string describe(const AttentionConfig& attention) {
  std::string out = fmt::format("{} heads of {}", attention.heads, attention.head_dim);
  if (attention.kv_heads != attention.heads) out += fmt::format(", {} KV heads", attention.kv_heads);
  out += fmt::format(", rope base {:g}", attention.rope.theta);
  if (attention.rope.dims != attention.head_dim) out += fmt::format(" over {} components", attention.rope.dims);
  const auto& scaling = attention.rope.scaling;
  if (scaling.kind != RopeScalingKind::kNone)
    out += fmt::format(", {} scaling x{:g}", name_of(scaling.kind), scaling.factor);
  if (attention.is_differential()) out += ", differential";
  if (attention.qkv_bias) out += ", biases on q, k, v";
  if (attention.output_bias) out += ", bias on the output";
  if (attention.sub_norm) out += ", norm before the output";
  return out + describe(attention.linear);
}

std::string describe(const MlpConfig& mlp) {
  return fmt::format("{} wide, {} gate{}{}{}", mlp.width, name_of(mlp.activation), mlp.bias ? ", biases" : "",
                     mlp.sub_norm ? ", norm before down" : "", describe(mlp.linear));
}

/// Rows "attention  8 heads of 64 (layers 0-3)": one for each variant among the layers.
template <class Part>
void describe_parts(const ModelConfig& config, std::optional<Part> LayerConfig::*part, const std::string& title,
                    Table& table) {
  std::vector<std::pair<std::string, std::vector<int>>> variants;
  std::vector<int> absent;
  for (int i = 0; i < static_cast<int>(config.layers.size()); ++i) {
    const auto& present = config.layers[static_cast<size_t>(i)].*part;
    if (!present) {
      absent.push_back(i);
      continue;
    }
    const std::string text = describe(*present);
    auto found = std::find_if(variants.begin(), variants.end(), [&](const auto& v) { return v.first == text; });
    if (found == variants.end()) found = variants.insert(variants.end(), {text, {}});
    found->second.push_back(i);
  }
  for (const auto& [text, layers] : variants) {
    table.row({title, variants.size() == 1 ? text : fmt::format("{} (layers {})", text, ranges(layers))});
  }
  if (!absent.empty())
    table.row({"", fmt::format("none in {} of {} layers: {}", absent.size(), config.layers.size(), ranges(absent))});
}

std::string describe_token(const TokenizerData& data, std::optional<int32_t> id) {
  if (!id) return "none";
  const bool known = *id >= 0 && *id < data.size();
  return fmt::format("{} {}", *id, known ? printable(data.pieces[static_cast<size_t>(*id)]) : "(out of range)");
}

void print_summary(const Checkpoint& checkpoint, Common& common) {
  const auto& config = checkpoint.config;
  Table table(2);
  table.column("", Table::Align::kLeft).column("", Table::Align::kLeft);
  table.row({"file", fmt::format("{} ({})", printable(checkpoint.path.string()), checkpoint.format)});
  table.row({"family", config.family});
  table.row(
      {"size", fmt::format("{}, {} parameters, {:.2f} bits per weight", human_bytes(checkpoint.bytes()),
                           human_count(static_cast<double>(checkpoint.parameters())), bits_per_weight(checkpoint))});
  table.row({"layers", fmt::format("{}, hidden size {}", config.layers.size(), config.hidden)});
  describe_parts(config, &LayerConfig::attention, "attention", table);
  describe_parts(config, &LayerConfig::mlp, "MLP", table);
  table.row({"vocabulary",
             fmt::format("{} tokens, {}", grouped(config.vocabulary),
                         config.tied_embedding ? "the output shares the embedding" : "a separate output matrix")});
  const int64_t kv = kv_values_per_token(config);
  table.row({"context", plural(config.context, "token")});
  table.row({"KV cache", fmt::format("{} a token in f16, {} for the whole context", human_bytes(2 * kv),
                                     human_bytes(2 * kv * config.context))});
  if (const auto& tokenizer = checkpoint.tokenizer) {
    table.row({"tokenizer",
               fmt::format("{}, {}, bos {}, eos {}", name_of(tokenizer->kind), plural(tokenizer->size(), "token"),
                           describe_token(*tokenizer, tokenizer->bos), describe_token(*tokenizer, tokenizer->eos))});
    table.row({"chat template", tokenizer->chat_template.empty() ? "none" : "yes"});
  } else {
    table.row({"tokenizer", "none"});
  }
  if (!(checkpoint.plan == Plan())) table.row({"plan", checkpoint.plan.summary()});
  if (!checkpoint.source.empty()) table.row({"made from", printable(checkpoint.source)});
  common.print("{}\n", common.style().bold(printable(checkpoint.name)));
  common.print(table.render(common.style()));
}

void print_groups(const Checkpoint& checkpoint, Common& common) {
  const Style& style = common.style();
  const auto groups = group_tensors(checkpoint);
  Table table(2);
  table.column("tensors", Table::Align::kLeft)
      .column("layers", Table::Align::kLeft)
      .column("shape", Table::Align::kLeft);
  table.column("type", Table::Align::kLeft)
      .column("parameters")
      .column("size")
      .column("share")
      .column("", Table::Align::kLeft);
  const auto whole = static_cast<double>(std::max<int64_t>(checkpoint.bytes(), 1));
  for (const auto& group : groups) {
    const double share = static_cast<double>(group.bytes) / whole;
    table.row({group.kind, ranges(group.layers), group.shape.to_string(), info(group.type).name,
               human_count(static_cast<double>(group.parameters)), human_bytes(group.bytes),
               fmt::format("{:.1f}%", 100 * share), style.cyan(style.bar(share, 20))});
  }
  std::map<DType, std::pair<int64_t, int64_t>> types;  // tensors, bytes
  for (const auto& weight : checkpoint.weights) ++types[weight.type].first, types[weight.type].second += weight.bytes();
  table.rule();
  for (const auto& [type, counts] : types) {
    table.row({plural(counts.first, "tensor"), "", "", info(type).name, "", human_bytes(counts.second),
               fmt::format("{:.1f}%", 100 * static_cast<double>(counts.second) / whole)});
  }
  common.print("\n{}", table.render(style));
}

void print_tensors(const Checkpoint& checkpoint, Common& common) {
  Table table(2);
  table.column("tensor", Table::Align::kLeft)
      .column("weight", Table::Align::kLeft)
      .column("shape", Table::Align::kLeft);
  table.column("type", Table::Align::kLeft).column("size");
  const bool scales = std::any_of(checkpoint.weights.begin(), checkpoint.weights.end(),
                                  [](const WeightTensor& weight) { return weight.scale != 1; });
  if (scales) table.column("scale");
  for (const auto& weight : checkpoint.weights) {
    std::vector<std::string> row{printable(weight.name), weight.id.to_string(), weight.shape.to_string(),
                                 info(weight.type).name, human_bytes(weight.bytes())};
    if (scales) row.push_back(weight.scale == 1 ? "" : fmt::format("{:g}", weight.scale));
    table.row(std::move(row));
  }
  common.print("\n{}", table.render(common.style()));
}

/// A metadata value in a few words: arrays by their length and first entries.
std::string describe(const GgufValue& value) {
  return std::visit(
      [](const auto& v) -> std::string {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, std::string>) {
          return shorten(printable(v), 70);
        } else if constexpr (std::is_arithmetic_v<T>) {
          return fmt::format("{}", v);
        } else {
          std::string out;
          for (size_t i = 0; i < std::min<size_t>(v.size(), 4); ++i) {
            if (i > 0) out += ", ";
            if constexpr (std::is_same_v<T, std::vector<std::string>>) {
              out += shorten(printable(v[i]), 16);
            } else if constexpr (std::is_same_v<T, std::vector<bool>>) {
              out += v[i] ? "true" : "false";
            } else {
              out += fmt::format("{}", v[i]);
            }
          }
          return fmt::format("[{}{}] ({})", out, v.size() > 4 ? ", ..." : "", v.size());
        }
      },
      value);
}

void print_metadata(const Checkpoint& checkpoint, Common& common) {
  if (checkpoint.source_metadata) {
    Table table(2);
    table.column("metadata key", Table::Align::kLeft).column("value", Table::Align::kLeft);
    for (const auto& [key, value] : checkpoint.source_metadata->entries()) table.row({printable(key), describe(value)});
    common.print("\n{}", table.render(common.style()));
  } else {
    common.print("\n{}\n", checkpoint.source_config->dump(2, ' ', false, Json::error_handler_t::replace));
  }
}

Json attention_json(const AttentionConfig& attention) {
  return {{"kind", attention.is_differential() ? "differential" : "softmax"},
          {"heads", attention.heads},
          {"kv_heads", attention.kv_heads},
          {"head_dim", attention.head_dim},
          {"rope_theta", attention.rope.theta},
          {"rope_dims", attention.rope.dims},
          {"rope_scaling", name_of(attention.rope.scaling.kind)},
          {"rope_scaling_factor", attention.rope.scaling.factor},
          {"qkv_bias", attention.qkv_bias},
          {"output_bias", attention.output_bias},
          {"sub_norm", attention.sub_norm},
          {"activation_quantization", activations_name(attention.linear.activations)}};
}

Json mlp_json(const MlpConfig& mlp) {
  return {{"width", mlp.width},
          {"bias", mlp.bias},
          {"activation", name_of(mlp.activation)},
          {"sub_norm", mlp.sub_norm},
          {"activation_quantization", activations_name(mlp.linear.activations)}};
}

Json layers_json(const Checkpoint& checkpoint) {
  Json layers = Json::array();
  for (size_t i = 0; i < checkpoint.config.layers.size(); ++i) {
    const auto& layer = checkpoint.config.layers[i];
    Json entry;
    entry["original_layer"] = i < checkpoint.original_layers.size() ? Json(checkpoint.original_layers[i]) : Json(i);
    entry["attention"] = layer.attention ? attention_json(*layer.attention) : Json();
    entry["mlp"] = layer.mlp ? mlp_json(*layer.mlp) : Json();
    layers.push_back(std::move(entry));
  }
  return layers;
}

Json tokenizer_json(const TokenizerData& data) {
  const auto id = [](std::optional<int32_t> value) { return value ? Json(*value) : Json(); };
  return {{"kind", name_of(data.kind)},
          {"tokens", data.size()},
          {"bos", id(data.bos)},
          {"eos", id(data.eos)},
          {"end_of_generation", data.end_of_generation},
          {"add_bos", data.add_bos},
          {"chat_template", !data.chat_template.empty()}};
}

Json to_json(const Checkpoint& checkpoint) {
  const auto& config = checkpoint.config;
  Json tensors = Json::array();
  for (const auto& weight : checkpoint.weights) {
    Json shape = Json::array();
    for (int i = 0; i < weight.shape.rank(); ++i) shape.push_back(weight.shape[i]);
    tensors.push_back({{"name", weight.name},
                       {"kind", info(weight.id.kind).name},
                       {"layer", weight.id.layer < 0 ? Json() : Json(weight.id.layer)},
                       {"shape", std::move(shape)},
                       {"type", info(weight.type).name},
                       {"scale", weight.scale},
                       {"bytes", weight.bytes()}});
  }
  Json out = {
      {"name", checkpoint.name},
      {"path", checkpoint.path.string()},
      {"format", checkpoint.format},
      {"family", config.family},
      {"parameters", checkpoint.parameters()},
      {"bytes", checkpoint.bytes()},
      {"bits_per_weight", bits_per_weight(checkpoint)},
      {"hidden", config.hidden},
      {"vocabulary", config.vocabulary},
      {"context", config.context},
      {"tied_embedding", config.tied_embedding},
      {"kv_bytes_per_token", {{"f16", 2 * kv_values_per_token(config)}, {"f32", 4 * kv_values_per_token(config)}}},
      {"tokenizer", checkpoint.tokenizer ? tokenizer_json(*checkpoint.tokenizer) : Json()},
      {"plan", checkpoint.plan == Plan() ? Json() : Json::parse(pare::to_json(checkpoint.plan))},
      {"source", checkpoint.source.empty() ? Json() : Json(checkpoint.source)},
      {"layers", layers_json(checkpoint)}};
  out["tensors"] = std::move(tensors);
  return out;
}

void inspect(const InspectOptions& options, Common& common) {
  const Checkpoint checkpoint = open_checkpoint(options.model, common.open);
  if (common.json) {
    Json json = to_json(checkpoint);
    if (options.kernels) json["kernels"] = kernels_json(checkpoint, common);
    common.print_json(json);
    return;
  }
  // Timed before anything is shown, as there may be no such kernel.
  const std::string kernels = options.kernels ? kernels_text(checkpoint, common) : "";
  print_summary(checkpoint, common);
  if (options.metadata) print_metadata(checkpoint, common);
  if (options.tensors) {
    print_tensors(checkpoint, common);
  } else {
    print_groups(checkpoint, common);
  }
  common.print(kernels);
}

}  // namespace

void add_inspect_command(CLI::App& app, Common& common) {
  auto options = std::make_shared<InspectOptions>();
  auto* command = add_command(
      app, common, "inspect", "Show what is in a model: configuration, tensors, types, sizes, plan",
      {"pare inspect model.gguf", "pare inspect ~/models/SmolLM2-360M --tensors",
       "pare inspect model.gguf --kernels --threads 4", "pare inspect model.gguf --json | jq .bits_per_weight"});
  add_model_argument(command, options->model, common);
  command->add_flag("--tensors", options->tensors, "List every tensor");
  command->add_flag("--metadata", options->metadata, "List the metadata of the file (GGUF keys or config.json)");
  command->add_flag(
      "--kernels", options->kernels,
      "Show which kernels run its matrices on this machine, which others there are, and how fast those are "
      "that a measurement chose among");
  add_kernel_option(command, common);
  on_run(command, [options, &common] { inspect(*options, common); });
}

}  // namespace pare::cli
