#include "kernels/generic/scalar.h"
// The primitives come first.
#include "kernels/generic/ceilings.inl.h"
#include "kernels/tables.h"

namespace pare::kernels {
namespace {

struct ScalarDot {
  using V = int32_t;
  static constexpr int kLanes = 1;
  static PARE_INLINE V set1(int x) { return x; }
  static PARE_INLINE V dot(V sum, V a, V b) {
    return static_cast<V>(static_cast<uint32_t>(sum) + static_cast<uint32_t>(a) * static_cast<uint32_t>(b));
  }
  static PARE_INLINE void hide(V& v) { asm volatile("" : "+r"(v)); }
  static PARE_INLINE int32_t first(V v) { return v; }
};

}  // namespace

namespace generic {
constinit const FloatLoops kFloatLoops = float_loops<Scalar, 1>();
constinit const Int8Loops kInt8Loops = int8_loops<ScalarDot, 8>();
}  // namespace generic

}  // namespace pare::kernels
