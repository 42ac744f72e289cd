#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "formats/gguf.h"
#include "formats/safetensors.h"
#include "model/bitnet_folder.h"
#include "model/card.h"
#include "model/checkpoint.h"
#include "model/families/family.h"
#include "model/llama_cpp.h"
#include "model/rope.h"
#include "model/side_data.h"
#include "model/ternary.h"

namespace pare {
namespace {

using Sink = FunctionRef<void(std::span<const std::byte>)>;

bool rotated(WeightKind kind) {
  return kind == WeightKind::kQuery || kind == WeightKind::kKey || kind == WeightKind::kQueryBias ||
         kind == WeightKind::kKeyBias;
}

/// Source row of each row when q or k goes from one rope layout to the other: within a head, halves (i, i + dims/2)
/// become pairs (2i, 2i + 1) or the reverse.
std::vector<int64_t> rope_permutation(const AttentionConfig& attention, RopeLayout to, int64_t rows) {
  std::vector<int64_t> from(static_cast<size_t>(rows));
  const int dims = attention.rope.dims, half = dims / 2;
  for (int64_t row = 0; row < rows; ++row) {
    const auto in_head = static_cast<int>(row % attention.head_dim);
    int source = in_head;
    if (in_head < dims && to == RopeLayout::kInterleaved) source = in_head / 2 + in_head % 2 * half;
    if (in_head < dims && to == RopeLayout::kHalves) source = in_head % half * 2 + in_head / half;
    from[static_cast<size_t>(row)] = row - in_head + source;
  }
  return from;
}

/// Gives a weight's bytes to a sink, with rows in the rope order that the format wants.
void produce(const Checkpoint& checkpoint, const WeightTensor& weight, RopeLayout layout, DType type, Sink sink) {
  std::vector<std::byte> storage;
  TensorView view = weight.read(storage);
  std::vector<std::byte> converted;
  if (type != view.type) {  // norms and biases only: small
    std::vector<float> values(static_cast<size_t>(view.shape.count()));
    info(view.type).decode(view.bytes.data(), values.data(), view.shape.count());
    converted.resize(static_cast<size_t>(info(type).bytes(view.shape.count())));
    info(type).encode(values.data(), converted.data(), view.shape.count());
    view = {type, view.shape, converted};
  }
  if (rotated(weight.id.kind)) {
    const AttentionConfig& attention = *checkpoint.config.layers[static_cast<size_t>(weight.id.layer)].attention;
    if (attention.rope.layout != layout) {
      const int64_t rows = view.shape[0], row_bytes = static_cast<int64_t>(view.bytes.size()) / rows;
      for (int64_t row : rope_permutation(attention, layout, rows)) {
        sink(view.bytes.subspan(static_cast<size_t>(row * row_bytes), static_cast<size_t>(row_bytes)));
      }
      return;
    }
  }
  sink(view.bytes);
}

/// Progress in bytes over all tensors, and a place to stop.
class Meter {
 public:
  Meter(const Checkpoint& checkpoint, const WriteOptions& options) : options_(options) {
    progress().start("writing", "B", checkpoint.bytes());
  }
  void add(int64_t bytes) {
    throw_if_cancelled(options_.cancel);
    progress().update(done_ += bytes);
  }
  void finish() { progress().finish(); }

 private:
  Progress& progress() { return options_.progress ? *options_.progress : no_progress(); }
  const WriteOptions& options_;
  int64_t done_ = 0;
};

std::function<void(Sink)> producer(const Checkpoint& checkpoint, const WeightTensor& weight, RopeLayout layout,
                                   DType type, Meter& meter) {
  return [&checkpoint, &weight, layout, type, &meter](Sink sink) {
    produce(checkpoint, weight, layout, type, sink);
    meter.add(weight.bytes());
  };
}

/// A ternary weight's bytes as a folder has them, q and k in the rope order of folders.
void produce_packed(const Checkpoint& checkpoint, const WeightTensor& weight, Sink sink) {
  const int64_t rows = weight.shape[0], columns = weight.shape[1];
  std::vector<std::byte> ordered;
  produce(checkpoint, weight, RopeLayout::kHalves, weight.type,
          [&](std::span<const std::byte> part) { ordered.insert(ordered.end(), part.begin(), part.end()); });
  const auto bytes = pack_bitnet(read_ternary(weight, {weight.type, weight.shape, ordered}).codes, rows, columns);
  sink(bytes);
}

/// The scale that goes with those codes.
void produce_scale(const WeightTensor& weight, Sink sink) {
  std::vector<std::byte> storage;
  const float scale = read_ternary(weight, weight.read(storage)).scale;
  sink(std::as_bytes(std::span(&scale, 1)));
}

/// The type that most matrix values have, of those that a folder has or of all.
DType main_type(const Checkpoint& checkpoint, bool folder = false) {
  std::map<DType, int64_t> counts;
  for (const WeightTensor& weight : checkpoint.weights) {
    if (folder && !info(weight.type).safetensors) continue;
    if (info(weight.id.kind).matrix) counts[weight.type] += weight.shape.count();
  }
  const auto most =
      std::max_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == counts.end() ? DType::kF32 : most->first;
}

/// Without layers that have neither part: a shorter model does the same. `kept` receives the old index of each new one.
ModelConfig without_empty_layers(const ModelConfig& config, std::vector<int>& kept) {
  ModelConfig result = config;
  result.layers.clear();
  for (size_t i = 0; i < config.layers.size(); ++i) {
    if (!config.layers[i].attention && !config.layers[i].mlp) continue;
    kept.push_back(static_cast<int>(i));
    result.layers.push_back(config.layers[i]);
  }
  return result;
}

const char* name_pattern(const Family& family, WeightKind kind, const char* WeightName::*column) {
  const auto row =
      std::find_if(family.names.begin(), family.names.end(), [&](const auto& n) { return n.kind == kind; });
  return (*row).*column;
}

const AttentionConfig* first_attention(const ModelConfig& config) {
  for (const LayerConfig& layer : config.layers) {
    if (layer.attention) return &*layer.attention;
  }
  return nullptr;
}

/// Divisors of rope frequencies that llama.cpp reads from a tensor rather than from metadata.
std::vector<float> rope_divisors(const ModelConfig& config) {
  const AttentionConfig* attention = first_attention(config);
  if (!attention) return {};
  if (attention->rope.scaling.kind == RopeScalingKind::kLlama3) return llama3_divisors(attention->rope);
  return attention->rope.frequency_factors;
}

GgufMetadata gguf_metadata(const Checkpoint& checkpoint, const Family& family, const char* architecture,
                           const ModelConfig& config, const std::vector<int>& kept) {
  GgufMetadata metadata;
  metadata.set("general.architecture", std::string(architecture));
  // Per-layer arrays of keys that pare does not know would no longer fit a shorter model, so only general ones stay.
  if (checkpoint.card) {
    for (const auto& [key, value] : checkpoint.card->entries()) metadata.set(key, value);
  }
  metadata.set("general.name", checkpoint.name);
  metadata.set("general.quantization_version", uint32_t{2});
  const int file_type = info(main_type(checkpoint)).gguf_file_type;
  if (file_type >= 0) metadata.set("general.file_type", static_cast<uint32_t>(file_type));
  family.to_gguf(config, metadata);
  if (family.ternary || quantizes_activations(config)) {
    const auto activations =
        quantizes_activations(config) ? ActivationQuantization::kInt8Row : ActivationQuantization::kNone;
    metadata.set(kActivationsKey, std::string(activations_name(activations)));
  }
  if (checkpoint.tokenizer) write_tokenizer_gguf(*checkpoint.tokenizer, metadata);
  add_side_data(checkpoint, metadata);
  if (!(checkpoint.plan == Plan{})) metadata.set("pare.plan", to_json(checkpoint.plan));
  if (!checkpoint.source.empty()) metadata.set("pare.source", checkpoint.source);
  std::vector<int32_t> original;
  bool identity = true;
  for (size_t i = 0; i < kept.size(); ++i) {
    original.push_back(checkpoint.original_layers[static_cast<size_t>(kept[i])]);
    identity = identity && original.back() == static_cast<int32_t>(i);
  }
  if (!identity) metadata.set("pare.original_layers", std::move(original));
  return metadata;
}

void copy_if_there(const std::filesystem::path& from, const std::filesystem::path& to, const char* name) {
  if (!std::filesystem::exists(from / name)) return;
  OutputFile file(to / name);
  file.write(read_text_file(from / name));
  file.commit();
}

void write_text(const std::filesystem::path& path, std::string_view text) {
  OutputFile file(path);
  file.write(text);
  file.commit();
}

void write_side_files(const Checkpoint& checkpoint, const std::filesystem::path& folder) {
  if (checkpoint.format == "safetensors") {
    for (const char* name : {"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
                             "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja",
                             "generation_config.json", "README.md", "LICENSE", "LICENSE.txt", "LICENSE.md"}) {
      copy_if_there(checkpoint.path, folder, name);
    }
    return;
  }
  if (checkpoint.tokenizer) {
    const TokenizerFiles files = to_tokenizer_files(*checkpoint.tokenizer);
    write_text(folder / "tokenizer.json", files.tokenizer_json);
    write_text(folder / "tokenizer_config.json", merged_tokenizer_config(checkpoint, files.tokenizer_config_json));
  }
  if (checkpoint.generation) write_text(folder / "generation_config.json", checkpoint.generation->dump(2) + "\n");
  if (!checkpoint.card) return;
  GgufMetadata card = *checkpoint.card;
  card.set("general.name", checkpoint.name);
  write_text(folder / "README.md", write_card(card));
}

/// What a folder says of how its linear layers are stored.
void set_packing(const Checkpoint& checkpoint, const Family& family, Json& config) {
  config.erase("quantization_config");
  std::vector<std::string> others{"lm_head"};
  bool any = false;
  for (const WeightTensor& weight : checkpoint.weights) {
    const bool ternary = is_ternary_weight(checkpoint.config, weight);
    any = any || ternary;
    if (ternary || weight.id.layer < 0 || !info(weight.id.kind).matrix) continue;
    const char* pattern = name_pattern(family, weight.id.kind, &WeightName::hugging_face);
    others.push_back(sibling_name(weight_name(pattern, weight.id.layer), ""));
  }
  if (any) write_bitnet_packing(others, config);
}

Json folder_config(const Checkpoint& checkpoint, const Family& family) {
  Json json = checkpoint.source_config ? *checkpoint.source_config : Json::object();
  json["architectures"] = {family.architecture};
  json["model_type"] = family.name;
  family.to_json(checkpoint.config, json);
  set_packing(checkpoint, family, json);
  json.erase("dtype");
  const DType type = main_type(checkpoint, true);
  json["torch_dtype"] = type == DType::kBF16 ? "bfloat16" : type == DType::kF16 ? "float16" : "float32";
  if (checkpoint.tokenizer && checkpoint.format != "safetensors") {
    const TokenizerData& tokenizer = *checkpoint.tokenizer;
    if (!json.contains("bos_token_id")) json["bos_token_id"] = tokenizer.bos ? Json(*tokenizer.bos) : Json(nullptr);
    if (!json.contains("eos_token_id")) json["eos_token_id"] = tokenizer.eos ? Json(*tokenizer.eos) : Json(nullptr);
  }
  if (!(checkpoint.plan == Plan{})) json["pare_plan"] = Json::parse(to_json(checkpoint.plan));
  if (!checkpoint.source.empty()) json["pare_source"] = checkpoint.source;
  const std::vector<int>& original = checkpoint.original_layers;
  json.erase("pare_original_layers");
  if (!original.empty() && original.back() != static_cast<int>(original.size()) - 1) {
    json["pare_original_layers"] = original;  // the plan's layer numbers are theirs
  }
  return json;
}

/// An attention without what config.json says by a layer's number. Throws Error if that is not what it would say.
AttentionConfig without_depth(const Checkpoint& checkpoint, size_t layer) {
  AttentionConfig attention = *checkpoint.config.layers[layer].attention;
  float& init = attention.differential.lambda_init;
  const float usual = default_lambda_init(static_cast<int>(layer));
  if (attention.is_differential() && attention.differential.lambda == LambdaSource::kVectors && init != usual) {
    fail(
        "{}: layer {} has lambda_init {}, but readers of config.json take {} by the layer's number; write a .gguf file "
        "instead",
        checkpoint.path.string(), layer, init, usual);
  }
  init = 0;
  return attention;
}

/// config.json says sizes once for all layers.
void check_uniform(const Checkpoint& checkpoint) {
  std::optional<AttentionConfig> attention;
  const MlpConfig* mlp = nullptr;
  for (size_t i = 0; i < checkpoint.config.layers.size(); ++i) {
    const LayerConfig& layer = checkpoint.config.layers[i];
    const auto own = layer.attention ? std::optional(without_depth(checkpoint, i)) : std::nullopt;
    const bool differs = (own && attention && !(*own == *attention)) || (layer.mlp && mlp && !(*layer.mlp == *mlp));
    if (differs) fail("{}: layers differ in size, which config.json cannot say", checkpoint.path.string());
    if (own) attention = own;
    if (layer.mlp) mlp = &*layer.mlp;
  }
  if (attention && !attention->rope.frequency_factors.empty()) {
    fail("{}: rope_freqs holds frequency divisors, which config.json cannot say; write a .gguf file instead",
         checkpoint.path.string());
  }
  if (attention && attention->qkv_bias != attention->output_bias) {
    fail("{}: biases on q, k, v and output differ, which config.json cannot say", checkpoint.path.string());
  }
}

}  // namespace

namespace {

/// A GGUF file ready to be written. Refers to the checkpoint and the meter.
struct GgufContent {
  std::vector<float> divisors;  // of rope, which a producer reads
  GgufMetadata metadata;
  std::vector<GgufTensorToWrite> tensors;

  GgufContent(const Checkpoint& checkpoint, const char* architecture, Meter& meter) {
    const Family& family = family_by_name(checkpoint.config.family);
    std::vector<int> kept;
    const ModelConfig config = without_empty_layers(checkpoint.config, kept);
    metadata = gguf_metadata(checkpoint, family, architecture, config, kept);
    divisors = rope_divisors(config);
    if (!divisors.empty()) {
      tensors.push_back({"rope_freqs.weight", DType::kF32, Shape{static_cast<int64_t>(divisors.size())},
                         [this](Sink sink) { sink(std::as_bytes(std::span(divisors))); }});
    }
    for (const WeightId& wanted : expected_weights(config)) {
      const WeightId id{wanted.kind, wanted.layer < 0 ? -1 : kept[static_cast<size_t>(wanted.layer)]};
      const WeightTensor& weight = *checkpoint.find(id);
      // ggml multiplies by norms and adds biases in float32 only.
      const DType type = info(id.kind).matrix ? weight.type : DType::kF32;
      const std::string name = weight_name(name_pattern(family, id.kind, &WeightName::gguf), wanted.layer);
      tensors.push_back({name, type, weight.shape, producer(checkpoint, weight, family.gguf_rope, type, meter)});
      if (weight.scale == 1 && !is_ternary_weight(checkpoint.config, weight)) continue;
      tensors.push_back({sibling_name(name, ".scale"), DType::kF32, Shape{1},
                         [&weight](Sink sink) { sink(std::as_bytes(std::span(&weight.scale, 1))); }});
    }
  }
  GgufContent(const GgufContent&) = delete;
  GgufContent& operator=(const GgufContent&) = delete;
};

/// The checkpoint and the architecture under which the reader runs it as it is meant.
struct ForReader {
  Checkpoint checkpoint;
  const char* architecture;

  ForReader(const Checkpoint& base, GgufReader reader)
      : checkpoint(base), architecture(family_by_name(base.config.family).gguf) {
    if (reader == GgufReader::kPare) return;
    Checkpoint complete = with_stand_ins(base);  // refuses what llama.cpp cannot run, dropped or not
    if (!layers_differ(base.config)) return;
    checkpoint = std::move(complete);
    architecture = family_by_name(base.config.family).gguf_deci;
  }
};

}  // namespace

bool layers_differ(const ModelConfig& config) {
  std::vector<int> kept;
  const std::vector<LayerConfig> layers = without_empty_layers(config, kept).layers;
  return std::any_of(layers.begin(), layers.end(), [&](const LayerConfig& layer) {
    return !layer.attention || !layer.mlp || !(layer == layers.front());
  });
}

void write_checkpoint_gguf(const Checkpoint& checkpoint, const std::filesystem::path& path,
                           const WriteOptions& options) {
  const ForReader prepared(checkpoint, options.reader);
  Meter meter(prepared.checkpoint, options);
  const GgufContent content(prepared.checkpoint, prepared.architecture, meter);
  OutputFile out(path);
  write_gguf(out, content.metadata, content.tensors);
  out.commit();
  meter.finish();
}

int64_t gguf_file_bytes(const Checkpoint& checkpoint, GgufReader reader) {
  const WriteOptions silent;
  const ForReader prepared(checkpoint, reader);
  Meter meter(prepared.checkpoint, silent);
  const GgufContent content(prepared.checkpoint, prepared.architecture, meter);
  return static_cast<int64_t>(gguf_bytes(content.metadata, content.tensors));
}

namespace {

/// The two tensors of a ternary weight.
void add_packed(const Checkpoint& checkpoint, const WeightTensor& weight, const std::string& name, Meter& meter,
                std::vector<SafetensorsTensorToWrite>& tensors) {
  const LayerConfig& layer = checkpoint.config.layers[static_cast<size_t>(weight.id.layer)];
  if ((layer.attention && layer.attention->qkv_bias) || (layer.attention && layer.attention->output_bias) ||
      (layer.mlp && layer.mlp->bias)) {
    fail(
        "{}: {}: biases beside ternary weights, which transformers would multiply by their scales; write a .gguf file "
        "instead",
        checkpoint.path.string(), weight.id.to_string());
  }
  const int64_t rows = weight.shape[0];
  if (rows % 4 != 0) {
    fail(
        "{}: {} has {} rows, expected a multiple of 4: a Hugging Face folder packs four into a byte; write a .gguf "
        "file instead",
        checkpoint.path.string(), weight.id.to_string(), rows);
  }
  tensors.push_back({name, DType::kF32, Shape{rows / 4, weight.shape[1]},
                     [&checkpoint, &weight, &meter](Sink sink) {
                       produce_packed(checkpoint, weight, sink);
                       meter.add(weight.bytes());
                     },
                     true});
  tensors.push_back({sibling_name(name, ".weight_scale"), DType::kF32, Shape{1},
                     [&weight](Sink sink) { produce_scale(weight, sink); }});
}

}  // namespace

void write_checkpoint_folder(const Checkpoint& checkpoint, const std::filesystem::path& path,
                             const WriteOptions& options) {
  const Family& family = family_by_name(checkpoint.config.family);
  check_uniform(checkpoint);
  Meter meter(checkpoint, options);
  std::vector<SafetensorsTensorToWrite> tensors;
  for (const WeightId& id : expected_weights(checkpoint.config)) {
    const WeightTensor& weight = *checkpoint.find(id);
    const std::string name = weight_name(name_pattern(family, id.kind, &WeightName::hugging_face), id.layer);
    if (is_ternary_weight(checkpoint.config, weight)) {
      add_packed(checkpoint, weight, name, meter, tensors);
      continue;
    }
    if (!info(weight.type).safetensors) {
      fail("{}: {} is stored as {}, which a Hugging Face folder cannot hold; write a .gguf file, or choose f16 weights",
           path.string(), id.to_string(), info(weight.type).name);
    }
    const bool widened = !info(id.kind).matrix && weight.type == DType::kF32 && checkpoint.vector_type;
    const DType type = widened ? *checkpoint.vector_type : weight.type;
    tensors.push_back({name, type, weight.shape, producer(checkpoint, weight, RopeLayout::kHalves, type, meter)});
  }
  OutputFolder folder(path);
  write_safetensors_folder(folder.partial(), {{"format", "pt"}}, tensors);
  write_text(folder.partial() / "config.json", folder_config(checkpoint, family).dump(2) + "\n");
  write_side_files(checkpoint, folder.partial());
  folder.commit();
  meter.finish();
}

void write_checkpoint(const Checkpoint& checkpoint, const std::filesystem::path& path, const WriteOptions& options) {
  if (path.extension() == ".gguf") {
    write_checkpoint_gguf(checkpoint, path, options);
  } else {
    if (options.reader == GgufReader::kLlamaCpp) fail("{}: llama.cpp reads .gguf files, not folders", path.string());
    write_checkpoint_folder(checkpoint, path, options);
  }
}

}  // namespace pare
