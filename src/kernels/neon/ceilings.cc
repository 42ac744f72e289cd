#include "kernels/neon/primitives.h"
// The primitives come first.
#include "kernels/generic/ceilings.inl.h"
#include "kernels/tables.h"

namespace pare::kernels {
namespace {

/// What stands for a dot product without sdot, as far as every product takes it: sums of small codes need widening so
/// rarely that it does not count.
struct NeonPairs {
  using V = int32x4_t;
  static constexpr int kLanes = 16;
  static PARE_INLINE V set1(int x) { return vreinterpretq_s32_s8(vdupq_n_s8(static_cast<int8_t>(x))); }
  static PARE_INLINE V dot(V sum, V a, V b) {
    const int8x16_t c = vreinterpretq_s8_s32(a), d = vreinterpretq_s8_s32(b);
    const int16x8_t low = vmlal_s8(vreinterpretq_s16_s32(sum), vget_low_s8(c), vget_low_s8(d));
    return vreinterpretq_s32_s16(vmlal_high_s8(low, c, d));
  }
  static PARE_INLINE void hide(V& v) { asm volatile("" : "+w"(v)); }
  static PARE_INLINE int32_t first(V v) { return vgetq_lane_s32(v, 0); }
};

}  // namespace

namespace neon {
constinit const FloatLoops kFloatLoops = float_loops<Neon, 6>();
constinit const Int8Loops kInt8Loops = int8_loops<NeonPairs, 8>();
}  // namespace neon

}  // namespace pare::kernels
