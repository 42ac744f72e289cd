#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/matmul.h"

// Weights pass through once a token, faster than hardware foresees where short rows end. A tile reads several streams
// of them side by side, and each is asked for twice: into the second-level cache about as long before as memory takes
// to answer while it answers others, and a little before it is read into the first. A core keeps few lines on their way
// to its first level, and would wait with all of them for memory.

namespace pare::kernels {
namespace {

/// How far before they are read weights are asked for, of all streams together: into either cache. Of a single stream,
/// which hardware foresees, only the first.
constexpr int64_t kBytesAhead = 4096, kBytesFarAhead = 16384, kBytesAheadInOneStream = 8192;
constexpr int kFirstLevel = 3, kSecondLevel = 2;  // of the cache, as __builtin_prefetch numbers them

/// Asks for bytes that are read some time later.
PARE_INLINE void ask_for(const std::byte* from, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(from + i, 0, kSecondLevel);
}

/// What a tile of kStreams streams asks for while it is computed.
template <int kStreams>
struct TileAhead {
  static constexpr int kCount = kStreams;
  static constexpr bool kTwice = kStreams > 1;
  static constexpr int64_t kDistance = kTwice ? kBytesAhead / kStreams : kBytesAheadInOneStream;
  static constexpr int64_t kFarDistance = kBytesFarAhead / kStreams;
  const std::byte* own;   // null: nothing is asked for
  const std::byte* next;  // the streams that are read after these, equally far apart
  int64_t between;        // bytes of one stream: the next begins behind it

  /// While kBytes at `at` of each stream are read.
  template <int kBytes>
  PARE_INLINE void ask(int64_t at) const {
    if (!own) return;
    if constexpr (kTwice) ask_at<kBytes, kSecondLevel>(at + kFarDistance);
    ask_at<kBytes, kFirstLevel>(at + kDistance);
  }
  /// The beginning, of which nobody asked before.
  PARE_INLINE void begin() const {
    begin<kFirstLevel>(0, kDistance);
    if constexpr (kTwice) begin<kSecondLevel>(kDistance, kFarDistance);
  }

 private:
  template <int kLevel>
  PARE_INLINE void begin(int64_t from, int64_t to) const {
    for (int64_t i = from; i < to && i < between; i += 64)
      for (int s = 0; s < kStreams; ++s) __builtin_prefetch(own + s * between + i, 0, kLevel);
  }
  template <int kBytes, int kLevel>
  PARE_INLINE void ask_at(int64_t at) const {
    const std::byte* from = at < between ? own + at : next + (at - between);
#pragma GCC unroll 8
    for (int s = 0; s < kStreams; ++s)
#pragma GCC unroll 20
      for (int i = 0; i < kBytes; i += 64) __builtin_prefetch(from + s * between + i, 0, kLevel);
  }
};

/// As TileAhead, but the streams of the next tile are asked for from end to end, as if they were one, while this tile
/// reads its own side by side from the cache.
template <int kStreams>
struct TileInOneStream {
  static constexpr int kCount = kStreams;
  const std::byte *own, *next;
  int64_t between;

  template <int kBytes>
  PARE_INLINE void ask(int64_t at) const {
    if (own) ask_for(next + at * kStreams, kStreams * kBytes);
  }
  PARE_INLINE void begin() const { ask_for(own, kStreams * between); }
};

/// Weights that are unpacked into a panel next, of which the tiles of this panel ask for a part each: unpacking would
/// wait for memory. kStreams streams, `between` bytes apart.
template <int kStreams>
struct PanelAhead {
  const std::byte* from;  // this tile's part of the first stream; null: nothing is asked for
  int64_t between;
  int64_t share;  // bytes of each stream for each step of a tile

  /// Part `tile` of `tiles` of streams that are kBytes for each of `steps` steps.
  template <int kBytes>
  static PARE_INLINE PanelAhead of(const std::byte* next, int64_t between, int64_t steps, int64_t tile, int64_t tiles) {
    if (!next) return {};
    const int64_t share = (kBytes + tiles - 1) / tiles;
    return {next + tile * steps * share, between, share};
  }
  template <int kBytes>
  PARE_INLINE void ask(int64_t at) const {
    if (!from) return;
    const std::byte* p = from + at / kBytes * share;
    for (int s = 0; s < kStreams; ++s) ask_for(p + s * between, share);
  }
};

/// All rows of a product from `row` on in tiles of G streams, each `rows` weight rows in `between` bytes (the last
/// perhaps of fewer rows), then what is left in tiles of half as many: tile(row, first activation row, their number,
/// ahead) for at most C activation rows at a time, of which the first reads weights from memory.
template <int G, int C, template <int> class Ahead = TileAhead, class Tile>
PARE_INLINE void for_tiles(const MultiplyArgs& a, int64_t row, int64_t rows, int64_t between, Tile tile) {
  for (; row + (G - 1) * rows < a.row_end; row += G * rows) {
    const std::byte* own = a.weights + row / rows * between;
    const bool last = row + G * rows >= a.row_end;
    const Ahead<G> ahead{own, !last ? own + G * between : a.then ? a.then : own, between};
    if (row == a.row_begin && !a.expected) ahead.begin();
    for (int64_t i = 0; i < a.input_rows; i += C) {
      const auto count = static_cast<int>(a.input_rows - i < C ? a.input_rows - i : C);
      tile(row, i, count, i == 0 ? ahead : Ahead<G>{});
    }
  }
  if constexpr (G > 1) for_tiles<G / 2, C, Ahead>(a, row, rows, between, tile);
}

}  // namespace
}  // namespace pare::kernels
