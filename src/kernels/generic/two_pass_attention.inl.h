#pragma once
#include "kernels/generic/attention.inl.h"

// Attention in two passes (see attention.h). For each span and each query of each map:
//   s = scale * (q . k) as in attention.inl.h; m = max(s) over the span; p = exp(s - m); l = sum(p), page by page in 16
//   lanes folded 8-4-2-1;
// then, over the spans a query sees, ascending: M = max(m), e = exp(m - M), L = sum(l * e), and each span's factor
//   f = e / L, of the second map -lambda * (e / L);
// then w = p f of the first map, fused += p f of the second; partial outputs += w v, fused, ascending over the span's
// tokens, with a threshold page by page, and after each page that the query sees whole += r u, fused, where r sums the
// weights left out in 16 lanes folded 8-4-2-1 and u is the mean of the page's values; and at the end the sum of the
// partial outputs, ascending. As each query's operations are the same whatever is computed beside them, so are its
// results.

namespace pare::kernels {
namespace {

/// The scratch of one span.
struct TwoPassSpan {
  struct alignas(64) Head {  // of a query
    float maximum[kMostMaps], sum[kMostMaps], factor[kMostMaps];
    float largest;     // absolute value of a weight
    float limit;       // absolute values of weights below it are left out
    uint64_t kept[2];  // tokens of a page and of the one after it: bit t stands for token t
    float unused[4];
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
    for_runs_seeing<P>(page, a.query_count, a.visible, [&](int64_t query, auto rows, const int64_t* tokens) {
      constexpr int kRows = decltype(rows)::value;
      for (int map = 0; map < a.maps; ++map) {
        const float* queries[kRows];
        for (int t = 0; t < kRows; ++t) queries[t] = a.queries[map][query + t];
        auto* to = reinterpret_cast<float(*)[kKvPageTokens]>(s.page_scores(i, map, query));
        const bool last = map + 1 == a.maps;
        const std::byte* after = last ? a.key_pages[0][next] : a.key_pages[map + 1][page];
        const PageHalf keys{a.key_pages[map][page], after, a.head_dim};
        page_scores<P, T, kRows, vectors_for<P>(kRows)>(a.head_dim, a.scale, queries, keys, most_seen<kRows>(tokens),
                                                        to);
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

static_assert(kKvPageTokens == 64, "a word has a bit for each token of a page");

/// Calls work(token) for each bit of a page's tokens, ascending.
template <class Work>
PARE_INLINE void for_tokens_of(uint64_t tokens, Work work) {
  for (; tokens != 0; tokens &= tokens - 1) work(__builtin_ctzll(tokens));
}

/// o += w v over the kept tokens of a page, N vectors of columns at a time.
template <class P, class T, int N>
PARE_INLINE void kept_values_columns(int value_dim, const float* weights, uint64_t kept, const std::byte* page,
                                     float* output, int64_t column) {
  using V = typename P::V;
  const int64_t row_bytes = padded_value_dim(value_dim) * T::kBytes;
  constexpr int kShared = T::kBlock == 0 || N < T::kBlock / 16 ? N : T::kBlock / 16;  // vectors of one scale
  const float* left = weights;
  const std::byte* right = page + column * T::kBytes;
  alignas(64) float scaled[N / kShared * kKvPageTokens];
  if constexpr (T::kBlock != 0) {
    const std::byte* scales = page + column / T::kBlock * T::kScaleRow;
    for (int i = 0; i < N / kShared * kKvPageTokens; i += 16) {
      const V scale = P::load_f16(scales + i * T::kScaleBytes);
      P::store(scaled + i, P::mul(P::load(weights + i % kKvPageTokens), scale));
    }
    left = scaled;
    right += T::scales_bytes(value_dim);
  }
  V acc[N];
#pragma GCC unroll 8
  for (int v = 0; v < N; ++v) acc[v] = P::load(output + column + v * 16);
  for_tokens_of(kept, [&](int token) {
    const std::byte* row = right + token * row_bytes;
#pragma GCC unroll 8
    for (int v = 0; v < N; ++v) {
      const V weight = P::set1(left[token + v / kShared * kKvPageTokens]);
      acc[v] = P::fma(weight, T::template load<P>(row + v * 16 * T::kBytes), acc[v]);
    }
  });
#pragma GCC unroll 8
  for (int v = 0; v < N; ++v) P::store(output + column + v * 16, acc[v]);
}

template <class P, class T>
__attribute__((noinline)) void kept_values(int value_dim, const float* weights, uint64_t kept, const std::byte* page,
                                           float* output) {
  constexpr int N = vectors_for<P>(1);
  const int64_t columns = padded_value_dim(value_dim);
  int64_t column = 0;
  for (; column + N * 16 <= columns; column += N * 16)
    kept_values_columns<P, T, N>(value_dim, weights, kept, page, output, column);
  for (; column < columns; column += 16) kept_values_columns<P, T, 1>(value_dim, weights, kept, page, output, column);
}

/// Asks for rows of a page of values, and for the scales of all.
template <class T>
PARE_INLINE void ask_for_values(int value_dim, const std::byte* page, uint64_t tokens) {
  const int64_t row_bytes = padded_value_dim(value_dim) * T::kBytes;
  for_tokens_of(tokens, [&](int token) {
    const std::byte* row = page + token * row_bytes;
    if constexpr (T::kBlock != 0) row += T::scales_bytes(value_dim);
    for (int64_t b = 0; b < row_bytes; b += 64) __builtin_prefetch(row + b, 0, kFirstLevel);
  });
}

/// Tokens of a page, of which a query sees `seen`, whose values it reads: where it sees all, those whose weights are
/// not below the limit.
template <class P>
PARE_INLINE uint64_t kept_tokens(const float* weights, int64_t seen, float limit) {
  using V = typename P::V;
  if (seen < kKvPageTokens) return (uint64_t{1} << seen) - 1;
  uint64_t kept = 0;
#pragma GCC unroll 4
  for (int first = 0; first < kKvPageTokens; first += 16) {
    const V w = P::load(weights + first);
    kept |= uint64_t{P::not_below(P::max(w, P::sub(P::zero(), w)), P::set1(limit))} << first;
  }
  return kept;
}

/// What each query keeps of a page, in kept[which] of its head in the span; the union of all.
template <class P>
PARE_INLINE uint64_t keep_tokens(const TwoPassSpan& s, int64_t page, int which) {
  const TwoPassArgs& a = s.args;
  const TwoPassSpan of_page(a, page / kSpanPages);
  uint64_t all = 0;
  for (int64_t q = 0; q < a.query_count; ++q) {
    const int64_t seen = a.visible[q] - page * kKvPageTokens;
    const float* weights = of_page.page_scores(page % kSpanPages, 0, q);
    const uint64_t kept = seen <= 0 ? 0 : kept_tokens<P>(weights, seen, s.heads[q].limit);
    s.heads[q].kept[which] = kept;
    all |= kept;
  }
  return all;
}

/// o += (sum of a page's weights below the limit) * (mean of its values).
template <class P>
__attribute__((noinline)) void add_mean(int value_dim, const float* weights, float limit, const float* mean,
                                        float* output) {
  using V = typename P::V;
  V left_out = P::zero();
#pragma GCC unroll 4
  for (int first = 0; first < kKvPageTokens; first += 16) {
    const V w = P::load(weights + first);
    left_out = P::add(left_out, P::where_below(w, P::max(w, P::sub(P::zero(), w)), P::set1(limit)));
  }
  const V weight = P::set1(P::fold_add(left_out));
  for (int64_t d = 0; d < padded_value_dim(value_dim); d += 16)
    P::store(output + d, P::fma(weight, P::load(mean + d), P::load(output + d)));
}

template <class P, class T>
void value_mean(const std::byte* page, int value_dim, float* mean) {
  alignas(64) float share[kKvPageTokens];
  for (float& w : share) w = 1.0f / kKvPageTokens;
  std::memset(mean, 0, static_cast<size_t>(padded_value_dim(value_dim)) * sizeof(float));
  kept_values<P, T>(value_dim, share, ~uint64_t{0}, page, mean);
}

/// Values of a span; in place of those below the threshold their pages' means. Query by query: what one leaves out
/// another may read.
/// While a page is computed with, memory is asked for what any query keeps of the next, a share with each query's work:
/// rows that lie here and there are not foreseen by hardware, and too many requests at once would make work wait.
template <class P, class T>
void sparse_values(const TwoPassArgs& a, int64_t span) {
  const TwoPassSpan s(a, span);
  for (int64_t q = 0; q < a.query_count; ++q) {
    float largest = 0;
    for (int64_t i = 0; i < kv_spans(a.visible[q]); ++i) {
      const float of_span = TwoPassSpan(a, i).heads[q].largest;
      largest = of_span > largest ? of_span : largest;
    }
    s.heads[q].limit = a.threshold * largest;
  }
  int64_t read = 0;
  const auto ask_for_page = [&](int64_t page, uint64_t tokens) {
    for (int part = 0; part < a.value_parts; ++part) ask_for_values<T>(a.value_dim, a.value_pages[part][page], tokens);
  };
  for_pages(a, span, [&](int64_t i, int64_t page, int64_t next) {
    const int now = static_cast<int>(i % 2);
    if (i == 0) ask_for_page(page, keep_tokens<P>(s, page, now));
    uint64_t coming = next > page ? keep_tokens<P>(s, next, 1 - now) : 0;
    const int64_t share = (__builtin_popcountll(coming) + a.query_count - 1) / a.query_count;
    for (int64_t q = 0; q < a.query_count; ++q) {
      uint64_t rest = coming;
      for (int64_t n = 0; n < share; ++n) rest &= rest - 1;
      ask_for_page(next, coming & ~rest);
      coming = rest;
      const uint64_t kept = s.heads[q].kept[now];
      read += __builtin_popcountll(kept);
      const bool whole = a.visible[q] - page * kKvPageTokens >= kKvPageTokens;
      for (int part = 0; part < a.value_parts; ++part) {
        const float* weights = s.page_scores(i, 0, q);
        if (kept != 0) kept_values<P, T>(a.value_dim, weights, kept, a.value_pages[part][page], s.output(q, part));
        if (!whole || kept == ~uint64_t{0}) continue;
        const float* mean = a.value_means[part] + page * padded_value_dim(a.value_dim);
        add_mean<P>(a.value_dim, weights, s.heads[q].limit, mean, s.output(q, part));
      }
    }
  });
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
        const bool last = part + 1 == a.value_parts;
        const std::byte* after = last ? a.value_pages[0][next] : a.value_pages[part + 1][page];
        const PageHalf values{a.value_pages[part][page], after, kKvPageTokens};
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
          T::template kStoreKey<P>,
          T::template kStoreValue<P>,
          value_mean<P, T>,
          attend<P, T>,
          attend_span<P, T>,
          merge_spans<P>,
          {two_pass_scores<P, T>, two_pass_normalise<P>, two_pass_weights<P>, two_pass_values<P, T>, two_pass_outputs}};
}

}  // namespace
}  // namespace pare::kernels
