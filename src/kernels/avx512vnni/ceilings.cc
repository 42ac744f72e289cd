#include "kernels/avx512vnni/primitives.h"
// The primitives come first.
#include "kernels/generic/ceilings.inl.h"
#include "kernels/tables.h"

namespace pare::kernels {
namespace {

struct VnniDot {
  using V = __m512i;
  static constexpr int kLanes = 64;
  static PARE_INLINE V set1(int x) { return _mm512_set1_epi8(static_cast<char>(x)); }
  static PARE_INLINE V dot(V sum, V a, V b) { return _mm512_dpbusd_epi32(sum, a, b); }
  static PARE_INLINE void hide(V& v) { asm volatile("" : "+v"(v)); }
  static PARE_INLINE int32_t first(V v) { return _mm_cvtsi128_si32(_mm512_castsi512_si128(v)); }
};

}  // namespace

namespace avx512vnni {
constinit const Int8Loops kInt8Loops = int8_loops<VnniDot, 16>();
}

}  // namespace pare::kernels
