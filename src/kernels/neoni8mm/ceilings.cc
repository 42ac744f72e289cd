#include "kernels/neoni8mm/primitives.h"
// The primitives come first.
#include "kernels/generic/ceilings.inl.h"
#include "kernels/tables.h"

namespace pare::kernels {
namespace {

struct Usdot {
  using V = int32x4_t;
  static constexpr int kLanes = 16;
  static PARE_INLINE V set1(int x) { return vreinterpretq_s32_s8(vdupq_n_s8(static_cast<int8_t>(x))); }
  static PARE_INLINE V dot(V sum, V a, V b) {
    return vusdotq_s32(sum, vreinterpretq_u8_s32(a), vreinterpretq_s8_s32(b));
  }
  static PARE_INLINE void hide(V& v) { asm volatile("" : "+w"(v)); }
  static PARE_INLINE int32_t first(V v) { return vgetq_lane_s32(v, 0); }
};

}  // namespace

namespace neoni8mm {
constinit const Int8Loops kInt8Loops = int8_loops<Usdot, 16>();
}

}  // namespace pare::kernels
