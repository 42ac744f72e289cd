#include "kernels/neondot/primitives.h"
// The primitives come first.
#include "kernels/generic/ceilings.inl.h"
#include "kernels/tables.h"

namespace pare::kernels {
namespace {

struct Sdot {
  using V = int32x4_t;
  static constexpr int kLanes = 16;
  static PARE_INLINE V set1(int x) { return vreinterpretq_s32_s8(vdupq_n_s8(static_cast<int8_t>(x))); }
  static PARE_INLINE V dot(V sum, V a, V b) { return vdotq_s32(sum, vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b)); }
  static PARE_INLINE void hide(V& v) { asm volatile("" : "+w"(v)); }
  static PARE_INLINE int32_t first(V v) { return vgetq_lane_s32(v, 0); }
};

}  // namespace

namespace neondot {
constinit const Int8Loops kInt8Loops = int8_loops<Sdot, 16>();
}

}  // namespace pare::kernels
