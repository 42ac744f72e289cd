#include "kernels/avx512vbmi/primitives.h"
// The primitives come first.
#include "kernels/amx/tiles.h"
#include "kernels/generic/ternary_matmul.inl.h"
#include "kernels/tables.h"

namespace pare::kernels::amx {
namespace {

/// Products of ternary weights by AMX tiles: 16 activation rows of 64 columns each, as they lie in memory, times 64
/// columns of 16 weight rows, unpacked to a byte a code (a row of that tile is a step: 4 columns of each weight row). A
/// block is 2 x 2 of these: each tile that is loaded meets two others.
///
/// The tile unit is fed from the first-level cache, or it waits: so weights are unpacked anew for every block, a little
/// ahead, into a place that stays there, and only activations come from the second level. Vector registers have time
/// for that while tiles multiply, and for making outputs of the block before.
template <class Layout>
struct TernaryTiles {
  using E = Avx512VbmiInt8;
  using Kernel = TernaryKernel<E, Layout>;
  static constexpr int kTileRows = 16, kTileColumns = 64, kTileBytes = 1024, kGroups = 2, kHalves = 2,
                       kProducts = kHalves * kGroups, kPanelRows = kGroups * kInterleavedRows;
  /// The first tile of a block with which outputs of the one before are made.
  static constexpr int kFirstFinished = 2;
  /// Columns unpacked at a time: whole tiles, and whole strips of any layout.
  static constexpr int kUnitTiles = 3, kUnitColumns = kUnitTiles * kTileColumns;
  static constexpr int kUnitSlots = kUnitTiles * kProducts;
  static constexpr int kUnitStrips = kUnitColumns / static_cast<int>(strip_columns<Layout>());
  static_assert(kUnitColumns % strip_columns<Layout>() == 0);
  /// Rows of activations from which this pays. Any number of blocks may be dealt out by themselves: so many are.
  static constexpr int64_t kFewest = kTileRows, kInputRows = 256;

  /// 32 rows of weights; past the last group of all, that group again.
  struct Panel {
    const std::byte* groups[kGroups];
    int64_t row, rows;
  };
  /// 32 rows of activations, or 16. They may lie anywhere: what is left of a part shares rows with what comes before.
  struct Inputs {
    int64_t halves[kHalves];
  };
  /// What a block's rows of activations have, one after the other as far as half a block.
  template <class T>
  struct Rows {
    T* halves[kHalves];
    PARE_INLINE T* at(int64_t i, int64_t stride) const {
      const auto row = static_cast<size_t>(i);
      return halves[row / kTileRows] + static_cast<int64_t>(row % kTileRows) * stride;
    }
  };
  /// What a block's sums become outputs of.
  struct Block {
    Rows<const std::byte> inputs{};
    Rows<float> outputs{};
    int64_t columns = 0;  // of outputs: all of a panel's, or what is left
    int64_t count = 0;    // of rows
    const int32_t* sums = nullptr;
  };

  const MultiplyArgs& args;
  const int64_t strips, tiles, units, group_stride;
  alignas(64) std::byte unpacked[2][kGroups][kUnitTiles * kTileBytes];
  alignas(64) int32_t sums[kHalves * kTileRows][kPanelRows];
  int now = 0;
  Block before;

  explicit TernaryTiles(const MultiplyArgs& a)
      : args(a),
        strips(strips_of<Layout>(a.columns)),
        tiles((a.columns + kTileColumns - 1) / kTileColumns),
        units((tiles + kUnitTiles - 1) / kUnitTiles),
        group_stride(group_bytes<Layout>(a.columns)) {}

  Panel panel_at(int64_t row) const {
    const int64_t rows = args.row_end - row;
    const std::byte* first = args.weights + row / kInterleavedRows * group_stride;
    return {{first, rows > kInterleavedRows ? first + group_stride : first}, row, rows};
  }

  /// A unit of a panel, from where it lies to where it is unpacked; the panel so far ahead (0: none) is asked for. Past
  /// the last strip that one again: it meets activations of 0.
  ///
  /// This and what follows takes its arguments as they are, not as members: what is stored here might be any of those,
  /// for all the compiler knows, and they would be read again after each vector.
  struct Unit {
    const std::byte* from[kGroups][kUnitStrips];
    std::byte* to;
    ptrdiff_t ahead;
  };
  PARE_INLINE Unit unit_of(const Panel& panel, int64_t unit, const std::byte* next) {
    Unit u;
    for (int g = 0; g < kGroups; ++g)
      for (int s = 0; s < kUnitStrips; ++s) {
        const int64_t strip = unit * kUnitStrips + s;
        u.from[g][s] = panel.groups[g] + (strip < strips ? strip : strips - 1) * strip_bytes<Layout>();
      }
    u.to = unpacked[1 - now][0];
    u.ahead = next ? next - panel.groups[0] : 0;
    return u;
  }
  /// One of kUnitSlots parts of a unit.
  template <int kSlot>
  static PARE_INLINE void unpack(const Unit& u) {
    constexpr int kVectors = Layout::kStripVectors, kAll = kUnitStrips * kGroups * kVectors;
    constexpr int kBegin = kSlot * kAll / kUnitSlots, kEnd = (kSlot + 1) * kAll / kUnitSlots;
    unrolled<kEnd - kBegin>([&](auto index) __attribute__((always_inline)) {
      constexpr int kIndex = kBegin + decltype(index)::value;
      constexpr int kVector = kIndex % kVectors, kGroup = kIndex / kVectors % kGroups;
      constexpr int kStrip = kIndex / (kVectors * kGroups);
      const std::byte* from = u.from[kGroup][kStrip];
      if (kVector == 0 && u.ahead != 0) ask_for(from + u.ahead, strip_bytes<Layout>());
      const auto codes = Codes<E, Layout>::template load<kVector>(from);
      unrolled<Layout::kVectorSteps>([&](auto step) __attribute__((always_inline)) {
        constexpr int kStep = kStrip * strip_steps<Layout>() + kVector * Layout::kVectorSteps + decltype(step)::value;
        E::store(u.to + kGroup * kUnitTiles * kTileBytes + kStep * kStepBytes,
                 Codes<E, Layout>::template step<decltype(step)::value>(codes));
      });
    });
  }

  /// Outputs of row i of a block.
  static PARE_INLINE void finish(const MultiplyArgs& a, const Block& block, int64_t i) {
    const auto& header = *reinterpret_cast<const Int8RowHeader*>(block.inputs.at(i, a.input_stride));
    const int32_t* sums = block.sums + i * kPanelRows;
    float* to = block.outputs.at(i, a.output_stride);
    const __m512i minus_sum = _mm512_set1_epi32(header.minus_sum);
    const __m512 scale = _mm512_set1_ps(a.scale * header.inverse);
    alignas(64) float last[kPanelRows];
    float* const whole = block.columns == kPanelRows ? to : last;
    for (int g = 0; g < kPanelRows; g += kInterleavedRows) {
      const __m512i sum = _mm512_add_epi32(_mm512_load_si512(sums + g), minus_sum);
      _mm512_storeu_ps(whole + g, _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale));
    }
    if (whole == last) std::memcpy(to, last, static_cast<size_t>(block.columns) * sizeof(float));
  }

  static PARE_INLINE void will_write(float* row, int64_t columns) {
    for (int64_t at = 0; at < columns; at += kCacheLine / int64_t{sizeof(float)})
      ask_to_write(reinterpret_cast<std::byte*>(row + at));
  }

  // Tiles 0 to 3: sums of (first, second half) x (first, second group); 4, 5: activations; 6, 7: weights.
  template <int kProduct>
  static PARE_INLINE void multiply_tile() {
    if constexpr (kProduct == 0) _tile_dpbsud(0, 4, 6);
    if constexpr (kProduct == 1) _tile_dpbsud(1, 4, 7);
    if constexpr (kProduct == 2) _tile_dpbsud(2, 5, 6);
    if constexpr (kProduct == 3) _tile_dpbsud(3, 5, 7);
  }
  /// A block: `panel` is unpacked as far as its first unit, and `after` will be. All four tiles are loaded before the
  /// first is multiplied: beside a busy thread of the same core, in any other order the unit waits longer.
  template <int kHalfCount>
  void multiply(const Panel& panel, const Inputs& inputs, const Panel& after, const std::byte* next) {
    constexpr int64_t kRows = kHalfCount * kTileRows;
    const MultiplyArgs a = args;
    const Block block = before;
    Block current{.columns = panel.rows < kPanelRows ? panel.rows : kPanelRows, .count = kRows, .sums = *sums};
    Rows<float> written{};
    for (int h = 0; h < kHalves; ++h) {
      const int64_t input = inputs.halves[h];
      current.inputs.halves[h] = a.input + input * a.input_stride;
      current.outputs.halves[h] = a.output + input * a.output_stride + panel.row;
      if (a.written) written.halves[h] = a.written + input * a.written_stride + panel.row;
    }
    const int64_t tile_count = tiles, unit_count = units;
    const int8_t* first = Kernel::codes(a, inputs.halves[0]);
    const int8_t* second = Kernel::codes(a, inputs.halves[1]);
    const auto stride = static_cast<size_t>(a.input_stride);
    // Of rows that are finished, and whose lines are asked for, with each tile. The first tiles are too early: what was
    // stored before them is not in the cache yet.
    const int64_t share = (kHalves * kTileRows + tile_count - 1) / tile_count;
    const int64_t finish_share =
        tile_count > kFirstFinished ? (kHalves * kTileRows - 1) / (tile_count - kFirstFinished) + 1 : kRows;
    int64_t done = 0, asked = a.written ? 0 : kRows;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t unit = 0; unit < unit_count; ++unit, now = 1 - now) {
      const bool more = unit + 1 < unit_count;
      const Unit coming = unit_of(more ? panel : after, more ? unit + 1 : 0, next);
      const std::byte* const weights = unpacked[now][0];
      unrolled<kUnitTiles>([&](auto tile) __attribute__((always_inline)) {
        constexpr int kTile = decltype(tile)::value;
        const bool here = unit * kUnitTiles + kTile < tile_count;
        if (here) {
          _tile_loadd(4, first, stride);
          _tile_loadd(6, weights + kTile * kTileBytes, kTileColumns);
          _tile_loadd(7, weights + (kUnitTiles + kTile) * kTileBytes, kTileColumns);
          if constexpr (kHalfCount > 1) _tile_loadd(5, second, stride);
          first += kTileColumns;
          second += kTileColumns;
        }
        unrolled<kProducts>([&](auto product) __attribute__((always_inline)) {
          constexpr int kProduct = decltype(product)::value;
          if (here && kProduct < kHalfCount * kGroups) multiply_tile<kProduct>();
          unpack<kTile * kProducts + kProduct>(coming);
        });
        if (here) {
          for (const int64_t end = asked + share; asked < end && asked < kRows; ++asked)
            will_write(written.at(asked, a.written_stride), current.columns);
          if (unit > 0 || kTile >= kFirstFinished) {
            const int64_t end = done + finish_share < block.count ? done + finish_share : block.count;
            for (; done < end; ++done) finish(a, block, done);
          }
        }
        tiles_see_memory();
      });
    }
    for (; done < block.count; ++done) finish(a, block, done);
    constexpr size_t kBytes = sizeof *sums;
    _tile_stored(0, sums, kBytes);
    _tile_stored(1, *sums + kInterleavedRows, kBytes);
    if constexpr (kHalfCount > 1) {
      _tile_stored(2, sums + kTileRows, kBytes);
      _tile_stored(3, sums[kTileRows] + kInterleavedRows, kBytes);
    }
    before = current;
  }

  void multiply_all() {
    TileConfig config;
    for (int t = 0; t < 8; ++t) config.set(t, kTileRows, kTileColumns);
    use(config);
    const int64_t input_rows = args.input_rows, halves = (input_rows + kTileRows - 1) / kTileRows;
    const auto half_at = [&](int64_t h) {
      return h * kTileRows < input_rows - kTileRows ? h * kTileRows : input_rows - kTileRows;
    };
    Panel panel = panel_at(args.row_begin);
    const Unit first = unit_of(panel, 0, nullptr);
    unrolled<kUnitSlots>([&](auto slot) { unpack<decltype(slot)::value>(first); });
    tiles_see_memory();
    now = 1 - now;
    for (bool more = true; more;) {
      more = panel.rows > kPanelRows;
      const Panel next = more ? panel_at(panel.row + kPanelRows) : panel;
      for (int64_t h = 0; h < halves; h += kHalves) {
        const Inputs inputs{{half_at(h), half_at(h + 1)}};
        const Panel& after = h + kHalves < halves ? panel : next;
        const std::byte* const asked = h > 0 ? nullptr : more ? next.groups[0] : args.then;
        h + 1 < halves ? multiply<2>(panel, inputs, after, asked) : multiply<1>(panel, inputs, after, asked);
      }
      panel = next;
    }
    for (int64_t i = 0; i < before.count; ++i) finish(args, before, i);
    _tile_release();
  }

  static void multiply_tiles(const MultiplyArgs& args) {
    if (args.input_rows < kFewest) return Kernel::multiply(args);
    if (args.row_begin >= args.row_end) return;
    TernaryTiles(args).multiply_all();
  }
  static constexpr Packing packing(const char* layout) {
    Packing packing = Kernel::packing(layout, "amx");
    packing.multiply = multiply_tiles;
    packing.panel_rows = kPanelRows;
    packing.panel_input_rows = kInputRows;
    return packing;
  }
};

constinit const Packing kPackings[] = {TernaryTiles<TernaryI2>::packing("i2"), TernaryTiles<TernaryT3>::packing("t3")};

}  // namespace

constinit const std::span<const Packing> kTernary = kPackings;

}  // namespace pare::kernels::amx
