#include "kernels/avx2/primitives.h"
// The primitives come first.
#include "kernels/generic/ceilings.inl.h"
#include "kernels/tables.h"

namespace pare::kernels {
namespace {

/// What stands for a dot product without VNNI, as far as every product takes it: sums of small codes need widening so
/// rarely that it does not count.
struct Avx2Dot {
  using V = __m256i;
  static constexpr int kLanes = 32;
  static PARE_INLINE V set1(int x) { return _mm256_set1_epi8(static_cast<char>(x)); }
  static PARE_INLINE V dot(V sum, V a, V b) { return _mm256_add_epi16(sum, _mm256_maddubs_epi16(a, b)); }
  static PARE_INLINE void hide(V& v) { asm volatile("" : "+x"(v)); }
  static PARE_INLINE int32_t first(V v) { return _mm_cvtsi128_si32(_mm256_castsi256_si128(v)); }
};

}  // namespace

namespace avx2 {
constinit const FloatLoops kFloatLoops = float_loops<Avx2, 6>();
constinit const Int8Loops kInt8Loops = int8_loops<Avx2Dot, 8>();
}  // namespace avx2

}  // namespace pare::kernels
