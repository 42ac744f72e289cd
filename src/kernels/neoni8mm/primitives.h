#pragma once
#include "kernels/neon/primitives.h"

namespace pare::kernels {
namespace {

/// usdot adds four products of unsigned weight codes and signed activation codes to an int32 lane, so that codes are
/// multiplied as they are stored. Not smmla, which multiplies 8 neighbouring columns of two rows with those of two
/// activation rows: here 4 columns of a row are neighbours, and a Sum belongs to one activation row.
struct NeonI8mmInt8 : NeonCodes<NeonDot, false> {
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
      for (int i = 0; i < 4; ++i) part[i] = vusdotq_laneq_s32(part[i], w.part[i], x, kStep % 4);
    }
  };
};

}  // namespace
}  // namespace pare::kernels
