#include "model/config.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace pare {
namespace {

// Beyond any model there is; small enough that products of two of them and a type size stay far inside 63 bits.
constexpr int64_t kMaxDimension = int64_t{1} << 24;
constexpr int64_t kMaxContext = int64_t{1} << 31;
constexpr size_t kMaxLayers = 10000;

void check_range(int64_t value, int64_t most, const char* what, const std::string& where) {
  if (value < 1 || value > most) fail("{}: {} is {}, expected 1 to {}", where, what, value, most);
}

void check_rope(const RopeConfig& rope, int head_dim, const std::string& where) {
  if (rope.dims < 2 || rope.dims % 2 != 0 || rope.dims > head_dim) {
    fail("{}: rope rotates {} components of a head of {}, expected an even number up to that", where, rope.dims,
         head_dim);
  }
  if (!(rope.theta > 0) || !std::isfinite(rope.theta))
    fail("{}: rope theta is {}, expected a positive number", where, rope.theta);
  const RopeScaling& scaling = rope.scaling;
  if (!(scaling.factor > 0) || !std::isfinite(scaling.factor)) {
    fail("{}: rope scaling factor is {}, expected a positive number", where, scaling.factor);
  }
  const bool needs_original = scaling.kind != RopeScalingKind::kNone && scaling.kind != RopeScalingKind::kLinear;
  if (needs_original) check_range(scaling.original_context, kMaxContext, "rope scaling's original context", where);
  if (scaling.kind == RopeScalingKind::kDynamic && rope.dims == 2) {
    fail("{}: dynamic rope scaling needs more than 2 rotated components", where);
  }
  const size_t pairs = static_cast<size_t>(rope.dims) / 2;
  if (scaling.kind == RopeScalingKind::kLongRope) {
    for (const auto* factors : {&scaling.short_factor, &scaling.long_factor}) {
      if (factors->size() != pairs) {
        fail("{}: longrope has {} factors, expected {} (one for each rotated pair)", where, factors->size(), pairs);
      }
    }
  }
  if (scaling.kind == RopeScalingKind::kLlama3 && !(scaling.high_frequency_factor > scaling.low_frequency_factor)) {
    fail("{}: rope scaling's high_freq_factor is {}, expected more than low_freq_factor {}", where,
         scaling.high_frequency_factor, scaling.low_frequency_factor);
  }
  if (!rope.frequency_factors.empty() && rope.frequency_factors.size() != pairs) {
    fail("{}: rope_freqs has {} factors, expected {}", where, rope.frequency_factors.size(), pairs);
  }
}

void check_differential(const AttentionConfig& attention, const std::string& where) {
  const DifferentialConfig& differential = attention.differential;
  if (attention.heads % 2 != 0) {
    fail("{}: {} attention heads, expected an even number, as differential attention pairs them", where,
         attention.heads);
  }
  if (differential.kv_pairs && attention.kv_heads % 2 != 0) {
    fail("{}: {} KV heads, expected an even number, as differential attention pairs them", where, attention.kv_heads);
  }
  if (!differential.kv_pairs &&
      (differential.pairing != HeadPairing::kNeighbours || attention.heads / attention.kv_heads % 2 != 0)) {
    fail("{}: {} attention heads for {} KV heads, expected an even number for each, as both of a pair read one", where,
         attention.heads, attention.kv_heads);
  }
  if (!(differential.lambda_init >= 0 && differential.lambda_init < 1)) {
    fail("{}: lambda_init is {}, expected a number in [0, 1)", where, differential.lambda_init);
  }
}

void check_attention(const AttentionConfig& attention, const std::string& where) {
  check_range(attention.heads, kMaxDimension, "the number of attention heads", where);
  check_range(attention.kv_heads, kMaxDimension, "the number of KV heads", where);
  check_range(attention.head_dim, 1 << 16, "the head size", where);
  check_range(int64_t{attention.heads} * attention.head_dim, kMaxDimension, "heads times head size", where);
  if (attention.heads % attention.kv_heads != 0) {
    fail("{}: {} attention heads, expected a multiple of the {} KV heads", where, attention.heads, attention.kv_heads);
  }
  check_rope(attention.rope, attention.head_dim, where);
  if (attention.is_differential()) check_differential(attention, where);
}

}  // namespace

float default_lambda_init(int layer) { return static_cast<float>(0.8 - 0.6 * std::exp(-0.3 * layer)); }

HeadGroup AttentionConfig::group(int index) const {
  HeadGroup group;
  const int per_kv = heads / kv_heads;
  group.maps = is_differential() ? 2 : 1;
  group.value_parts = value_parts();
  group.count = per_kv * group.value_parts / group.maps;
  group.first = index * group.count;
  group.key_heads[0] = group.key_heads[1] = group.value_heads[0] = group.value_heads[1] = index;
  if (!is_differential()) return group;
  const bool halves = differential.pairing == HeadPairing::kHalves;
  group.output_stride = halves ? 1 : 2;
  group.map_stride = halves ? heads / 2 : 1;
  if (!differential.kv_pairs) return group;
  for (int i = 0; i < 2; ++i) {
    group.key_heads[i] = group.value_heads[i] = halves ? index + i * (kv_heads / 2) : 2 * index + i;
  }
  return group;
}

int ModelConfig::attention_count() const {
  return static_cast<int>(
      std::count_if(layers.begin(), layers.end(), [](const auto& l) { return l.attention.has_value(); }));
}

int ModelConfig::mlp_count() const {
  return static_cast<int>(std::count_if(layers.begin(), layers.end(), [](const auto& l) { return l.mlp.has_value(); }));
}

void check_config(const ModelConfig& config, const std::string& where) {
  check_range(config.hidden, kMaxDimension, "the hidden size", where);
  check_range(config.vocabulary, kMaxDimension, "the vocabulary size", where);
  check_range(config.context, kMaxContext, "the context length", where);
  if (config.layers.size() > kMaxLayers)
    fail("{}: {} layers, expected at most {}", where, config.layers.size(), kMaxLayers);
  if (!(config.norm_epsilon >= 0) || !std::isfinite(config.norm_epsilon)) {
    fail("{}: norm epsilon is {}, expected a small positive number", where, config.norm_epsilon);
  }
  for (const LayerConfig& layer : config.layers) {
    if (layer.attention) check_attention(*layer.attention, where);
    if (layer.mlp) check_range(layer.mlp->width, kMaxDimension, "the MLP width", where);
  }
}

}  // namespace pare
