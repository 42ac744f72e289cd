#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <set>

#include "base/error.h"
#include "base/json.h"
#include "formats/gguf.h"
#include "formats/safetensors.h"
#include "model/bitnet_folder.h"
#include "model/card.h"
#include "model/checkpoint.h"
#include "model/families/family.h"
#include "model/llama_cpp.h"
#include "model/side_data.h"
#include "model/ternary.h"

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

/// The weight that a tensor is, without its bytes; nothing if the tensor may be left aside. The shape is the expected
/// one.
std::optional<WeightTensor> find_tensor(const Checkpoint& checkpoint, const Family& family,
                                        const char* WeightName::*column, const std::string& name,
                                        const std::shared_ptr<const void>& owner) {
  const std::string where = checkpoint.path.string();
  const auto id = find_weight(family, name, column);
  const auto shape = id ? expected_shape(checkpoint.config, *id) : std::nullopt;
  if (!shape) {
    if (ignorable(checkpoint.config, name, id)) return std::nullopt;
    fail("{}: unexpected tensor {} for a {} of {} layers", where, name, family.name, checkpoint.config.layers.size());
  }
  WeightTensor weight;
  weight.id = *id;
  weight.name = name;
  weight.shape = *shape;
  weight.owner = owner;
  weight.key = where + "#" + name;
  return weight;
}

void check_shape(const Checkpoint& checkpoint, const WeightTensor& weight, const Shape& found) {
  if (found == weight.shape) return;
  fail("{}: tensor {} is {}, expected {} by the configuration", checkpoint.path.string(), weight.name,
       found.to_string(), weight.shape.to_string());
}

/// A weight whose bytes are used as they are.
void add_mapped(Checkpoint& checkpoint, WeightTensor weight, const TensorView& view) {
  check_shape(checkpoint, weight, view.shape);
  weight.type = view.type;
  weight.mapped = view.bytes;
  checkpoint.weights.push_back(std::move(weight));
}

/// Errors about a tensor of the file, which name the tensor only.
template <class Make>
auto in_file(const Checkpoint& checkpoint, Make make) {
  try {
    return make();
  } catch (const Error& error) {
    throw Error(checkpoint.path.string() + ": " + error.what());
  }
}

bool is_layer_matrix(const WeightId& id) { return id.layer >= 0 && info(id.kind).matrix; }

void check_complete(Checkpoint& checkpoint, const Family& family, const char* WeightName::*column) {
  std::sort(checkpoint.weights.begin(), checkpoint.weights.end(),
            [](const auto& a, const auto& b) { return a.id < b.id; });
  const auto twice = std::adjacent_find(checkpoint.weights.begin(), checkpoint.weights.end(),
                                        [](const auto& a, const auto& b) { return a.id == b.id; });
  if (twice != checkpoint.weights.end()) {
    fail("{}: tensors {} and {} are the same weight", checkpoint.path.string(), twice->name, std::next(twice)->name);
  }
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

constexpr std::string_view kScaleSuffix = ".scale";

/// GGUF's scales of whole tensors, by name ("blk.0.attn_q.scale", as llama.cpp reads them).
std::map<std::string, float> read_scales(const GgufFile& file) {
  std::map<std::string, float> scales;
  for (const GgufTensor& tensor : file.tensors) {
    if (!tensor.name.ends_with(kScaleSuffix)) continue;
    const std::string& where = file.metadata.file();
    if (tensor.i2_s || tensor.view.type != DType::kF32 || tensor.view.shape.count() != 1) {
      fail("{}: tensor {} is {} {}, expected one f32", where, tensor.name,
           tensor.i2_s ? "i2_s" : info(tensor.view.type).name, tensor.view.shape.to_string());
    }
    float& scale = scales[tensor.name];
    info(DType::kF32).decode(tensor.view.bytes.data(), &scale, 1);
    if (!(scale > 0) || !std::isfinite(scale)) {
      fail("{}: tensor {} is {}, expected a positive number", where, tensor.name, scale);
    }
  }
  return scales;
}

/// Whether linear layers quantize their inputs: what pare.activations says, else what the weights tell.
ActivationQuantization activations_of(const GgufFile& file, const Family& family) {
  const std::string& where = file.metadata.file();
  if (const std::string* own = file.metadata.find_string(kActivationsKey)) {
    if (const auto found = find_activations(*own)) return *found;
    fail("{}: {} is \"{}\", expected none or int8", where, kActivationsKey, *own);
  }
  const bool bitnet = family.ternary || std::any_of(file.tensors.begin(), file.tensors.end(), [](const auto& tensor) {
                        return tensor.i2_s || tensor.name.ends_with(kScaleSuffix);
                      });
  return bitnet ? ActivationQuantization::kInt8Row : ActivationQuantization::kNone;
}

void add_gguf_weights(Checkpoint& checkpoint, const Family& family, const GgufFile& file, const OpenOptions& options) {
  std::map<std::string, float> scales = read_scales(file);
  for (const GgufTensor& tensor : file.tensors) {
    if (tensor.name == "rope_freqs.weight" || tensor.name.ends_with(kScaleSuffix)) continue;
    auto weight = find_tensor(checkpoint, family, &WeightName::gguf, tensor.name, file.mapping);
    const auto scale = scales.extract(sibling_name(tensor.name, kScaleSuffix));
    if (!weight) continue;
    if (!scale.empty() && (!is_layer_matrix(weight->id) || tensor.i2_s)) {
      fail("{}: tensor {} has a scale of its own beside it, which is for matrices of layers that have none inside",
           checkpoint.path.string(), tensor.name);
    }
    if (!scale.empty()) weight->scale = scale.mapped();
    if (!tensor.i2_s) {
      add_mapped(checkpoint, std::move(*weight), tensor.view);
      continue;
    }
    check_shape(checkpoint, *weight, tensor.view.shape);
    if (!is_layer_matrix(weight->id)) {
      fail("{}: tensor {} is i2_s, expected a matrix of a layer in this type", checkpoint.path.string(), tensor.name);
    }
    if (!options.i2s) {
      fail(
          "{}: tensor {} is I2_S, which has two layouts, and the file does not say which: --i2s x86 for a file made on "
          "an x86 machine (as most downloads are), --i2s arm for one made on ARM; the wrong one gives garbage",
          checkpoint.path.string(), tensor.name);
    }
    checkpoint.weights.push_back(
        in_file(checkpoint, [&] { return i2s_weight(std::move(*weight), tensor.view.bytes, *options.i2s); }));
  }
  for (const auto& [name, scale] : scales) {
    fail("{}: unexpected tensor {}: there is no weight it could scale", checkpoint.path.string(), name);
  }
}

Checkpoint open_gguf(const std::filesystem::path& path, const OpenOptions& options) {
  GgufFile file = GgufFile::open(path);
  const Family& family = family_of_gguf(file.metadata);
  Checkpoint checkpoint;
  checkpoint.path = path;
  checkpoint.format = "gguf";
  const std::string* name = file.metadata.find_string("general.name");
  checkpoint.name = name && !name->empty() ? *name : path.stem().string();
  checkpoint.config = family.from_gguf(file.metadata);
  complete_from_tensors(checkpoint.config, file);
  set_activations(checkpoint.config, activations_of(file, family));
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
  add_gguf_weights(checkpoint, family, file, options);
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

void add_folder_weights(Checkpoint& checkpoint, const Family& family, const SafetensorsFile& file,
                        const std::optional<BitnetPacking>& packing) {
  constexpr std::string_view kFolderScale = ".weight_scale";
  const auto owner = std::make_shared<std::vector<std::shared_ptr<const MappedFile>>>(file.mappings);
  std::map<std::string_view, const SafetensorsTensor*> scales;
  for (const SafetensorsTensor& tensor : file.tensors) {
    if (packing && tensor.name.ends_with(kFolderScale)) scales[tensor.name] = &tensor;
  }
  for (const SafetensorsTensor& tensor : file.tensors) {
    if (scales.contains(tensor.name)) continue;
    auto weight = find_tensor(checkpoint, family, &WeightName::hugging_face, tensor.name, owner);
    if (!weight) continue;
    const auto scale = scales.find(sibling_name(tensor.name, kFolderScale));
    if (packing && is_layer_matrix(weight->id) && packing->converts(sibling_name(tensor.name, ""))) {
      checkpoint.weights.push_back(in_file(checkpoint, [&] {
        return bitnet_weight(*packing, std::move(*weight), tensor, scale == scales.end() ? nullptr : scale->second);
      }));
      continue;
    }
    constexpr std::string_view kBias = ".bias";
    if (packing && packing->scales_biases() && tensor.name.ends_with(kBias) &&
        packing->converts(std::string_view(tensor.name).substr(0, tensor.name.size() - kBias.size()))) {
      fail("{}: tensor {}: offline autobitlinear multiplies biases by weight_scale, which is not supported",
           checkpoint.path.string(), tensor.name);
    }
    if (!tensor.foreign_type.empty()) {
      fail("{}: tensor {} has type {}, expected F32, F16 or BF16", checkpoint.path.string(), tensor.name,
           tensor.foreign_type);
    }
    add_mapped(checkpoint, std::move(*weight), tensor.view);
  }
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
  const auto packing = read_bitnet_packing(json, config_path.string());
  if (packing) set_activations(checkpoint.config, ActivationQuantization::kInt8Row);
  add_folder_weights(checkpoint, family, SafetensorsFile::open_folder(path), packing);
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

Checkpoint open_checkpoint(const std::filesystem::path& path, const OpenOptions& options) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) fail("{}: no such file or folder", path.string());
  return std::filesystem::is_directory(status) ? open_folder(path) : open_gguf(path, options);
}

}  // namespace pare
