#pragma once
#include <span>
#include <string>
#include <string_view>

#include "base/json_fwd.h"
#include "formats/gguf.h"
#include "model/config.h"
#include "model/weights.h"

namespace pare {

/// What a weight is called; "{}" stands for the layer number.
struct WeightName {
  WeightKind kind;
  const char* hugging_face;
  const char* gguf;
};

/// A model family: only a mapping of names and configuration keys, both ways.
struct Family {
  const char* name;          // config.json's model_type
  const char* architecture;  // config.json's architectures[0]
  const char* gguf;          // general.architecture
  const char* gguf_deci;     // the architecture in which stock llama.cpp reads such a model when its layers differ, or
                             // null if there is none
  RopeLayout gguf_rope;      // the order of q and k rows that GGUF expects
  std::span<const WeightName> names;
  /// Throw Error naming `where` and the key.
  ModelConfig (*from_json)(const Json& config, const std::string& where);
  /// Sets the family's keys in a config.json (which may hold others already).
  void (*to_json)(const ModelConfig& config, Json& json);
  /// Keys of the architecture that general.architecture says, here and there.
  ModelConfig (*from_gguf)(const GgufMetadata& metadata);
  void (*to_gguf)(const ModelConfig& config, GgufMetadata& metadata);
  /// Whether linear layers quantize their inputs in a GGUF file that does not say it (BitNet).
  bool ternary = false;
};

std::span<const Family* const> all_families();
/// Throw Error for an unknown name, listing the known ones.
const Family& family_by_name(std::string_view name);
const Family& family_of_json(const Json& config, const std::string& where);
const Family& family_of_gguf(const GgufMetadata& metadata);

/// The name of a weight in a format, with the layer filled in.
std::string weight_name(const char* pattern, int layer);
/// The weight that a name means in a pattern column; nothing if none does.
std::optional<WeightId> find_weight(const Family& family, std::string_view name, const char* WeightName::*column);

extern const Family kLlamaFamily;
extern const Family kDiffLlamaFamily;
extern const Family kBitnetFamily;

}  // namespace pare
