#pragma once
#include <cstring>

#include "kernels/packing.h"

// Functions of 16 lanes in a fixed sequence of operations: the same bits on every instruction set.

namespace pare::kernels {
namespace {

constexpr float kInfinity = __builtin_inff();

/// The first n of 16 values, zeros after them.
template <class P>
PARE_INLINE typename P::V load_first(const float* p, int64_t n) {
  alignas(64) float padded[16] = {};
  std::memcpy(padded, p, static_cast<size_t>(n) * 4);
  return P::load(padded);
}

template <class P>
PARE_INLINE void store_first(float* p, const typename P::V& v, int64_t n) {
  alignas(64) float padded[16];
  P::store(padded, v);
  std::memcpy(p, padded, static_cast<size_t>(n) * 4);
}

/// e^x within 2 ulp: 0 from -104 down (-infinity included), infinity from 88.73 up, NaN for NaN.
///
/// x = n ln 2 + r, |r| <= ln 2 / 2, with ln 2 in two parts, the first short enough that n times it is exact; e^r by its
/// Taylor series to r^7, whose remainder (ln2 / 2)^8 / 8! = 5e-9 stays below half an ulp of e^r >= 0.707 (3e-8).
template <class P>
PARE_INLINE typename P::V exponential(typename P::V x) {
  using V = typename P::V;
  x = P::max(P::set1(-104.0f), x);
  x = P::min(P::set1(89.0f), x);
  const V shift = P::set1(0x1.8p23f);
  const V t = P::fma(x, P::set1(0x1.715476p0f), shift);  // n in the low bits, rounded to nearest
  const V n = P::sub(t, shift);
  V r = P::fma(n, P::set1(-0x1.62e400p-1f), x);
  r = P::fma(n, P::set1(-0x1.7f7d1cp-20f), r);
  V p = P::set1(1.0f / 5040);
  p = P::fma(p, r, P::set1(1.0f / 720));
  p = P::fma(p, r, P::set1(1.0f / 120));
  p = P::fma(p, r, P::set1(1.0f / 24));
  p = P::fma(p, r, P::set1(1.0f / 6));
  p = P::fma(p, r, P::set1(0.5f));
  p = P::fma(p, r, P::set1(1.0f));
  p = P::fma(p, r, P::set1(1.0f));
  return P::scale_exponent(p, t);
}

}  // namespace
}  // namespace pare::kernels
