#include "kernels/amx/tiles.h"
#include "kernels/tables.h"

namespace pare::kernels {
namespace {

constexpr int kChains = 4;
constexpr int64_t kTileMultiplies = 16 * 16 * 64;

/// Products of tiles of zeros: the unit's time does not depend on values.
int32_t multiply_rounds(int64_t rounds) {
  TileConfig config;
  for (int t = 0; t < 6; ++t) config.set(t, 16, 64);
  use(config);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  for (int64_t i = 0; i < rounds; ++i) {
    _tile_dpbsud(0, 4, 5);
    _tile_dpbsud(1, 4, 5);
    _tile_dpbsud(2, 4, 5);
    _tile_dpbsud(3, 4, 5);
  }
  alignas(64) int32_t sums[256];
  _tile_stored(0, sums, 64);
  _tile_release();
  return sums[0];
}

}  // namespace

namespace amx {
constinit const Int8Loops kInt8Loops{multiply_rounds, kChains* kTileMultiplies};
}

}  // namespace pare::kernels
