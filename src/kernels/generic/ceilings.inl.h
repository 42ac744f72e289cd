#pragma once
#include "kernels/ceilings.h"
#include "kernels/packing.h"

// The loops that ceilings are measured by: nothing but the instruction in question, enough of it in flight.

namespace pare::kernels {
namespace {

template <class P>
float read_streams(const std::byte* from, int64_t bytes, int streams, int64_t ahead) {
  using V = typename P::V;
  constexpr int64_t kLine = 64;
  V sum[4] = {P::zero(), P::zero(), P::zero(), P::zero()};
  const int64_t part = bytes / streams / (4 * kLine) * (4 * kLine);
  for (int64_t i = 0; i < part; i += 4 * kLine)
    for (int s = 0; s < streams; ++s) {
      const std::byte* p = from + s * part + i;
#pragma GCC unroll 4
      for (int line = 0; line < 4; ++line) {
        if (ahead) __builtin_prefetch(p + ahead + line * kLine);
        sum[line] = P::add(sum[line], P::load(reinterpret_cast<const float*>(p + line * kLine)));
      }
    }
  return P::fold_add(P::add(P::add(sum[0], sum[1]), P::add(sum[2], sum[3])));
}

template <class P, int kChains>
float multiply_add_rounds(int64_t rounds) {
  using V = typename P::V;
  V chain[kChains];
#pragma GCC unroll 16
  for (int c = 0; c < kChains; ++c) chain[c] = P::set1(static_cast<float>(c));
  const V factor = P::set1(0.5f), term = P::set1(0.25f);
  for (int64_t i = 0; i < rounds; ++i)
#pragma GCC unroll 16
    for (int c = 0; c < kChains; ++c) chain[c] = P::fma(chain[c], factor, term);
  V sum = chain[0];
#pragma GCC unroll 16
  for (int c = 1; c < kChains; ++c) sum = P::add(sum, chain[c]);
  return P::fold_add(sum);
}

template <class P, int kChains>
constexpr FloatLoops float_loops() {
  return {read_streams<P>, multiply_add_rounds<P, kChains>, 16 * kChains};
}

/// D: a vector type, set1(int), dot(sum, a, b) of kLanes products, hide(v): makes the compiler forget what v holds, and
/// first(v): a lane.
template <class D, int kChains>
int32_t multiply_rounds(int64_t rounds) {
  using V = typename D::V;
  V chain[kChains], a = D::set1(3), b = D::set1(1);
#pragma GCC unroll 16
  for (int c = 0; c < kChains; ++c) chain[c] = D::set1(c);  // equal ones would be merged
  for (int64_t i = 0; i < rounds; ++i)
#pragma GCC unroll 16
    for (int c = 0; c < kChains; ++c) {
      D::hide(b);
      chain[c] = D::dot(chain[c], a, b);
    }
  uint32_t sum = 0;  // wraps: only that the products are used matters
#pragma GCC unroll 16
  for (int c = 0; c < kChains; ++c) sum += static_cast<uint32_t>(D::first(chain[c]));
  return static_cast<int32_t>(sum);
}

template <class D, int kChains>
constexpr Int8Loops int8_loops() {
  return {multiply_rounds<D, kChains>, kChains * D::kLanes};
}

}  // namespace
}  // namespace pare::kernels
