#pragma once
#include "kernels/elementwise.h"
#include "kernels/generic/math.inl.h"
#include "kernels/packing.h"

// The small operations. Sums run in 16 lanes (lane i mod 16, ascending) folded 8-4-2-1. Products and
// sums are rounded one by one unless a fused multiply-add is written.

namespace pare::kernels {
namespace {

/// 1 / sqrt(mean(x^2) + eps)
template <class P>
PARE_INLINE float rms_inverse(const float* x, float eps, int64_t n) {
  using V = typename P::V;
  V squares = P::zero();
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const V v = P::load(x + i);
    squares = P::fma(v, v, squares);
  }
  if (i < n) {
    const V v = load_first<P>(x + i, n - i);
    squares = P::fma(v, v, squares);
  }
  const float mean = P::fold_add(squares) / static_cast<float>(n);
  return 1.0f / __builtin_sqrtf(mean + eps);
}

template <class P>
void rms_norm(const float* x, const float* gain, float eps, float* out, int64_t n) {
  const float inverse = rms_inverse<P>(x, eps, n);
  const typename P::V factor = P::set1(inverse);
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) P::store(out + i, P::mul(P::mul(P::load(x + i), factor), P::load(gain + i)));
  for (; i < n; ++i) out[i] = x[i] * inverse * gain[i];
}

template <class P>
void add(float* x, const float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] += y[i];
}

template <class P>
PARE_INLINE typename P::V silu(const typename P::V& gate, const typename P::V& up) {
  const auto e = exponential<P>(P::sub(P::zero(), gate));
  return P::mul(P::div(gate, P::add(P::set1(1.0f), e)), up);
}

template <class P>
void silu_multiply(const float* gate, const float* up, float* out, int64_t n) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) P::store(out + i, silu<P>(P::load(gate + i), P::load(up + i)));
  if (i < n) store_first<P>(out + i, silu<P>(load_first<P>(gate + i, n - i), load_first<P>(up + i, n - i)), n - i);
}

template <class P>
void relu_squared_multiply(const float* gate, const float* up, float* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const float positive = gate[i] < 0.0f ? 0.0f : gate[i];
    out[i] = positive * positive * up[i];
  }
}

/// Rotates pairs of components `other` apart, the first of each pair `step` apart.
PARE_INLINE void rotate(float* v, int64_t first, int64_t pairs, int step, int64_t other, const float* cos,
                        const float* sin) {
  for (int64_t i = first; i < pairs; ++i) {
    const float a = v[step * i], b = v[step * i + other];
    v[step * i] = a * cos[i] - b * sin[i];
    v[step * i + other] = b * cos[i] + a * sin[i];
  }
}

template <class P>
void rope(float* x, int heads, int head_dim, int dims, const float* cos, const float* sin, RopeLayout layout) {
  using V = typename P::V;
  const int64_t pairs = dims / 2;
  for (int h = 0; h < heads; ++h) {
    float* v = x + static_cast<int64_t>(h) * head_dim;
    if (layout == RopeLayout::kInterleaved) {
      rotate(v, 0, pairs, 2, 1, cos, sin);
      continue;
    }
    int64_t i = 0;
    for (; i + 16 <= pairs; i += 16) {
      const V a = P::load(v + i), b = P::load(v + pairs + i), c = P::load(cos + i), s = P::load(sin + i);
      P::store(v + i, P::sub(P::mul(a, c), P::mul(b, s)));
      P::store(v + pairs + i, P::add(P::mul(b, c), P::mul(a, s)));
    }
    rotate(v, i, pairs, 1, pairs, cos, sin);
  }
}

/// Largest value that is not NaN, -infinity if there is none.
template <class P>
float largest(const float* x, int64_t n) {
  using V = typename P::V;
  V best = P::set1(-kInfinity);
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) best = P::max(P::load(x + i), best);
  if (i < n) best = P::max(P::keep_first(load_first<P>(x + i, n - i), n - i, best), best);
  return P::fold_max(best);
}

/// Sum of exp(x - shift); stores them too if out is given.
template <class P, bool kStore>
PARE_INLINE float sum_exp(const float* x, float shift, float* out, int64_t n) {
  using V = typename P::V;
  const V minus = P::set1(shift);
  V sum = P::zero();
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const V e = exponential<P>(P::sub(P::load(x + i), minus));
    if constexpr (kStore) P::store(out + i, e);
    sum = P::add(sum, e);
  }
  if (i < n) {
    const V e = exponential<P>(P::sub(load_first<P>(x + i, n - i), minus));
    if constexpr (kStore) store_first<P>(out + i, e, n - i);
    sum = P::add(sum, P::keep_first(e, n - i, P::zero()));
  }
  return P::fold_add(sum);
}

template <class P>
float log_sum_exp(const float* x, int64_t n) {
  float shift = largest<P>(x, n);
  // Only infinities and NaN: exp of them as they are gives the limit.
  if (shift == kInfinity || shift == -kInfinity) shift = 0;
  return shift + static_cast<float>(portable_log(static_cast<double>(sum_exp<P, false>(x, shift, nullptr, n))));
}

template <class P>
float exp_shifted(const float* x, float shift, float* out, int64_t n) {
  return sum_exp<P, true>(x, shift, out, n);
}

template <class P>
int64_t argmax(const float* x, int64_t n) {
  const float best = largest<P>(x, n);
  for (int64_t i = 0; i < n; ++i)
    if (x[i] == best) return i;
  return 0;
}

template <class P>
constexpr Elementwise elementwise_table() {
  return {rms_norm<P>, add<P>,         silu_multiply<P>, relu_squared_multiply<P>,
          rope<P>,     log_sum_exp<P>, exp_shifted<P>,   argmax<P>};
}

}  // namespace
}  // namespace pare::kernels
