#include "kernels/avx2/primitives.h"
// The primitives come first.
#include "kernels/generic/ceilings.inl.h"
#include "kernels/tables.h"

namespace pare::kernels {
namespace {

struct AvxVnniDot {
  using V = __m256i;
  static constexpr int kLanes = 32;
  static PARE_INLINE V set1(int x) { return _mm256_set1_epi8(static_cast<char>(x)); }
  static PARE_INLINE V dot(V sum, V a, V b) { return _mm256_dpbusd_avx_epi32(sum, a, b); }
  static PARE_INLINE void hide(V& v) { asm volatile("" : "+x"(v)); }
  static PARE_INLINE int32_t first(V v) { return _mm_cvtsi128_si32(_mm256_castsi256_si128(v)); }
};

}  // namespace

namespace avxvnni {
// g++ keeps 12 chains in memory.
constinit const Int8Loops kInt8Loops = int8_loops<AvxVnniDot, 10>();
}  // namespace avxvnni

}  // namespace pare::kernels
