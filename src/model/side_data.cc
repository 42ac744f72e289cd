#include "model/side_data.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "formats/gguf.h"

namespace pare {
namespace {

constexpr const char* kConfig = "pare.config";
constexpr const char* kGeneration = "pare.generation_config";
constexpr const char* kTokenizerConfig = "pare.tokenizer_config";
constexpr const char* kVectorType = "pare.vector_type";
constexpr size_t kMaxConfigBytes = size_t{16} << 20;

// Members of tokenizer_config.json that neither the tokenizer nor its class decides.
constexpr std::array<const char*, 6> kTokenizerMembers{"model_max_length",          "padding_side",
                                                       "truncation_side",           "model_input_names",
                                                       "additional_special_tokens", "extra_special_tokens"};

struct Sampling {
  const char* json;
  const char* gguf;
  bool integer;
};
constexpr std::array<Sampling, 4> kSampling{{{"temperature", "general.sampling.temp", false},
                                             {"top_k", "general.sampling.top_k", true},
                                             {"top_p", "general.sampling.top_p", false},
                                             {"min_p", "general.sampling.min_p", false}}};

std::string text_of(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

std::shared_ptr<const Json> read_object(const GgufMetadata& metadata, const char* key) {
  const std::string* text = metadata.find_string(key);
  if (!text) return nullptr;
  Json json = parse_json(*text, metadata.file() + ": " + key);
  if (!json.is_object()) fail("{}: {} is not a JSON object", metadata.file(), key);
  return std::make_shared<const Json>(std::move(json));
}

Json tokenizer_members(const std::filesystem::path& folder) {
  const auto path = folder / "tokenizer_config.json";
  Json kept = Json::object();
  if (!std::filesystem::exists(path)) return kept;
  const Json config = parse_json(read_text_file(path, kMaxConfigBytes), path.string());
  for (const char* member : kTokenizerMembers) {
    if (const auto found = config.find(member); found != config.end()) kept[member] = *found;
  }
  return kept;
}

/// The type of all norms and biases, where it is not the one that GGUF gives them.
std::optional<DType> vector_type(const Checkpoint& checkpoint) {
  if (checkpoint.vector_type) return checkpoint.vector_type;
  std::optional<DType> type;
  for (const WeightTensor& weight : checkpoint.weights) {
    if (info(weight.id.kind).matrix) continue;
    if (type && *type != weight.type) return std::nullopt;
    type = weight.type;
  }
  return type == DType::kF32 ? std::nullopt : type;
}

}  // namespace

void add_side_data(const Checkpoint& checkpoint, GgufMetadata& metadata) {
  if (checkpoint.source_config) {
    Json config = *checkpoint.source_config;
    for (const char* own : {"pare_plan", "pare_source", "pare_original_layers"}) config.erase(own);
    metadata.set(kConfig, text_of(config));
  }
  if (checkpoint.generation) {
    metadata.set(kGeneration, text_of(*checkpoint.generation));
    for (const Sampling& row : kSampling) {
      const auto value = checkpoint.generation->find(row.json);
      if (value == checkpoint.generation->end() || !value->is_number()) continue;
      if (row.integer) {
        metadata.set(row.gguf, static_cast<int32_t>(std::clamp(value->get<double>(), 0.0, 1e9)));
      } else {
        metadata.set(row.gguf, value->get<float>());
      }
    }
  }
  if (checkpoint.format == "safetensors") {
    const Json members = tokenizer_members(checkpoint.path);
    if (!members.empty()) metadata.set(kTokenizerConfig, text_of(members));
  } else if (checkpoint.source_metadata) {
    if (const std::string* members = checkpoint.source_metadata->find_string(kTokenizerConfig)) {
      metadata.set(kTokenizerConfig, *members);
    }
  }
  if (const auto type = vector_type(checkpoint)) metadata.set(kVectorType, std::string(info(*type).name));
}

void read_side_data(Checkpoint& checkpoint, const GgufMetadata& metadata) {
  checkpoint.source_config = read_object(metadata, kConfig);
  checkpoint.generation = read_object(metadata, kGeneration);
  if (!checkpoint.generation) {
    Json generation = Json::object();
    for (const Sampling& row : kSampling) {
      const auto value = metadata.find_number(row.gguf);
      if (!value || !std::isfinite(*value)) continue;
      if (row.integer) {
        generation[row.json] = static_cast<int64_t>(std::clamp(*value, 0.0, 1e9));
      } else {
        // Not the digits that a float has beyond its own.
        generation[row.json] = std::stod(fmt::format("{}", static_cast<float>(*value)));
      }
      generation["do_sample"] = true;
    }
    if (!generation.empty()) checkpoint.generation = std::make_shared<const Json>(std::move(generation));
  }
  if (const std::string* name = metadata.find_string(kVectorType)) {
    const DTypeInfo* type = find_dtype(*name);
    if (!type || !type->safetensors)
      fail("{}: {} is \"{}\", expected a float type", metadata.file(), kVectorType, *name);
    checkpoint.vector_type = type->type;
  }
}

std::string merged_tokenizer_config(const Checkpoint& checkpoint, const std::string& from_tokenizer) {
  if (!checkpoint.source_metadata) return from_tokenizer;
  const auto old = read_object(*checkpoint.source_metadata, kTokenizerConfig);
  if (!old) return from_tokenizer;
  Json config = parse_json(from_tokenizer, "tokenizer_config.json");
  for (const auto& [key, value] : old->items()) {
    if (!config.contains(key)) config[key] = value;
  }
  return config.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace pare
