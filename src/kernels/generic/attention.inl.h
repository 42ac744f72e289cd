#pragma once
#include <cstring>
#include <type_traits>

#include "kernels/attention.h"
#include "kernels/generic/math.inl.h"
#include "kernels/generic/read_ahead.inl.h"
#include "kernels/kv_pages.h"

// Attention over pages (see attention.h). For each page of a span and each query:
//   s = scale * (q . k), fused, ascending over head_dim; m' = max(m, s); p = exp(s - m'); c = exp(m - m');
//   l = l * c + sum(p) in 16 lanes folded 8-4-2-1; o = o * c, then fused += p v, ascending over tokens;
// spans are merged ascending by the same rule, as if each were a page; at the end o / l. Queries are taken in
// tiles so that a page's vectors serve several, page by page so that a page is read from memory once for all of them;
// neither changes a query's own sequence of operations.
//
// Types with scales: a block's part of q . k is summed by itself and then added, times the key's scale; p is multiplied
// by the value's scale before it meets a block of the value.

namespace pare::kernels {
namespace {

constexpr int kPageVectors = kKvPageTokens / 16;
constexpr int64_t kSpanPages = kKvSpanTokens / kKvPageTokens;

/// A vector of the first of `count` values, behind the last of them zeros.
template <class P>
PARE_INLINE typename P::V load_some(const float* p, int64_t count) {
  return count < 16 ? load_first<P>(p, count) : P::load(p);
}

template <class P>
void store_key_f16(const float* key, int head_dim, std::byte* page, int slot) {
  constexpr int64_t kHalf = PagesF16::kBytes;
  for (int64_t first = 0; first < head_dim; first += 16) {
    std::byte halves[16 * kHalf];
    P::store_f16(halves, load_some<P>(key + first, head_dim - first));
    std::byte* to = page + (first * kKvPageTokens + slot) * kHalf;
    for (int64_t i = 0; i < 16 && first + i < head_dim; ++i)
      std::memcpy(to + i * kKvPageTokens * kHalf, halves + i * kHalf, kHalf);
  }
}

template <class P>
void store_value_f16(const float* value, int value_dim, std::byte* page, int slot) {
  std::byte* row = page + slot * padded_value_dim(value_dim) * PagesF16::kBytes;
  for (int64_t first = 0; first < value_dim; first += 16)
    P::store_f16(row + first * PagesF16::kBytes, load_some<P>(value + first, value_dim - first));
}

// A storage type of the cache: its pages, how a token is stored in them, how 16 values are loaded, and how many
// components of a head share a scale (0: none do).
struct KvF32 : PagesF32 {
  template <class P>
  static constexpr auto kStoreKey = store_key;
  template <class P>
  static constexpr auto kStoreValue = store_value;
  static constexpr int kBlock = 0;
  template <class P>
  static PARE_INLINE typename P::V load(const std::byte* p) {
    return P::load(reinterpret_cast<const float*>(p));
  }
};
struct KvF16 : PagesF16 {
  template <class P>
  static constexpr auto kStoreKey = store_key_f16<P>;
  template <class P>
  static constexpr auto kStoreValue = store_value_f16<P>;
  static constexpr int kBlock = 0;
  template <class P>
  static PARE_INLINE typename P::V load(const std::byte* p) {
    return P::load_f16(p);
  }
};
struct KvQ8_0 : PagesQ8_0 {
  template <class P>
  static constexpr auto kStoreKey = store_key;
  template <class P>
  static constexpr auto kStoreValue = store_value;
  template <class P>
  static PARE_INLINE typename P::V load(const std::byte* p) {
    return P::load_int8(p);
  }
};

// Memory is asked for what is read so many bytes later, as hardware does not foresee where the next page begins; into
// the second-level cache, as the first has fewer requests under way at once.
constexpr int64_t kPageBytesAhead = 4096;

/// Keys or values of a page, as rows of codes behind scales, and those that are read after them.
struct PageHalf {
  const std::byte* at;
  const std::byte* next;
  int64_t rows;

  PARE_INLINE PageHalf operator+(int64_t bytes) const { return {at + bytes, next + bytes, rows}; }
  PARE_INLINE void ask_for_next(int64_t offset, int64_t bytes) const { ask_for(next + offset, bytes); }
  /// While `bytes` at `offset` are read.
  PARE_INLINE void ask_ahead(int64_t offset, int64_t row_bytes, int64_t bytes) const {
    const int64_t later = offset + kPageBytesAhead - rows * row_bytes;
    ask_for(later < 0 ? at + offset + kPageBytesAhead : next + later, bytes);
  }
};

/// A query's part of the scratch.
struct State {
  float *maximum, *sum, *output;
};
PARE_INLINE State state_of(const AttendArgs& a, int64_t span, int64_t query) {
  float* p = a.scratch + (span * a.query_count + query) * attend_state_floats(a.value_dim);
  return {p, p + 1, p + kAttendStateHead};
}

/// acc[t][v] += sum over i in [begin, end) of left[t][i] * right[i][v], ascending: rows of kRows queries against N
/// vectors of a matrix whose rows are row_bytes apart. Each kShared vectors have a left of their own, kKvPageTokens
/// after the one before.
template <class P, class T, int kRows, int N, int kShared = N>
PARE_INLINE void accumulate_outer(const float* const (&left)[kRows], PageHalf right, int64_t row_bytes, int64_t begin,
                                  int64_t end, typename P::V (&acc)[kRows][N]) {
  using V = typename P::V;
  for (int64_t i = begin; i < end; ++i) {
    V w[N];
#pragma GCC unroll 8
    for (int v = 0; v < N; ++v) w[v] = T::template load<P>(right.at + i * row_bytes + v * 16 * T::kBytes);
    right.ask_ahead(i * row_bytes, row_bytes, N * 16 * T::kBytes);
#pragma GCC unroll 16
    for (int t = 0; t < kRows; ++t)
#pragma GCC unroll 8
      for (int first = 0; first < N; first += kShared) {
        const V x = P::set1(left[t][i + first / kShared * kKvPageTokens]);
#pragma GCC unroll 8
        for (int v = first; v < first + kShared; ++v) acc[t][v] = P::fma(x, w[v], acc[t][v]);
      }
  }
}

template <class P, int kRows, int N>
PARE_INLINE void clear(typename P::V (&acc)[kRows][N]) {
#pragma GCC unroll 16
  for (int t = 0; t < kRows; ++t)
#pragma GCC unroll 8
    for (int v = 0; v < N; ++v) acc[t][v] = P::zero();
}

/// The most tokens of a page that any of kRows queries sees.
template <int kRows>
PARE_INLINE int64_t most_seen(const int64_t* tokens) {
  int64_t most = 0;
  for (int t = 0; t < kRows; ++t) most = tokens[t] > most ? tokens[t] : most;
  return most;
}

/// Scores of kRows queries against N vectors of a page's tokens, from vector `first` on.
template <class P, class T, int kRows, int N>
PARE_INLINE void scores_of_vectors(int head_dim, typename P::V scale, const float* const (&queries)[kRows],
                                   PageHalf keys, int first, float (*scores)[kKvPageTokens]) {
  using V = typename P::V;
  constexpr int64_t kRowBytes = kKvPageTokens * T::kBytes;
  V acc[kRows][N];
  clear<P>(acc);
  if constexpr (T::kBlock == 0) {
    accumulate_outer<P, T, kRows, N>(queries, keys + first * 16 * T::kBytes, kRowBytes, 0, head_dim, acc);
  } else {
    const PageHalf codes = keys + (T::scales_bytes(head_dim) + first * 16 * T::kBytes);
    V part[kRows][N];
    for (int64_t begin = 0; begin < head_dim; begin += T::kBlock) {
      const int64_t end = begin + T::kBlock < head_dim ? begin + T::kBlock : head_dim;
      clear<P>(part);
      accumulate_outer<P, T, kRows, N>(queries, codes, kRowBytes, begin, end, part);
      const PageHalf scales = keys + (begin / T::kBlock * T::kScaleRow + first * 16 * T::kScaleBytes);
      scales.ask_for_next(0, N * 16 * T::kScaleBytes);
#pragma GCC unroll 8
      for (int v = 0; v < N; ++v) {
        const V block_scale = P::load_f16(scales.at + v * 16 * T::kScaleBytes);
#pragma GCC unroll 16
        for (int t = 0; t < kRows; ++t) acc[t][v] = P::fma(part[t][v], block_scale, acc[t][v]);
      }
    }
  }
#pragma GCC unroll 16
  for (int t = 0; t < kRows; ++t)
#pragma GCC unroll 8
    for (int v = 0; v < N; ++v) P::store(scores[t] + (first + v) * 16, P::mul(acc[t][v], scale));
}

/// Scores of kRows queries against a page's first `seen` tokens, and some more: [kRows][kKvPageTokens].
template <class P, class T, int kRows, int N>
__attribute__((noinline)) void page_scores(int head_dim, float scale_of_scores, const float* const (&queries)[kRows],
                                           PageHalf keys, int64_t seen, float (*scores)[kKvPageTokens]) {
  const auto scale = P::set1(scale_of_scores);
  for (int first = 0; first * 16 < seen; first += N) {
    // The first half of a page that is not full is enough as long as it holds all.
    constexpr int kHalf = N / 2;
    if (kHalf > 0 && seen <= (first + kHalf) * 16) {
      scores_of_vectors < P, T, kRows, kHalf<1 ? 1 : kHalf>(head_dim, scale, queries, keys, first, scores);
    } else {
      scores_of_vectors<P, T, kRows, N>(head_dim, scale, queries, keys, first, scores);
    }
  }
}

/// Scores of the first `seen` tokens to weights exp(s - m') in place; the states' maxima and sums move on. change: the
/// factors for what is summed.
template <class P, int kRows>
__attribute__((noinline)) void page_softmax(const State (&states)[kRows], const int64_t* tokens, int64_t seen,
                                            float (*scores)[kKvPageTokens], float* change) {
  using V = typename P::V;
  static_assert(kRows <= 16);
  const V nothing = P::set1(-kInfinity);
  alignas(64) float now[kRows], less[16] = {};
  // What no query sees has no score; a weight of 0 would change no sum.
  const auto vectors = static_cast<int>((seen + 15) / 16);
  for (int t = 0; t < kRows; ++t) {
    V best = nothing;
    for (int v = 0; v < vectors; ++v) {
      const V s = P::keep_first(P::load(scores[t] + v * 16), tokens[t] - v * 16, nothing);
      P::store(scores[t] + v * 16, s);
      best = P::max(s, best);
    }
    const float page = P::fold_max(best), before = *states[t].maximum;
    now[t] = page > before ? page : before;
    less[t] = before - now[t];
  }
  P::store(change, exponential<P>(P::load(less)));  // of all queries at once
  for (int t = 0; t < kRows; ++t) {
    V sum = P::zero();
    for (int v = 0; v < vectors; ++v) {
      const V p = exponential<P>(P::sub(P::load(scores[t] + v * 16), P::set1(now[t])));
      P::store(scores[t] + v * 16, p);
      sum = P::add(sum, p);
    }
    *states[t].maximum = now[t];
    *states[t].sum = *states[t].sum * change[t] + P::fold_add(sum);
  }
}

/// o += p v over tokens [begin, end) of a page and N * 16 columns, first scaled by `change` if it is given.
template <class P, class T, int kRows, int N>
PARE_INLINE void page_values_columns(int value_dim, const float* const (&weights)[kRows], PageHalf values,
                                     int64_t begin, int64_t end, float* const (&outputs)[kRows], const float* change,
                                     int64_t column) {
  using V = typename P::V;
  const int64_t row_bytes = padded_value_dim(value_dim) * T::kBytes;
  V acc[kRows][N];
#pragma GCC unroll 16
  for (int t = 0; t < kRows; ++t)
#pragma GCC unroll 8
    for (int v = 0; v < N; ++v) {
      acc[t][v] = P::load(outputs[t] + column + v * 16);
      if (change) acc[t][v] = P::mul(acc[t][v], P::set1(change[t]));
    }
  if constexpr (T::kBlock == 0) {
    accumulate_outer<P, T, kRows, N>(weights, values + column * T::kBytes, row_bytes, begin, end, acc);
  } else {
    constexpr int kShared = N < T::kBlock / 16 ? N : T::kBlock / 16;
    const PageHalf scales = values + column / T::kBlock * T::kScaleRow;
    alignas(64) float scaled[kRows][N / kShared * kKvPageTokens];
    const float* left[kRows];
    for (int t = 0; t < kRows; ++t) left[t] = scaled[t];
    scales.ask_for_next(0, N / kShared * T::kScaleRow);
    for (int i = 0; i < N / kShared * kKvPageTokens; i += 16) {
      const V scale = P::load_f16(scales.at + i * T::kScaleBytes);
      for (int t = 0; t < kRows; ++t) P::store(scaled[t] + i, P::mul(P::load(weights[t] + i % kKvPageTokens), scale));
    }
    const PageHalf codes = values + (T::scales_bytes(value_dim) + column * T::kBytes);
    accumulate_outer<P, T, kRows, N, kShared>(left, codes, row_bytes, begin, end, acc);
  }
#pragma GCC unroll 16
  for (int t = 0; t < kRows; ++t)
#pragma GCC unroll 8
    for (int v = 0; v < N; ++v) P::store(outputs[t] + column + v * 16, acc[t][v]);
}

template <class P, class T, int kRows, int N>
__attribute__((noinline)) void page_values(int value_dim, const float* const (&weights)[kRows], PageHalf values,
                                           int64_t begin, int64_t end, float* const (&outputs)[kRows],
                                           const float* change) {
  const int64_t columns = padded_value_dim(value_dim);
  int64_t column = 0;
  for (; column + N * 16 <= columns; column += N * 16)
    page_values_columns<P, T, kRows, N>(value_dim, weights, values, begin, end, outputs, change, column);
  for (; column < columns; column += 16)
    page_values_columns<P, T, kRows, 1>(value_dim, weights, values, begin, end, outputs, change, column);
}

/// Vectors that kRows rows of accumulators leave room for: a power of two up to a page's.
template <class P>
constexpr int vectors_for(int rows) {
  int n = 1;
  while (n * 2 * rows <= P::kAttendVectors && n * 2 <= kPageVectors) n *= 2;
  return n;
}

/// Calls work(std::integral_constant<int, count>) for a count in [1, kRows].
template <int kRows, class Work>
PARE_INLINE void with_rows(int count, Work work) {
  if constexpr (kRows > 1) {
    if (count < kRows) return with_rows<kRows - 1>(count, work);
  }
  work(std::integral_constant<int, kRows>());
}

/// page_values over the tokens[t] that each query sees.
template <class P, class T, int kRows>
PARE_INLINE void page_values_seen(int value_dim, const float* const (&weights)[kRows], PageHalf values,
                                  const int64_t* tokens, float* const (&outputs)[kRows], const float* change) {
  int64_t shared = kKvPageTokens;  // tokens that all of them see
  for (int t = 0; t < kRows; ++t) shared = tokens[t] < shared ? tokens[t] : shared;
  page_values<P, T, kRows, vectors_for<P>(kRows)>(value_dim, weights, values, 0, shared, outputs, change);
  // A value that a query does not see must not reach it, not even times zero: it may be infinite, or not there yet. The
  // heads of a row see the same.
  constexpr int kMost = kRows < 4 ? kRows : 4;
  for (int t = 0, count; t < kRows; t += count) {
    for (count = 1; count < kMost && t + count < kRows && tokens[t + count] == tokens[t];) ++count;
    if (tokens[t] == shared) continue;
    with_rows<kMost>(count, [&](auto rows) {
      constexpr int kSome = decltype(rows)::value;
      const float* some_weights[kSome];
      float* some_outputs[kSome];
      for (int i = 0; i < kSome; ++i) some_weights[i] = weights[t + i], some_outputs[i] = outputs[t + i];
      page_values<P, T, kSome, vectors_for<P>(kSome)>(value_dim, some_weights, values, shared, tokens[t], some_outputs,
                                                      nullptr);
    });
  }
}

/// One page for kRows queries that all see some of it; tokens[t] of it.
template <class P, class T, int kRows>
void attend_page(const AttendArgs& a, int64_t span, int64_t query, int64_t page, int64_t next, const int64_t* tokens) {
  constexpr int N = vectors_for<P>(kRows);
  alignas(64) float scores[kRows][kKvPageTokens];
  const float *queries[kRows], *weights[kRows];
  float* outputs[kRows];
  State states[kRows];
  alignas(64) float change[16];
  for (int t = 0; t < kRows; ++t) {
    queries[t] = a.queries[query + t];
    weights[t] = scores[t];
    states[t] = state_of(a, span, query + t);
    outputs[t] = states[t].output;
  }
  const PageHalf keys{a.key_pages[page], a.value_pages[page], a.head_dim};
  const PageHalf values{a.value_pages[page], a.key_pages[next], kKvPageTokens};
  const int64_t seen = most_seen<kRows>(tokens);
  page_scores<P, T, kRows, N>(a.head_dim, a.scale, queries, keys, seen, scores);
  page_softmax<P, kRows>(states, tokens, seen, scores, change);
  page_values_seen<P, T, kRows>(a.value_dim, weights, values, tokens, outputs, change);
}

/// Calls work(query, rows, tokens) for runs of queries that each see tokens[i] >= 1 of a page, tiles of up to
/// kAttendQueries; rows is a constant.
template <class P, class Work>
PARE_INLINE void for_runs_seeing(int64_t page, int64_t query_count, const int64_t* visible, Work work) {
  for (int64_t q = 0; q < query_count;) {
    int64_t tokens[P::kAttendQueries];
    int count = 0;
    for (; count < P::kAttendQueries && q + count < query_count; ++count) {
      const int64_t seen = visible[q + count] - page * kKvPageTokens;
      if (seen <= 0) break;
      tokens[count] = seen < kKvPageTokens ? seen : kKvPageTokens;
    }
    if (count == 0) {
      ++q;
      continue;
    }
    with_rows<P::kAttendQueries>(count, [&](auto rows) { work(q, rows, tokens); });
    q += count;
  }
}

template <class Args>
PARE_INLINE int64_t longest_visible(const Args& a) {
  int64_t longest = 0;
  for (int64_t q = 0; q < a.query_count; ++q) longest = a.visible[q] > longest ? a.visible[q] : longest;
  return longest;
}

/// One span, into states `to` of the scratch.
template <class P, class T>
void attend_span_to(const AttendArgs& a, int64_t span, int64_t to) {
  for (int64_t q = 0; q < a.query_count; ++q) {
    const State state = state_of(a, to, q);
    *state.maximum = -kInfinity;
    *state.sum = 0;
    std::memset(state.output, 0, static_cast<size_t>(padded_value_dim(a.value_dim)) * sizeof(float));
  }
  const int64_t pages = (longest_visible(a) + kKvPageTokens - 1) / kKvPageTokens;
  for (int64_t page = span * kSpanPages; page < pages && page < (span + 1) * kSpanPages; ++page) {
    const int64_t next = page + 1 < pages ? page + 1 : page;
    for_runs_seeing<P>(page, a.query_count, a.visible, [&](int64_t q, auto rows, const int64_t* tokens) {
      attend_page<P, T, decltype(rows)::value>(a, to, q, page, next, tokens);
    });
  }
}

template <class P, class T>
void attend_span(const AttendArgs& a, int64_t span) {
  attend_span_to<P, T>(a, span, span);
}

/// Adds a span's state `from` of the scratch to state 0 of every query that sees some of the span.
template <class P>
void merge_span(const AttendArgs& a, int64_t span, int64_t from) {
  for (int64_t q = 0; q < a.query_count; ++q) {
    if (a.visible[q] <= span * kKvSpanTokens) continue;
    const State to = state_of(a, 0, q), add = state_of(a, from, q);
    const float now = *add.maximum > *to.maximum ? *add.maximum : *to.maximum;
    alignas(64) float kept[16], added[16];
    P::store(kept, exponential<P>(P::set1(*to.maximum - now)));
    P::store(added, exponential<P>(P::set1(*add.maximum - now)));
    *to.maximum = now;
    *to.sum = *to.sum * kept[0] + *add.sum * added[0];
    for (int64_t d = 0; d < padded_value_dim(a.value_dim); d += 16) {
      const auto before = P::mul(P::load(to.output + d), P::load(kept));
      P::store(to.output + d, P::fma(P::load(add.output + d), P::load(added), before));
    }
  }
}

inline void divide_outputs(const AttendArgs& a) {
  for (int64_t q = 0; q < a.query_count; ++q) {
    const State state = state_of(a, 0, q);
    const float sum = *state.sum;
    float* __restrict to = a.outputs[q];
    for (int d = 0; d < a.value_dim; ++d) to[d] = state.output[d] / sum;
  }
}

template <class P>
void merge_spans(const AttendArgs& a) {
  for (int64_t span = 1; span < kv_spans(longest_visible(a)); ++span) merge_span<P>(a, span, span);
  divide_outputs(a);
}

template <class P, class T>
void attend(const AttendArgs& a) {
  attend_span_to<P, T>(a, 0, 0);
  for (int64_t span = 1; span < kv_spans(longest_visible(a)); ++span) {
    attend_span_to<P, T>(a, span, 1);
    merge_span<P>(a, span, 1);
  }
  divide_outputs(a);
}

}  // namespace
}  // namespace pare::kernels
