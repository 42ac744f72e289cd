#pragma once
#include <cstring>

#include "kernels/attention.h"
#include "kernels/generic/math.inl.h"
#include "kernels/kv_pages.h"

// Attention over pages (see attention.h). For each page and query:
//   s = scale * (q . k), fused, ascending over head_dim; m' = max(m, s); p = exp(s - m'); c = exp(m - m');
//   l = l * c + sum(p) in 16 lanes folded 8-4-2-1; o = o * c, then fused += p v, ascending over tokens;
// at the end o / l. Queries are taken in tiles so that a page's vectors serve several, page by page so that a page is
// read from memory once for all of them; neither changes a query's own sequence of operations.

namespace pare::kernels {
namespace {

constexpr int kPageVectors = kKvPageTokens / 16;

struct KvF32 : PagesF32 {
  template <class P>
  static PARE_INLINE typename P::V load(const std::byte* p) {
    return P::load(reinterpret_cast<const float*>(p));
  }
};
struct KvF16 : PagesF16 {
  template <class P>
  static PARE_INLINE typename P::V load(const std::byte* p) {
    return P::load_f16(p);
  }
};

/// A query's part of the scratch.
struct State {
  float *maximum, *sum, *output;
};
PARE_INLINE State state_of(const AttendArgs& a, int64_t query) {
  float* p = a.scratch + query * attend_state_floats(a.value_dim);
  return {p, p + 1, p + kAttendStateHead};
}

/// acc[t][v] += sum over i < count of left[t][i] * right[i][v], ascending: T rows against N vectors of a matrix whose
/// rows are row_bytes apart.
template <class P, class T, int kRows, int N>
PARE_INLINE void accumulate_outer(const float* const (&left)[kRows], const std::byte* right, int64_t row_bytes,
                                  int64_t begin, int64_t end, typename P::V (&acc)[kRows][N]) {
  using V = typename P::V;
  for (int64_t i = begin; i < end; ++i) {
    V w[N];
#pragma GCC unroll 8
    for (int v = 0; v < N; ++v) w[v] = T::template load<P>(right + i * row_bytes + v * 16 * T::kBytes);
#pragma GCC unroll 16
    for (int t = 0; t < kRows; ++t) {
      const V x = P::set1(left[t][i]);
#pragma GCC unroll 8
      for (int v = 0; v < N; ++v) acc[t][v] = P::fma(x, w[v], acc[t][v]);
    }
  }
}

/// Scores of kRows queries against a page: [kRows][kKvPageTokens].
template <class P, class T, int kRows, int N>
PARE_INLINE void page_scores(const AttendArgs& a, const float* const (&queries)[kRows], const std::byte* keys,
                             float (*scores)[kKvPageTokens]) {
  using V = typename P::V;
  for (int first = 0; first < kPageVectors; first += N) {
    V acc[kRows][N];
#pragma GCC unroll 16
    for (int t = 0; t < kRows; ++t)
#pragma GCC unroll 8
      for (int v = 0; v < N; ++v) acc[t][v] = P::zero();
    accumulate_outer<P, T, kRows, N>(queries, keys + first * 16 * T::kBytes, kKvPageTokens * T::kBytes, 0, a.head_dim,
                                     acc);
    const V scale = P::set1(a.scale);
#pragma GCC unroll 16
    for (int t = 0; t < kRows; ++t)
#pragma GCC unroll 8
      for (int v = 0; v < N; ++v) P::store(scores[t] + (first + v) * 16, P::mul(acc[t][v], scale));
  }
}

/// Scores to weights exp(s - m') in place; the state's maximum and sum move on. Returns the factor for what is summed.
template <class P>
PARE_INLINE float page_softmax(const State& state, int64_t tokens, float* scores) {
  using V = typename P::V;
  const V nothing = P::set1(-kInfinity);
  V s[kPageVectors], best = nothing;
#pragma GCC unroll 4
  for (int v = 0; v < kPageVectors; ++v) {
    s[v] = P::keep_first(P::load(scores + v * 16), tokens - v * 16, nothing);
    best = P::max(s[v], best);
  }
  const float page = P::fold_max(best), before = *state.maximum;
  const float now = page > before ? page : before;
  V sum = P::zero();
#pragma GCC unroll 4
  for (int v = 0; v < kPageVectors; ++v) {
    const V p = exponential<P>(P::sub(s[v], P::set1(now)));
    P::store(scores + v * 16, p);
    sum = P::add(sum, p);
  }
  alignas(64) float change[16];
  P::store(change, exponential<P>(P::set1(before - now)));
  *state.maximum = now;
  *state.sum = *state.sum * change[0] + P::fold_add(sum);
  return change[0];
}

/// o += p v over tokens [begin, end) of a page, first scaled by `change` if it is given.
template <class P, class T, int kRows, int N>
PARE_INLINE void page_values_columns(const AttendArgs& a, const float* const (&weights)[kRows], const std::byte* values,
                                     int64_t begin, int64_t end, const State (&states)[kRows], const float* change,
                                     int64_t column) {
  using V = typename P::V;
  V acc[kRows][N];
#pragma GCC unroll 16
  for (int t = 0; t < kRows; ++t)
#pragma GCC unroll 8
    for (int v = 0; v < N; ++v) {
      acc[t][v] = P::load(states[t].output + column + v * 16);
      if (change) acc[t][v] = P::mul(acc[t][v], P::set1(change[t]));
    }
  accumulate_outer<P, T, kRows, N>(weights, values + column * T::kBytes, padded_value_dim(a.value_dim) * T::kBytes,
                                   begin, end, acc);
#pragma GCC unroll 16
  for (int t = 0; t < kRows; ++t)
#pragma GCC unroll 8
    for (int v = 0; v < N; ++v) P::store(states[t].output + column + v * 16, acc[t][v]);
}

template <class P, class T, int kRows, int N>
void page_values(const AttendArgs& a, const float* const (&weights)[kRows], const std::byte* values, int64_t begin,
                 int64_t end, const State (&states)[kRows], const float* change) {
  const int64_t columns = padded_value_dim(a.value_dim);
  int64_t column = 0;
  for (; column + N * 16 <= columns; column += N * 16)
    page_values_columns<P, T, kRows, N>(a, weights, values, begin, end, states, change, column);
  for (; column < columns; column += 16)
    page_values_columns<P, T, kRows, 1>(a, weights, values, begin, end, states, change, column);
}

/// Vectors that kRows rows of accumulators leave room for: a power of two up to a page's.
template <class P>
constexpr int vectors_for(int rows) {
  int n = 1;
  while (n * 2 * rows <= P::kAttendVectors && n * 2 <= kPageVectors) n *= 2;
  return n;
}

/// One page for kRows queries that all see some of it; tokens[t] of it.
template <class P, class T, int kRows>
void attend_page(const AttendArgs& a, int64_t query, int64_t page, const int64_t* tokens) {
  constexpr int N = vectors_for<P>(kRows);
  alignas(64) float scores[kRows][kKvPageTokens];
  const float *queries[kRows], *weights[kRows];
  State states[kRows];
  float change[kRows];
  int64_t shared = kKvPageTokens;  // tokens that all of them see
  for (int t = 0; t < kRows; ++t) {
    queries[t] = a.queries[query + t];
    weights[t] = scores[t];
    states[t] = state_of(a, query + t);
    if (tokens[t] < shared) shared = tokens[t];
  }
  page_scores<P, T, kRows, N>(a, queries, a.key_pages[page], scores);
  for (int t = 0; t < kRows; ++t) change[t] = page_softmax<P>(states[t], tokens[t], scores[t]);
  page_values<P, T, kRows, N>(a, weights, a.value_pages[page], 0, shared, states, change);
  // A value that a query does not see must not reach it, not even times zero: it may be infinite, or not there yet.
  for (int t = 0; t < kRows; ++t) {
    if (tokens[t] == shared) continue;
    const float* const one_weight[1] = {weights[t]};
    const State one_state[1] = {states[t]};
    page_values<P, T, 1, vectors_for<P>(1)>(a, one_weight, a.value_pages[page], shared, tokens[t], one_state, nullptr);
  }
}

template <class P, class T, int kRows>
PARE_INLINE void attend_page_of(int count, const AttendArgs& a, int64_t query, int64_t page, const int64_t* tokens) {
  if constexpr (kRows > 1) {
    if (count < kRows) return attend_page_of<P, T, kRows - 1>(count, a, query, page, tokens);
  }
  attend_page<P, T, kRows>(a, query, page, tokens);
}

template <class P, class T>
void attend(const AttendArgs& a) {
  int64_t longest = 0;
  for (int64_t q = 0; q < a.query_count; ++q) {
    const State state = state_of(a, q);
    *state.maximum = -kInfinity;
    *state.sum = 0;
    std::memset(state.output, 0, static_cast<size_t>(padded_value_dim(a.value_dim)) * sizeof(float));
    if (a.visible[q] > longest) longest = a.visible[q];
  }
  for (int64_t page = 0; page * kKvPageTokens < longest; ++page) {
    for (int64_t q = 0; q < a.query_count;) {
      // The longest run of queries that see some of this page, up to a tile.
      int64_t tokens[P::kAttendQueries];
      int count = 0;
      for (; count < P::kAttendQueries && q + count < a.query_count; ++count) {
        const int64_t seen = a.visible[q + count] - page * kKvPageTokens;
        if (seen <= 0) break;
        tokens[count] = seen < kKvPageTokens ? seen : kKvPageTokens;
      }
      if (count == 0) {
        ++q;
        continue;
      }
      attend_page_of<P, T, P::kAttendQueries>(count, a, q, page, tokens);
      q += count;
    }
  }
  for (int64_t q = 0; q < a.query_count; ++q) {
    const State state = state_of(a, q);
    for (int d = 0; d < a.value_dim; ++d) a.outputs[q][d] = state.output[d] / *state.sum;
  }
}

template <class P, class T>
constexpr KvFormat kv_format_of() {
  return {T::kType, T::key_page_bytes, T::value_page_bytes, T::store_key, T::store_value, attend<P, T>};
}

}  // namespace
}  // namespace pare::kernels
