#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/cpu.h"
#include "tensor/dtype.h"

namespace pare::kernels {

// Attention over a paged cache with online softmax: no matrix of scores is ever in memory.
//
// A page holds kKvPageTokens tokens of one KV head. Keys lie transposed, [head_dim, kKvPageTokens], so that one vector
// holds one component of consecutive tokens and scores need no horizontal sums; values lie [kKvPageTokens, value_dim].
// Scores sum over components in ascending order; softmax is rescaled once a page. Pages are taken in spans of fixed
// length: each has a softmax of its own, and they are merged in ascending order, so that threads may share a long
// context. A query's result depends only on its own keys, never on what else is computed with it, or by whom.

inline constexpr int kKvPageTokens = 64;
inline constexpr int kKvSpanTokens = 8 * kKvPageTokens;

struct AttendArgs {
  const std::byte* const* key_pages;    // [ceil(max visible / kKvPageTokens)]
  const std::byte* const* value_pages;  // the same count
  int head_dim, value_dim;
  float scale;  // applied to scores
  int query_count;
  const float* const* queries;  // [query_count] -> [head_dim]
  float* const* outputs;        // [query_count] -> [value_dim]
  const int64_t* visible;       // [query_count]: query i sees tokens [0, visible[i]), visible[i] >= 1
  float* scratch;               // attend_scratch(query_count, value_dim, spans) floats
};

/// Floats of scratch for so many spans. attend needs 2, however long the context; attend_span and merge_spans need them
/// all.
int64_t attend_scratch(int query_count, int value_dim, int64_t spans = 2);
/// Spans of a context of so many tokens.
constexpr int64_t kv_spans(int64_t tokens) { return (tokens + kKvSpanTokens - 1) / kKvSpanTokens; }

/// One storage type of the cache.
struct KvFormat {
  DType type;
  int64_t (*key_page_bytes)(int head_dim);
  int64_t (*value_page_bytes)(int value_dim);
  /// Stores one token's key or value of one head in slot [0, kKvPageTokens) of a page.
  void (*store_key)(const float* key, int head_dim, std::byte* page, int slot);
  void (*store_value)(const float* value, int value_dim, std::byte* page, int slot);
  void (*attend)(const AttendArgs& args);
  /// The same in parts: attend_span for each span of the longest query, in any order and at the same time, and then
  /// merge_spans, with the same scratch.
  void (*attend_span)(const AttendArgs& args, int64_t span);
  void (*merge_spans)(const AttendArgs& args);
};

/// The cache format for a type under the given features. Throws Error naming the known ones.
const KvFormat& kv_format(DType type, CpuFeatures features);
/// The types that the cache can hold, and their names for messages: "f16, f32, ...".
std::vector<DType> kv_types();
std::string kv_type_names();

}  // namespace pare::kernels
