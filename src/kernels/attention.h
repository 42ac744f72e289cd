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

// Attention in two passes, of one softmax or of the difference of two (Differential Transformer, arXiv 2410.05258:
// weights softmax(q1 k1) - lambda softmax(q2 k2)). All scores stay in scratch, so that both softmaxes are known in full
// before values are read: the maps are combined first, values are read once, and only where a weight counts. What is
// not read is not lost: the mean of its page's values takes its place, under the sum of the weights left out. A page
// that a query does not see whole has no mean for it, and is read.

inline constexpr int kMostMaps = 2, kMostValueParts = 2;

struct TwoPassArgs {
  int maps;  // 1: a softmax; 2: one minus lambda times another
  int value_parts;
  const std::byte* const* key_pages[kMostMaps];          // [maps], each as in AttendArgs
  const std::byte* const* value_pages[kMostValueParts];  // [value_parts]: their values lie side by side in outputs
  int head_dim, value_dim;                               // value_dim: of one part
  float scale;
  int query_count;
  const float* const* queries[kMostMaps];  // [maps][query_count] -> [head_dim]
  const float* lambda;                     // [query_count]; for 2 maps
  float* const* outputs;                   // [query_count] -> [value_parts * value_dim]
  const int64_t* visible;                  // [query_count], as in AttendArgs
  float threshold;                         // values whose weights are below this part of the row's largest are not read
  const float* value_means[kMostValueParts];  // with a threshold: [value_parts] -> [whole pages, padded value_dim]
  float* scratch;                             // [spans, two_pass_span_floats]
  int64_t* read;  // with a threshold: grows by the (query, token) pairs whose values were read
};

/// Floats of scratch for each span of the longest query.
int64_t two_pass_span_floats(int maps, int value_parts, int value_dim, int query_count);

/// The steps. Those of spans may be done in any order and at the same time; each step needs the one before of all spans
/// (values without a threshold only weights of their own).
struct TwoPassSteps {
  void (*scores)(const TwoPassArgs& args, int64_t span);
  void (*normalise)(const TwoPassArgs& args);
  void (*weights)(const TwoPassArgs& args, int64_t span);
  void (*values)(const TwoPassArgs& args, int64_t span);
  void (*outputs)(const TwoPassArgs& args);
};

/// One storage type of the cache.
struct KvFormat {
  DType type;
  int64_t (*key_page_bytes)(int head_dim);
  int64_t (*value_page_bytes)(int value_dim);
  /// Stores one token's key or value of one head in slot [0, kKvPageTokens) of a page.
  void (*store_key)(const float* key, int head_dim, std::byte* page, int slot);
  void (*store_value)(const float* value, int value_dim, std::byte* page, int slot);
  /// The mean of the values of a whole page, [padded value_dim]: sum of v / kKvPageTokens, fused, ascending.
  void (*value_mean)(const std::byte* page, int value_dim, float* mean);
  void (*attend)(const AttendArgs& args);
  /// The same in parts: attend_span for each span of the longest query, in any order and at the same time, and then
  /// merge_spans, with the same scratch.
  void (*attend_span)(const AttendArgs& args, int64_t span);
  void (*merge_spans)(const AttendArgs& args);
  TwoPassSteps two_pass;
};

/// The cache format for a type under the given features. Throws Error naming the known ones.
const KvFormat& kv_format(DType type, CpuFeatures features);
/// The types that the cache can hold, and their names for messages: "f16, f32, ...".
std::vector<DType> kv_types();
std::string kv_type_names();

}  // namespace pare::kernels
