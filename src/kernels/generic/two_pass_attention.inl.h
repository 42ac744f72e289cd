#pragma once
#include "kernels/generic/attention.inl.h"

// Attention in two passes (see attention.h). For each span and each query of each map:
//   s = scale * (q . k) as in attention.inl.h; m = max(s) over the span; p = exp(s - m); l = sum(p), page by page in 16
//   lanes folded 8-4-2-1;
// then, over the spans a query sees, ascending: M = max(m), e = exp(m - M), L = sum(l * e), and each span's factor
//   f = e / L, of the second map -lambda * (e / L);
// then w = p f of the first map, fused += p f of the second; partial outputs += w v, fused, ascending over the span's
// tokens; and at the end the sum of the partial outputs, ascending. As each query's operations are the same whatever is
// computed beside them, so are its results.

namespace pare::kernels {
namespace {

/// The scratch of one span.
struct TwoPassSpan {
  struct alignas(64) Head {  // of a query
    float maximum[kMostMaps], sum[kMostMaps], factor[kMostMaps];
    float largest;  // absolute value of a weight
    float unused[9];
  };
  static_assert(sizeof(Head) == 64);
  Head* heads;     // [queries]
  float* partial;  // [queries, value_parts * padded value_dim]
  float* scores;   // [kSpanPages, maps, queries, kKvPageTokens]; weights in place of the first map's
  const TwoPassArgs& args;

  PARE_INLINE TwoPassSpan(const TwoPassArgs& a, int64_t span) : args(a) {
    float* at = a.scratch + span * two_pass_span_floats(a.maps, a.value_parts, a.value_dim, a.query_count);
    heads = reinterpret_cast<Head*>(at);
    partial = at + a.query_count * (sizeof(Head) / sizeof(float));
    scores = partial + a.query_count * a.value_parts * padded_value_dim(a.value_dim);
  }
  PARE_INLINE float* page_scores(int64_t page, int map, int64_t query) const {
    return scores + ((page * args.maps + map) * args.query_count + query) * kKvPageTokens;
  }
  PARE_INLINE float* output(int64_t query, int part) const {
    return partial + (query * args.value_parts + part) * padded_value_dim(args.value_dim);
  }
};

/// Tokens of a span that a query sees.
PARE_INLINE int64_t seen_of_span(const TwoPassArgs& a, int64_t span, int64_t query) {
  const int64_t seen = a.visible[query] - span * kKvSpanTokens;
  return seen < 0 ? 0 : seen < kKvSpanTokens ? seen : kKvSpanTokens;
}

/// Calls work(page of the span, page, next page) for pages of a span that some query sees.
template <class Work>
PARE_INLINE void for_pages(const TwoPassArgs& a, int64_t span, Work work) {
  const int64_t pages = (longest_visible(a) + kKvPageTokens - 1) / kKvPageTokens;
  for (int64_t i = 0; i < kSpanPages && span * kSpanPages + i < pages; ++i) {
    const int64_t page = span * kSpanPages + i;
    work(i, page, page + 1 < pages ? page + 1 : page);
  }
}

/// Scores of one query's tokens [0, seen) of a span to exp(s - maximum), with 0 for the rest of the last page.
template <class P>
__attribute__((noinline)) void span_exponentials(const TwoPassSpan& s, int map, int64_t query, int64_t seen) {
  using V = typename P::V;
  const V nothing = P::set1(-kInfinity);
  V best = nothing;
  for (int64_t at = 0; at < seen; at += 16) {
    float* score = s.page_scores(at / kKvPageTokens, map, query) + at % kKvPageTokens;
    best = P::max(P::keep_first(P::load(score), seen - at, nothing), best);
  }
  const float maximum = P::fold_max(best);
  float sum = 0;
  for (int64_t page = 0; page * kKvPageTokens < seen; ++page) {
    float* score = s.page_scores(page, map, query);
    V lanes = P::zero();
#pragma GCC unroll 4
    for (int v = 0; v < kPageVectors; ++v) {
      const V x = P::keep_first(P::load(score + v * 16), seen - page * kKvPageTokens - v * 16, nothing);
      const V p = exponential<P>(P::sub(x, P::set1(maximum)));
      P::store(score + v * 16, p);
      lanes = P::add(lanes, p);
    }
    sum += P::fold_add(lanes);
  }
  s.heads[query].maximum[map] = maximum;
  s.heads[query].sum[map] = sum;
}

template <class P, class T>
void two_pass_scores(const TwoPassArgs& a, int64_t span) {
  const TwoPassSpan s(a, span);
  for_pages(a, span, [&](int64_t i, int64_t page, int64_t next) {
    for_runs_seeing<P>(page, a.query_count, a.visible, [&](int64_t query, auto rows, const int64_t*) {
      constexpr int kRows = decltype(rows)::value;
      for (int map = 0; map < a.maps; ++map) {
        const float* queries[kRows];
        for (int t = 0; t < kRows; ++t) queries[t] = a.queries[map][query + t];
        auto* to = reinterpret_cast<float(*)[kKvPageTokens]>(s.page_scores(i, map, query));
        const PageHalf keys{a.key_pages[map][page], a.key_pages[map][next]};
        page_scores<P, T, kRows, vectors_for<P>(kRows)>(a.head_dim, a.scale, queries, keys, to);
      }
    });
  });
  for (int64_t q = 0; q < a.query_count; ++q) {
    const int64_t seen = seen_of_span(a, span, q);
    for (int map = 0; seen > 0 && map < a.maps; ++map) span_exponentials<P>(s, map, q, seen);
  }
}

/// Factors of one query's spans.
template <class P>
PARE_INLINE void normalise_map(const TwoPassArgs& a, int64_t query, int map) {
  const int64_t spans = kv_spans(a.visible[query]);
  const auto head = [&](int64_t span) -> TwoPassSpan::Head& { return TwoPassSpan(a, span).heads[query]; };
  float maximum = -kInfinity, sum = 0;
  for (int64_t i = 0; i < spans; ++i) maximum = head(i).maximum[map] > maximum ? head(i).maximum[map] : maximum;
  for (int64_t first = 0; first < spans; first += 16) {
    alignas(64) float less[16] = {};
    const int64_t count = spans - first < 16 ? spans - first : 16;
    for (int64_t i = 0; i < count; ++i) less[i] = head(first + i).maximum[map] - maximum;
    P::store(less, exponential<P>(P::load(less)));
    for (int64_t i = 0; i < count; ++i) {
      head(first + i).factor[map] = less[i];
      sum += head(first + i).sum[map] * less[i];
    }
  }
  for (int64_t i = 0; i < spans; ++i) {
    const float share = head(i).factor[map] / sum;
    head(i).factor[map] = map == 0 ? share : -(a.lambda[query] * share);
  }
}

template <class P>
void two_pass_normalise(const TwoPassArgs& a) {
  for (int64_t q = 0; q < a.query_count; ++q)
    for (int map = 0; map < a.maps; ++map) normalise_map<P>(a, q, map);
}

/// Weights of one query in place of the first map's exponentials, and the largest.
template <class P, int kMaps>
__attribute__((noinline)) void span_weights(const TwoPassSpan& s, int64_t query, int64_t seen) {
  using V = typename P::V;
  TwoPassSpan::Head& head = s.heads[query];
  const V first = P::set1(head.factor[0]), second = P::set1(head.factor[kMaps - 1]);
  V largest = P::zero();
  for (int64_t page = 0; page * kKvPageTokens < seen; ++page) {
    float* to = s.page_scores(page, 0, query);
    const float* other = s.page_scores(page, kMaps - 1, query);
#pragma GCC unroll 4
    for (int v = 0; v < kPageVectors; ++v) {
      V w = P::mul(P::load(to + v * 16), first);
      if constexpr (kMaps == 2) w = P::fma(P::load(other + v * 16), second, w);
      P::store(to + v * 16, w);
      largest = P::max(P::max(w, P::sub(P::zero(), w)), largest);
    }
  }
  head.largest = P::fold_max(largest);
}

template <class P>
void two_pass_weights(const TwoPassArgs& a, int64_t span) {
  const TwoPassSpan s(a, span);
  for (int64_t q = 0; q < a.query_count; ++q) {
    const int64_t seen = seen_of_span(a, span, q);
    if (seen == 0) continue;
    a.maps == 2 ? span_weights<P, 2>(s, q, seen) : span_weights<P, 1>(s, q, seen);
  }
}

/// Tokens of a page whose weights count, ascending, beside their weights.
struct KeptTokens {
  int count = 0;
  int32_t token[kKvPageTokens];
  alignas(64) float weight[kKvPageTokens];
};

/// o += w v over the kept tokens of a page, N vectors of columns at a time.
template <class P, class T, int N>
PARE_INLINE void kept_values_columns(int value_dim, const KeptTokens& kept, PageHalf values, float* output,
                                     int64_t column) {
  using V = typename P::V;
  const int64_t row_bytes = padded_value_dim(value_dim) * T::kBytes;
  const std::byte* at = values.at + column * T::kBytes;
  if constexpr (T::kBlock != 0) at += T::scales_bytes(value_dim);
  for (int i = 0; i < kept.count; ++i)
    for (int64_t b = 0; b < N * 16 * T::kBytes; b += 64)
      __builtin_prefetch(at + kept.token[i] * row_bytes + b, 0, kFirstLevel);
  V acc[N];
#pragma GCC unroll 8
  for (int v = 0; v < N; ++v) acc[v] = P::load(output + column + v * 16);
  constexpr int kShared = T::kBlock == 0 || N < T::kBlock / 16 ? N : T::kBlock / 16;  // vectors of one scale
  alignas(64) float scaled[N / kShared][kKvPageTokens];
  if constexpr (T::kBlock != 0) {
    for (int block = 0; block < N / kShared; ++block) {
      alignas(64) float scales[kKvPageTokens];
      const std::byte* from = values.at + (column / T::kBlock + block) * T::kScaleRow;
      for (int i = 0; i < kKvPageTokens; i += 16) P::store(scales + i, P::load_f16(from + i * T::kScaleBytes));
      for (int i = 0; i < kept.count; ++i) scaled[block][i] = kept.weight[i] * scales[kept.token[i]];
    }
  }
  for (int i = 0; i < kept.count; ++i) {
    const std::byte* row = at + kept.token[i] * row_bytes;
#pragma GCC unroll 8
    for (int v = 0; v < N; ++v) {
      const float weight = T::kBlock == 0 ? kept.weight[i] : scaled[v / kShared][i];
      acc[v] = P::fma(P::set1(weight), T::template load<P>(row + v * 16 * T::kBytes), acc[v]);
    }
  }
#pragma GCC unroll 8
  for (int v = 0; v < N; ++v) P::store(output + column + v * 16, acc[v]);
}

template <class P, class T>
__attribute__((noinline)) void kept_values(int value_dim, const KeptTokens& kept, PageHalf values, float* output) {
  constexpr int N = vectors_for<P>(1);
  const int64_t columns = padded_value_dim(value_dim);
  int64_t column = 0;
  for (; column + N * 16 <= columns; column += N * 16)
    kept_values_columns<P, T, N>(value_dim, kept, values, output, column);
  for (; column < columns; column += 16) kept_values_columns<P, T, 1>(value_dim, kept, values, output, column);
}

/// Tokens [0, seen) of a page whose weights are not below the limit.
template <class P>
PARE_INLINE void keep_tokens(const float* weights, int64_t seen, float limit, KeptTokens& kept) {
  using V = typename P::V;
  kept.count = 0;
  for (int first = 0; first < kKvPageTokens && first < seen; first += 16) {
    const V w = P::load(weights + first);
    uint32_t bits = P::not_below(P::max(w, P::sub(P::zero(), w)), P::set1(limit));
    if (seen - first < 16) bits &= (1u << (seen - first)) - 1;
    for (; bits != 0; bits &= bits - 1) {
      const int token = first + __builtin_ctz(bits);
      kept.token[kept.count] = token;
      kept.weight[kept.count++] = weights[token];
    }
  }
}

/// Values of a span with what is below the threshold left out, query by query: what one leaves out another may read.
template <class P, class T>
void sparse_values(const TwoPassArgs& a, int64_t span) {
  const TwoPassSpan s(a, span);
  int64_t read = 0;
  for (int64_t q = 0; q < a.query_count; ++q) {
    float largest = 0;
    for (int64_t i = 0; i < kv_spans(a.visible[q]); ++i) {
      const float of_span = TwoPassSpan(a, i).heads[q].largest;
      largest = of_span > largest ? of_span : largest;
    }
    for_pages(a, span, [&](int64_t i, int64_t page, int64_t next) {
      KeptTokens kept;
      keep_tokens<P>(s.page_scores(i, 0, q), a.visible[q] - page * kKvPageTokens, a.threshold * largest, kept);
      read += kept.count;
      for (int part = 0; kept.count > 0 && part < a.value_parts; ++part) {
        const PageHalf values{a.value_pages[part][page], a.value_pages[part][next]};
        kept_values<P, T>(a.value_dim, kept, values, s.output(q, part));
      }
    });
  }
  *a.read += read;
}

template <class P, class T>
void dense_values(const TwoPassArgs& a, int64_t span) {
  const TwoPassSpan s(a, span);
  for_pages(a, span, [&](int64_t i, int64_t page, int64_t next) {
    for_runs_seeing<P>(page, a.query_count, a.visible, [&](int64_t query, auto rows, const int64_t* tokens) {
      constexpr int kRows = decltype(rows)::value;
      const float* weights[kRows];
      for (int t = 0; t < kRows; ++t) weights[t] = s.page_scores(i, 0, query + t);
      for (int part = 0; part < a.value_parts; ++part) {
        float* outputs[kRows];
        for (int t = 0; t < kRows; ++t) outputs[t] = s.output(query + t, part);
        const PageHalf values{a.value_pages[part][page], a.value_pages[part][next]};
        page_values_seen<P, T, kRows>(a.value_dim, weights, values, tokens, outputs, nullptr);
      }
    });
  });
}

template <class P, class T>
void two_pass_values(const TwoPassArgs& a, int64_t span) {
  const int64_t floats = a.query_count * a.value_parts * padded_value_dim(a.value_dim);
  std::memset(TwoPassSpan(a, span).partial, 0, static_cast<size_t>(floats) * sizeof(float));
  a.threshold > 0 ? sparse_values<P, T>(a, span) : dense_values<P, T>(a, span);
}

inline void two_pass_outputs(const TwoPassArgs& a) {
  for (int64_t q = 0; q < a.query_count; ++q)
    for (int part = 0; part < a.value_parts; ++part) {
      float* to = a.outputs[q] + int64_t{part} * a.value_dim;
      std::memcpy(to, TwoPassSpan(a, 0).output(q, part), static_cast<size_t>(a.value_dim) * sizeof(float));
      for (int64_t span = 1; span < kv_spans(a.visible[q]); ++span) {
        const float* from = TwoPassSpan(a, span).output(q, part);
        for (int d = 0; d < a.value_dim; ++d) to[d] += from[d];
      }
    }
}

template <class P, class T>
constexpr KvFormat kv_format_of() {
  return {T::kType,
          T::key_page_bytes,
          T::value_page_bytes,
          T::store_key,
          T::store_value,
          attend<P, T>,
          attend_span<P, T>,
          merge_spans<P>,
          {two_pass_scores<P, T>, two_pass_normalise<P>, two_pass_weights<P>, two_pass_values<P, T>, two_pass_outputs}};
}

}  // namespace
}  // namespace pare::kernels
