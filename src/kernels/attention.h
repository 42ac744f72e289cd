#pragma once
#include <cstddef>
#include <cstdint>

#include "base/cpu.h"
#include "tensor/dtype.h"

namespace pare::kernels {

// Attention over a paged cache with online softmax: no matrix of scores is ever in memory.
//
// A page holds kKvPageTokens tokens of one KV head. Keys lie transposed, [head_dim, kKvPageTokens], so that one vector
// holds one component of consecutive tokens and scores need no horizontal sums; values lie [kKvPageTokens, value_dim].
// Scores sum over components in ascending order; softmax is rescaled once a page; so a query's result depends only on
// its own keys, never on what else is computed with it.

inline constexpr int kKvPageTokens = 64;

struct AttendArgs {
  const std::byte* const* key_pages;    // [ceil(max visible / kKvPageTokens)]
  const std::byte* const* value_pages;  // the same count
  int head_dim, value_dim;
  float scale;  // applied to scores
  int query_count;
  const float* const* queries;  // [query_count] -> [head_dim]
  float* const* outputs;        // [query_count] -> [value_dim]
  const int64_t* visible;       // [query_count]: query i sees tokens [0, visible[i]), visible[i] >= 1
  float* scratch;               // attend_scratch(query_count, value_dim) floats
};

/// Floats of scratch that attend needs.
int64_t attend_scratch(int query_count, int value_dim);

/// One storage type of the cache.
struct KvFormat {
  DType type;
  int64_t (*key_page_bytes)(int head_dim);
  int64_t (*value_page_bytes)(int value_dim);
  /// Stores one token's key or value of one head in slot [0, kKvPageTokens) of a page.
  void (*store_key)(const float* key, int head_dim, std::byte* page, int slot);
  void (*store_value)(const float* value, int value_dim, std::byte* page, int slot);
  void (*attend)(const AttendArgs& args);
};

/// The cache format for a type (f16, f32) under the given features. Throws Error naming the known ones.
const KvFormat& kv_format(DType type, CpuFeatures features);

}  // namespace pare::kernels
