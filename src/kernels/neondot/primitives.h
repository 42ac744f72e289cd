#pragma once
#include "kernels/neon/primitives.h"

namespace pare::kernels {
namespace {

/// sdot adds four products of signed bytes to an int32 lane, without saturation; small codes are the same as signed.
struct NeonDotInt8 : NeonCodes<NeonDot, true> {
  /// Tiles of ternary products: 16-row groups and activation rows; from how many of these a panel pays, and its
  /// columns.
  static constexpr int kTernaryGroups = 1, kTernaryRowGroups = 1, kTernaryRowSums = 1, kTernaryInputs = 5;
  static constexpr int64_t kTernaryPanelInputs = 8, kTernaryPanelColumns = 384;
  template <bool kFull, int kLargest, int kSteps>
  struct Sum : NeonSums {
    template <int kStep>
    PARE_INLINE void add(const Bytes& w, const int8_t* codes) {
      const int8x16_t x = four_steps<kStep>(codes);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) part[i] = vdotq_laneq_s32(part[i], vreinterpretq_s8_u8(w.part[i]), x, kStep % 4);
    }
  };
};

}  // namespace
}  // namespace pare::kernels
