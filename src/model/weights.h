#pragma once
#include <compare>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/config.h"
#include "tensor/tensor.h"

namespace pare {

/// What a weight is for. kWeightKinds (weights.cc) has one row of names for each.
enum class WeightKind : uint8_t {
  kEmbedding,
  kOutputNorm,
  kOutput,
  kAttentionNorm,
  kQuery,
  kKey,
  kValue,
  kAttentionOutput,
  kQueryBias,
  kKeyBias,
  kValueBias,
  kAttentionOutputBias,
  kAttentionSubNorm,
  kLambdaQuery1,
  kLambdaKey1,
  kLambdaQuery2,
  kLambdaKey2,
  kLambda,
  kHeadNorm,
  kMlpNorm,
  kGate,
  kUp,
  kDown,
  kGateBias,
  kUpBias,
  kDownBias,
  kMlpSubNorm,
};

/// Name in plans and messages ("attn_q", "ffn_down", "embedding"), and whether it is a matrix that plans may store in
/// block types (norms, biases and what makes lambda
/// stay float).
struct WeightKindInfo {
  WeightKind kind;
  const char* name;
  bool matrix;
  bool in_layer;
};
const WeightKindInfo& info(WeightKind kind);
std::span<const WeightKindInfo> all_weight_kinds();
const WeightKindInfo* find_weight_kind(std::string_view name);

struct WeightId {
  WeightKind kind;
  int layer = -1;  // counted in the checkpoint's own layers; -1 outside layers
  auto operator<=>(const WeightId&) const = default;
  /// "layer 3 ffn_down"
  std::string to_string() const;
};

/// Writes w + 1 of rows of ternary weights, codes: [row_end - row_begin, columns]. Several threads may ask at once.
using FillCodes = std::function<void(int64_t row_begin, int64_t row_end, uint8_t* codes)>;

/// A weight that can be read: bytes in a mapped file, or made on demand from another (encoded, rotated, ...).
class WeightTensor {
 public:
  WeightId id;
  std::string name;  // as the file calls it, for messages
  DType type = DType::kF32;
  Shape shape;
  float scale = 1;                               // values are what is stored times this (ternary weights)
  std::span<const std::byte> mapped;             // the bytes in place; empty if made
  std::shared_ptr<const void> owner;             // keeps the mapping (or what `make` reads) alive
  std::function<std::vector<std::byte>()> make;  // set if not mapped
  FillCodes fill_codes;                          // of made ternary weights: what `make` encodes, not checked
  std::span<const std::byte> made_from;          // the file's bytes that fill_codes reads
  std::string key;  // equal keys = equal bytes: lets packed weights be shared between variants of a model

  /// Bytes as stored: a view of the file, or of `storage`, which receives what had to be made.
  TensorView read(std::vector<std::byte>& storage) const;
  int64_t bytes() const { return info(type).bytes(shape.count()); }
};

/// The shape that a weight must have under a config; nothing if the config has no such weight.
std::optional<Shape> expected_shape(const ModelConfig& config, WeightId id);
/// Every weight that a config needs, in file order (embedding, layers, output).
std::vector<WeightId> expected_weights(const ModelConfig& config);
/// Values of all matrices that a config needs.
int64_t matrix_weights(const ModelConfig& config);

}  // namespace pare
