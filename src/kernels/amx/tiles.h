#pragma once
#include <immintrin.h>

#include <cstdint>

namespace pare::kernels {
namespace {

/// What LDTILECFG reads.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  constexpr void set(int tile, int tile_rows, int bytes) {
    rows[tile] = static_cast<uint8_t>(tile_rows);
    row_bytes[tile] = static_cast<uint16_t>(bytes);
  }
};

inline void use(const TileConfig& config) {
  // g++ 12 takes the instruction to read no more than eight bytes.
  asm volatile("" : : "r"(&config) : "memory");
  _tile_loadconfig(&config);
}

/// Tiles read memory behind the compiler's back: what was stored before this is there.
inline void tiles_see_memory() { asm volatile("" : : : "memory"); }

}  // namespace
}  // namespace pare::kernels
