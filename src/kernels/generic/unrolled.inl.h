#pragma once
#include <utility>

namespace pare::kernels {
namespace {

template <class F, int... kIndex>
__attribute__((always_inline)) inline void unrolled(F f, std::integer_sequence<int, kIndex...>) {
  (f(std::integral_constant<int, kIndex>()), ...);
}
/// f(0), f(1), ... as compile-time constants.
template <int kCount, class F>
__attribute__((always_inline)) inline void unrolled(F f) {
  unrolled(f, std::make_integer_sequence<int, kCount>());
}

}  // namespace
}  // namespace pare::kernels
