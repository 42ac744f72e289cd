#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernels/elementwise.h"

namespace pare {

using kernels::RopeLayout;

enum class RopeScalingKind : uint8_t { kNone, kLinear, kDynamic, kYarn, kLongRope, kLlama3 };

/// Rope scaling with the parameters of transformers' modeling_rope_utils; which are used depends on the kind.
struct RopeScaling {
  RopeScalingKind kind = RopeScalingKind::kNone;
  double factor = 1;
  int64_t original_context = 0;                                // original_max_position_embeddings
  double low_frequency_factor = 1, high_frequency_factor = 4;  // llama3
  std::optional<double> attention_factor;         // yarn, longrope: multiplies cos and sin; nothing = from the factor
  double beta_fast = 32, beta_slow = 1;           // yarn
  std::optional<double> mscale, mscale_all_dim;   // yarn
  bool truncate = true;                           // yarn
  std::vector<double> short_factor, long_factor;  // longrope: [dims / 2]
  bool operator==(const RopeScaling&) const = default;
};

struct RopeConfig {
  double theta = 10000;
  int dims = 0;  // how many components of a head are rotated
  RopeLayout layout = RopeLayout::kHalves;
  RopeScaling scaling;
  std::vector<float> frequency_factors;  // [dims / 2] divisors as GGUF's rope_freqs.weight has them; may be empty
  bool operator==(const RopeConfig&) const = default;
};

/// What a model's linear layers do to their inputs, beyond what a kernel does for its own purposes.
enum class ActivationQuantization : uint8_t {
  kNone,
  kInt8Row  // BitNet b1.58: each token's row x becomes round(x * s), s = 127 / max(absmax, 1e-5), half to even
};

/// What the linear layers of a module mean.
struct LinearConfig {
  ActivationQuantization activations = ActivationQuantization::kNone;
  bool operator==(const LinearConfig&) const = default;
};

enum class AttentionKind : uint8_t { kSoftmax };

struct AttentionConfig {
  AttentionKind kind = AttentionKind::kSoftmax;
  int heads = 0, kv_heads = 0, head_dim = 0;
  float scale = 0;  // of scores, usually 1 / sqrt(head_dim)
  bool qkv_bias = false, output_bias = false;
  bool sub_norm = false;  // an RMSNorm before the output projection (BitNet)
  LinearConfig linear;
  RopeConfig rope;
  bool operator==(const AttentionConfig&) const = default;
};

/// What becomes of the gate before it multiplies up.
enum class Activation : uint8_t {
  kSilu,        // x * sigmoid(x)
  kReluSquared  // max(x, 0)^2 (BitNet)
};

struct MlpConfig {
  int64_t width = 0;
  Activation activation = Activation::kSilu;
  bool bias = false;
  bool sub_norm = false;  // an RMSNorm before the down projection (BitNet)
  LinearConfig linear;
  bool operator==(const MlpConfig&) const = default;
};

/// One block. A dropped part is absent: no weights, no norm, no cache.
struct LayerConfig {
  std::optional<AttentionConfig> attention;
  std::optional<MlpConfig> mlp;
  bool operator==(const LayerConfig&) const = default;
};

struct ModelConfig {
  std::string family;  // "llama"
  int64_t hidden = 0, vocabulary = 0, context = 0;
  float norm_epsilon = 1e-5f;
  bool tied_embedding = false;
  std::vector<LayerConfig> layers;
  bool operator==(const ModelConfig&) const = default;

  int attention_count() const;
  int mlp_count() const;
};

/// Throws Error naming the first impossible value (zero heads, heads not a multiple of KV heads, absurd sizes).
void check_config(const ModelConfig& config, const std::string& where);

}  // namespace pare
