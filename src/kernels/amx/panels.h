#pragma once
#include <cstddef>

#include "kernels/amx/tiles.h"
#include "kernels/generic/ternary_matmul.inl.h"

namespace pare::kernels {
namespace {

/// Products of a panel of unsigned codes by AMX tiles: 16 activation rows of 64 columns each, times 64 columns of 16
/// weight rows as they lie in a panel (a row of that tile is a step: 4 columns of each weight row). 2 x 2 sums are held
/// while 2 + 2 tiles are loaded, so that a product waits for one load at most. Activation rows past whole tiles go
/// through vector registers.
template <class E>
struct AmxPanels {
  /// Two groups over many columns: sums rarely leave the tiles, and both operands come from the second-level cache.
  static constexpr int kPanelGroups = 2;
  static constexpr int64_t kColumns = 7680, kInputRows = 256;
  /// Strips that are unpacked ahead of their products.
  static constexpr int64_t kAhead = 2;
  static constexpr int kTileRows = 16, kTileBytes = 64;

  static PARE_INLINE void begin() {
    TileConfig config;
    for (int t = 0; t < 8; ++t) config.set(t, kTileRows, kTileBytes);
    use(config);
  }
  static PARE_INLINE void end() { _tile_release(); }

  // Tiles 0 to 3: sums of (first, second input) x (first, second group); 4, 5: inputs; 6, 7: weights.
  template <class Unpack, class WillWrite>
  static PARE_INLINE void two_by_two(const std::byte* panel, int64_t stride, const int8_t* input, int64_t input_stride,
                                     int64_t strips, int32_t* sums, int64_t sums_stride, Unpack unpack,
                                     WillWrite will_write) {
    int32_t* const below = sums + kTileRows * sums_stride;
    const auto bytes = static_cast<size_t>(sums_stride * 4);
    _tile_loadd(0, sums, bytes);
    _tile_loadd(1, sums + kInterleavedRows, bytes);
    _tile_loadd(2, below, bytes);
    _tile_loadd(3, below + kInterleavedRows, bytes);
    for (int64_t strip = 0; strip < strips; ++strip) {
      _tile_loadd(6, panel + strip * kTileRows * kTileBytes, kTileBytes);
      _tile_loadd(4, input + strip * kTileBytes, static_cast<size_t>(input_stride));
      _tile_dpbsud(0, 4, 6);
      if (strip + kAhead < strips) unpack(strip + kAhead, strip + kAhead + 1);
      _tile_loadd(7, panel + stride + strip * kTileRows * kTileBytes, kTileBytes);
      _tile_dpbsud(1, 4, 7);
      _tile_loadd(5, input + kTileRows * input_stride + strip * kTileBytes, static_cast<size_t>(input_stride));
      _tile_dpbsud(2, 5, 6);
      _tile_dpbsud(3, 5, 7);
      if (strip < 2 * kTileRows) will_write(strip);
      // Of the activations' next columns, which lie in as many places as there are rows (of a panel they follow).
      const int8_t* next = input + (strip + 1) * kTileBytes;
#pragma GCC unroll 32
      for (int row = 0; row < 2 * kTileRows; ++row) __builtin_prefetch(next + row * input_stride);
    }
    _tile_stored(0, sums, bytes);
    _tile_stored(1, sums + kInterleavedRows, bytes);
    _tile_stored(2, below, bytes);
    _tile_stored(3, below + kInterleavedRows, bytes);
  }
  static void one(const std::byte* panel, const int8_t* input, int64_t input_stride, int64_t strips, int32_t* sums,
                  int64_t sums_stride) {
    const auto bytes = static_cast<size_t>(sums_stride * 4);
    _tile_loadd(0, sums, bytes);
    for (int64_t strip = 0; strip < strips; ++strip) {
      _tile_loadd(6, panel + strip * kTileRows * kTileBytes, kTileBytes);
      _tile_loadd(4, input + strip * kTileBytes, static_cast<size_t>(input_stride));
      _tile_dpbsud(0, 4, 6);
    }
    _tile_stored(0, sums, bytes);
  }
  /// As RegisterTiles::multiply. Weights are unpacked, where that can be, while tiles multiply the first activations.
  template <class Unpack, class Rows>
  static void multiply(const std::byte* panel, int64_t stride, int groups, const int8_t* input, int64_t input_stride,
                       int64_t inputs, int64_t strips, int32_t* sums, int64_t sums_stride, Unpack unpack,
                       const Rows& rows) {
    const auto begin = [&](int64_t i, int64_t end) __attribute__((always_inline)) {
      rows.begin(i, end);
      tiles_see_memory();
    };
    const auto done = [&](int64_t i, int64_t end) __attribute__((always_inline)) {
      tiles_see_memory();
      rows.done(i, end);
    };
    const auto whole = [&](int64_t i, auto between) __attribute__((always_inline)) {
      begin(i, i + 2 * kTileRows);
      two_by_two(
          panel, stride, input + i * input_stride, input_stride, strips, sums + i * sums_stride, sums_stride,
          between, [&](int64_t row) __attribute__((always_inline)) { rows.will_write(i + row); });
      done(i, i + 2 * kTileRows);
    };
    int64_t i = 0;
    if (groups == kPanelGroups && inputs >= 2 * kTileRows) {
      unpack(0, kAhead < strips ? kAhead : strips);
      whole(
          0, [&](int64_t first, int64_t end) __attribute__((always_inline)) {
            unpack(first, end);
            tiles_see_memory();
          });
      for (i = 2 * kTileRows; i + 2 * kTileRows <= inputs; i += 2 * kTileRows) whole(i, [](int64_t, int64_t) {});
    } else {
      unpack(0, strips);
    }
    for (; i + kTileRows <= inputs; i += kTileRows) {
      begin(i, i + kTileRows);
      for (int g = 0; g < groups; ++g)
        one(panel + g * stride, input + i * input_stride, input_stride, strips,
            sums + i * sums_stride + g * kInterleavedRows, sums_stride);
      done(i, i + kTileRows);
    }
    if (i < inputs)
      RegisterTiles<E>::multiply(
          panel, stride, groups, input + i * input_stride, input_stride, inputs - i, strips, sums + i * sums_stride,
          sums_stride, [](int64_t, int64_t) {}, rows.from(i));
  }
};

}  // namespace
}  // namespace pare::kernels
