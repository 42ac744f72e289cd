#include <algorithm>
#include <functional>
#include <set>

#include "base/error.h"
#include "base/json.h"
#include "formats/gguf.h"
#include "formats/safetensors.h"
#include "model/card.h"
#include "model/checkpoint.h"
#include "model/families/family.h"
#include "model/llama_cpp.h"
#include "model/side_data.h"

namespace pare {
namespace {

constexpr size_t kMaxConfigBytes = size_t{16} << 20;

/// Whether a tensor of the file may be left aside: it carries nothing that the engine does not compute itself, or
/// belongs to a part that the config says is dropped.
bool ignorable(const ModelConfig& config, const std::string& name, const std::optional<WeightId>& id) {
  if (name.ends_with(".rotary_emb.inv_freq")) return true;  // old checkpoints stored what theta gives
  if (!id) return false;
  if (id->kind == WeightKind::kOutput) return config.tied_embedding;
  if (id->layer < 0 || id->layer >= static_cast<int>(config.layers.size())) return false;
  const LayerConfig& layer = config.layers[static_cast<size_t>(id->layer)];
  const bool of_mlp = id->kind >= WeightKind::kMlpNorm;
  return of_mlp ? !layer.mlp.has_value() : !layer.attention.has_value();
}

void add_weight(Checkpoint& checkpoint, const Family& family, const char* WeightName::*column, const std::string& name,
                const TensorView& view, const std::shared_ptr<const void>& owner) {
  const std::string where = checkpoint.path.string();
  const auto id = find_weight(family, name, column);
  const auto shape = id ? expected_shape(checkpoint.config, *id) : std::nullopt;
  if (!shape) {
    if (ignorable(checkpoint.config, name, id)) return;
    fail("{}: unexpected tensor {} for a {} of {} layers", where, name, family.name, checkpoint.config.layers.size());
  }
  if (!(view.shape == *shape)) {
    fail("{}: tensor {} is {}, expected {} by the configuration", where, name, view.shape.to_string(),
         shape->to_string());
  }
  WeightTensor weight;
  weight.id = *id;
  weight.name = name;
  weight.type = view.type;
  weight.shape = view.shape;
  weight.mapped = view.bytes;
  weight.owner = owner;
  weight.key = where + "#" + name;
  checkpoint.weights.push_back(std::move(weight));
}

void check_complete(Checkpoint& checkpoint, const Family& family, const char* WeightName::*column) {
  std::sort(checkpoint.weights.begin(), checkpoint.weights.end(),
            [](const auto& a, const auto& b) { return a.id < b.id; });
  for (const WeightId& id : expected_weights(checkpoint.config)) {
    if (checkpoint.find(id)) continue;
    const auto row =
        std::find_if(family.names.begin(), family.names.end(), [&](const auto& n) { return n.kind == id.kind; });
    fail("{}: tensor {} is missing", checkpoint.path.string(), weight_name((*row).*column, id.layer));
  }
  if (checkpoint.tokenizer && checkpoint.tokenizer->size() > checkpoint.config.vocabulary) {
    fail("{}: the tokenizer has {} tokens, the model's vocabulary {}", checkpoint.path.string(),
         checkpoint.tokenizer->size(), checkpoint.config.vocabulary);
  }
}

/// A file that lists dropped layers without saying how it came to them still tells that plan.
Plan plan_of_config(const ModelConfig& config) {
  Plan plan;
  for (size_t i = 0; i < config.layers.size(); ++i) {
    if (!config.layers[i].attention) plan.drop_attention.push_back(static_cast<int>(i));
    if (!config.layers[i].mlp) plan.drop_mlp.push_back(static_cast<int>(i));
  }
  return plan;
}

std::vector<int> identity(size_t layers) {
  std::vector<int> indices(layers);
  for (size_t i = 0; i < layers; ++i) indices[i] = static_cast<int>(i);
  return indices;
}

std::vector<int> checked_layers(const std::vector<int64_t>& layers, const ModelConfig& config,
                                const std::string& where) {
  const bool ascending = std::adjacent_find(layers.begin(), layers.end(), std::greater_equal<>()) == layers.end();
  const bool fits = layers.size() == config.layers.size() && ascending &&
                    (layers.empty() || (layers.front() >= 0 && layers.back() < 100000));
  if (!fits) fail("{} is not an ascending list of {} layers", where, config.layers.size());
  return {layers.begin(), layers.end()};
}

/// What the tensors tell that GGUF metadata does not: vocabulary, tying, biases, frequency factors.
void complete_from_tensors(ModelConfig& config, const GgufFile& file) {
  config.tied_embedding = true;
  const std::string& where = file.metadata.file();
  std::set<std::string_view> names;
  for (const GgufTensor& tensor : file.tensors) {
    names.insert(tensor.name);
    if (tensor.name == "output.weight") config.tied_embedding = false;
    if (tensor.name == "token_embd.weight") {
      if (tensor.view.shape.rank() != 2)
        fail("{}: token_embd.weight is {}, expected a matrix", where, tensor.view.shape.to_string());
      if (config.vocabulary == 0) config.vocabulary = tensor.view.shape[0];
    }
    if (tensor.name == "rope_freqs.weight") {
      if (tensor.view.type != DType::kF32 || tensor.view.shape.rank() != 1 || tensor.view.shape[0] > 4096) {
        fail("{}: rope_freqs.weight is {} {}, expected a short f32 vector", where, info(tensor.view.type).name,
             tensor.view.shape.to_string());
      }
      std::vector<float> factors(static_cast<size_t>(tensor.view.shape[0]));
      info(DType::kF32).decode(tensor.view.bytes.data(), factors.data(), tensor.view.shape[0]);
      for (LayerConfig& layer : config.layers) {
        // pare's own scaling key already says what these factors were made from.
        if (layer.attention && layer.attention->rope.scaling.kind == RopeScalingKind::kNone) {
          layer.attention->rope.frequency_factors = factors;
        }
      }
    }
  }
  for (size_t i = 0; i < config.layers.size(); ++i) {
    const std::string block = "blk." + std::to_string(i) + ".";
    if (auto& attention = config.layers[i].attention) {
      attention->qkv_bias = names.contains(block + "attn_q.bias");
      attention->output_bias = names.contains(block + "attn_output.bias");
    }
    if (auto& mlp = config.layers[i].mlp) mlp->bias = names.contains(block + "ffn_gate.bias");
  }
}

/// pare.plan, pare.source and pare.original_layers: how the model came about.
void read_origin(Checkpoint& checkpoint, const GgufMetadata& metadata) {
  const std::string where = metadata.file();
  if (const std::string* plan = metadata.find_string("pare.plan")) {
    checkpoint.plan = parse_plan(*plan, where + ": pare.plan");
  }
  if (const std::string* source = metadata.find_string("pare.source")) checkpoint.source = *source;
  checkpoint.original_layers = identity(checkpoint.config.layers.size());
  if (const auto layers = metadata.find_ints("pare.original_layers")) {
    checkpoint.original_layers = checked_layers(*layers, checkpoint.config, where + ": pare.original_layers");
  }
}

Checkpoint open_gguf(const std::filesystem::path& path) {
  GgufFile file = GgufFile::open(path);
  const Family& family = family_of_gguf(file.metadata);
  Checkpoint checkpoint;
  checkpoint.path = path;
  checkpoint.format = "gguf";
  const std::string* name = file.metadata.find_string("general.name");
  checkpoint.name = name && !name->empty() ? *name : path.stem().string();
  checkpoint.config = family.from_gguf(file.metadata);
  complete_from_tensors(checkpoint.config, file);
  check_config(checkpoint.config, path.string());
  read_origin(checkpoint, file.metadata);
  if (family.gguf_deci && file.metadata.get_string("general.architecture") == family.gguf_deci) {
    remove_stand_ins(checkpoint.config, checkpoint.plan, checkpoint.original_layers, path.string());
  }
  if (!file.metadata.find("pare.plan")) checkpoint.plan = plan_of_config(checkpoint.config);
  if (file.metadata.find("tokenizer.ggml.model")) {
    const std::string* kind = file.metadata.find_string("tokenizer.ggml.model");
    if (*kind != "none" && *kind != "no_vocab") {
      checkpoint.tokenizer = std::make_shared<TokenizerData>(read_tokenizer_gguf(file.metadata));
    }
  }
  for (const GgufTensor& tensor : file.tensors) {
    if (tensor.name == "rope_freqs.weight") continue;
    add_weight(checkpoint, family, &WeightName::gguf, tensor.name, tensor.view, file.mapping);
  }
  check_complete(checkpoint, family, &WeightName::gguf);
  read_side_data(checkpoint, file.metadata);
  checkpoint.card = std::make_shared<const GgufMetadata>(card_of(file.metadata));
  checkpoint.source_metadata = std::make_shared<GgufMetadata>(std::move(file.metadata));
  return checkpoint;
}

Json read_json(const std::filesystem::path& path) {
  Json json = parse_json(read_text_file(path, kMaxConfigBytes), path.string());
  if (!json.is_object()) fail("{}: expected an object", path.string());
  return json;
}

Checkpoint open_folder(const std::filesystem::path& path) {
  const auto config_path = path / "config.json";
  if (!std::filesystem::exists(config_path))
    fail("{}: no config.json; expected a Hugging Face model folder", path.string());
  Checkpoint checkpoint;
  checkpoint.path = path;
  checkpoint.format = "safetensors";
  auto base = path.filename().empty() ? path.parent_path().filename() : path.filename();
  checkpoint.card = std::make_shared<const GgufMetadata>(read_card(path));
  const std::string* name = checkpoint.card->find_string("general.name");
  checkpoint.name = name ? *name : base.string();
  const Json json = read_json(config_path);
  checkpoint.source_config = std::make_shared<const Json>(json);
  const Family& family = family_of_json(json, config_path.string());
  checkpoint.config = family.from_json(json, config_path.string());
  check_config(checkpoint.config, config_path.string());
  if (const auto quantized = json.find("quantization_config"); quantized != json.end() && !quantized->is_null()) {
    fail("{}: quantization_config is set: weights quantized by others are not supported in this format",
         config_path.string());
  }
  SafetensorsFile file = SafetensorsFile::open_folder(path);
  const auto owner = std::make_shared<std::vector<std::shared_ptr<const MappedFile>>>(file.mappings);
  for (const SafetensorsTensor& tensor : file.tensors) {
    if (!tensor.foreign_type.empty()) {
      if (ignorable(checkpoint.config, tensor.name, find_weight(family, tensor.name, &WeightName::hugging_face)))
        continue;
      fail("{}: tensor {} has type {}, expected F32, F16 or BF16", path.string(), tensor.name, tensor.foreign_type);
    }
    add_weight(checkpoint, family, &WeightName::hugging_face, tensor.name, tensor.view, owner);
  }
  if (std::filesystem::exists(path / "tokenizer.json") || std::filesystem::exists(path / "tokenizer.model")) {
    checkpoint.tokenizer = std::make_shared<TokenizerData>(read_tokenizer_folder(path));
  }
  check_complete(checkpoint, family, &WeightName::hugging_face);
  if (std::filesystem::exists(path / "generation_config.json")) {
    checkpoint.generation = std::make_shared<const Json>(read_json(path / "generation_config.json"));
  }
  checkpoint.original_layers = identity(checkpoint.config.layers.size());
  checkpoint.plan = plan_of_config(checkpoint.config);
  if (const auto plan = json.find("pare_plan"); plan != json.end()) {
    checkpoint.plan = parse_plan(plan->dump(), config_path.string() + ": pare_plan");
  }
  if (const auto layers = json.find("pare_original_layers"); layers != json.end()) {
    const bool integers = layers->is_array() && std::all_of(layers->begin(), layers->end(),
                                                            [](const Json& x) { return x.is_number_integer(); });
    const std::string where = config_path.string() + ": pare_original_layers";
    if (!integers) fail("{} is not a list of integers", where);
    checkpoint.original_layers = checked_layers(layers->get<std::vector<int64_t>>(), checkpoint.config, where);
  }
  if (const auto source = json.find("pare_source"); source != json.end() && source->is_string()) {
    checkpoint.source = source->get<std::string>();
  }
  return checkpoint;
}

}  // namespace

const WeightTensor* Checkpoint::find(WeightId id) const {
  // Sorted by id.
  const auto found =
      std::lower_bound(weights.begin(), weights.end(), id, [](const auto& w, WeightId key) { return w.id < key; });
  return found != weights.end() && found->id == id ? &*found : nullptr;
}

int64_t Checkpoint::parameters() const {
  int64_t count = 0;
  for (const WeightTensor& weight : weights) count += weight.shape.count();
  return count;
}

int64_t Checkpoint::bytes() const {
  int64_t count = 0;
  for (const WeightTensor& weight : weights) count += weight.bytes();
  return count;
}

Checkpoint open_checkpoint(const std::filesystem::path& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) fail("{}: no such file or folder", path.string());
  return std::filesystem::is_directory(status) ? open_folder(path) : open_gguf(path);
}

}  // namespace pare
