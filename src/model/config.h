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

enum class AttentionKind : uint8_t {
  kSoftmax,
  kDifferential  // the difference of two softmaxes (Differential Transformer, arXiv 2410.05258); see DifferentialConfig
};

/// Which query heads make a pair: h and h + heads / 2, or 2h and 2h + 1.
enum class HeadPairing : uint8_t { kHalves, kNeighbours };

/// What a pair's second softmax is multiplied with.
enum class LambdaSource : uint8_t {
  kVectors,  // one number a layer: exp(q1 . k1) - exp(q2 . k2) + lambda_init
  kTokens    // one a token and pair: sigmoid(projection of the attention's input)
};

/// The forms of differential attention. Output of a pair: (softmax(q1 k1) - lambda softmax(q2 k2)) v, normalised by
/// itself and times 1 - lambda_init where head_norm is set.
struct DifferentialConfig {
  HeadPairing pairing = HeadPairing::kHalves;
  bool kv_pairs = true;  // KV heads are paired as query heads are, with a pair's values side by side; else both maps of
                         // a pair read one KV head
  LambdaSource lambda = LambdaSource::kVectors;
  float lambda_init = 0;
  bool head_norm = true;        // RMSNorm over a pair's output
  bool head_norm_gain = false;  // with a weight
  bool operator==(const DifferentialConfig&) const = default;
};

/// The paper's lambda_init of a layer, counted from 0: 0.8 - 0.6 exp(-0.3 layer).
float default_lambda_init(int layer);

/// What reads the same KV heads: the outputs [first, first + count) of an attention, an output being that of a head, or
/// of a pair of heads.
struct HeadGroup {
  int first = 0, count = 0;
  int maps = 1, value_parts = 1;          // softmaxes of an output, KV heads whose values lie side by side in it
  int key_heads[2] = {0, 0};              // [maps] KV heads
  int value_heads[2] = {0, 0};            // [value_parts] KV heads
  int output_stride = 1, map_stride = 0;  // the query head of output o's map m: o * output_stride + m * map_stride
};

struct AttentionConfig {
  AttentionKind kind = AttentionKind::kSoftmax;
  DifferentialConfig differential;  // of that kind
  int heads = 0, kv_heads = 0, head_dim = 0;
  float scale = 0;  // of scores, usually 1 / sqrt(head_dim)
  bool qkv_bias = false, output_bias = false;
  bool sub_norm = false;  // an RMSNorm before the output projection (BitNet)
  LinearConfig linear;
  RopeConfig rope;
  bool operator==(const AttentionConfig&) const = default;

  bool is_differential() const { return kind == AttentionKind::kDifferential; }
  int outputs() const { return is_differential() ? heads / 2 : heads; }
  int value_parts() const { return is_differential() && differential.kv_pairs ? 2 : 1; }
  /// Components of one output, and of all: what the output projection multiplies.
  int output_dim() const { return head_dim * value_parts(); }
  int64_t output_width() const { return int64_t{outputs()} * output_dim(); }
  int group_count() const { return kv_heads / value_parts(); }
  HeadGroup group(int index) const;
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
