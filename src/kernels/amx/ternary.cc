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
  using Sum = TernarySum<E, TernaryBytes>;
  static constexpr int kTileRows = 16, kTileColumns = 64, kTileBytes = 1024, kGroups = 2, kHalves = 2,
                       kProducts = kHalves * kGroups;
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
  /// What a block's sums become outputs of.
  struct Block {
    Panel panel;
    Inputs inputs;
    int64_t count = 0;  // of activation rows
    const int32_t* sums = nullptr;
  };

  const MultiplyArgs& a;
  const int64_t strips, tiles, units, group_stride;
  alignas(64) std::byte unpacked[2][kGroups][kUnitTiles * kTileBytes];
  alignas(64) int32_t sums[2][kHalves * kTileRows][kGroups * kInterleavedRows];
  int now = 0, sums_now = 0;
  Block before;

  explicit TernaryTiles(const MultiplyArgs& args)
      : a(args),
        strips(strips_of<Layout>(args.columns)),
        tiles((args.columns + kTileColumns - 1) / kTileColumns),
        units((tiles + kUnitTiles - 1) / kUnitTiles),
        group_stride(group_bytes<Layout>(args.columns)) {}

  Panel panel_at(int64_t row) const {
    const int64_t rows = a.row_end - row;
    const std::byte* first = a.weights + row / kInterleavedRows * group_stride;
    return {{first, rows > kInterleavedRows ? first + group_stride : first}, row, rows};
  }

  /// One of kUnitSlots parts of a unit; what the panel at `next` (or null) will read in its place is asked for.
  template <int kSlot>
  PARE_INLINE void unpack(const Panel& panel, int64_t unit, const std::byte* next) {
    constexpr int kVectors = Layout::kStripVectors, kAll = kUnitStrips * kGroups * kVectors;
    constexpr int kBegin = kSlot * kAll / kUnitSlots, kEnd = (kSlot + 1) * kAll / kUnitSlots;
    unrolled<kEnd - kBegin>([&](auto index) __attribute__((always_inline)) {
      constexpr int kIndex = kBegin + decltype(index)::value;
      constexpr int kVector = kIndex % kVectors, kGroup = kIndex / kVectors % kGroups;
      constexpr int kStrip = kIndex / (kVectors * kGroups);
      const int64_t strip = unit * kUnitStrips + kStrip;
      if (strip >= strips) return;
      const int64_t offset = strip * strip_bytes<Layout>();
      if (kVector == 0 && next) ask_for(next + kGroup * group_stride + offset, strip_bytes<Layout>());
      const auto codes = Codes<E, Layout>::template load<kVector>(panel.groups[kGroup] + offset);
      unrolled<Layout::kVectorSteps>([&](auto step) __attribute__((always_inline)) {
        constexpr int kStep = kStrip * strip_steps<Layout>() + kVector * Layout::kVectorSteps + decltype(step)::value;
        E::store(unpacked[1 - now][kGroup] + kStep * kStepBytes,
                 Codes<E, Layout>::template step<decltype(step)::value>(codes));
      });
    });
  }

  /// Outputs of row i of a block.
  PARE_INLINE void finish(const Block& block, int64_t i) const {
    const int64_t input = block.inputs.halves[i / kTileRows] + i % kTileRows;
    for (int g = 0; g < kGroups && g * kInterleavedRows < block.panel.rows; ++g) {
      Sum sum, products;
      sum.template begin<0>(Kernel::header(a, input).minus_sum);
      products.restore(block.sums + i * kGroups * kInterleavedRows + g * kInterleavedRows);
      sum.template merge<0>(products);
      Kernel::finish(a, input, block.panel.row + g * kInterleavedRows, sum);
    }
  }
  PARE_INLINE void will_write(const Panel& panel, int64_t input) const {
    if (!a.written) return;
    auto* to = reinterpret_cast<std::byte*>(a.written + input * a.written_stride + panel.row);
    const int64_t rows = panel.rows < kGroups * kInterleavedRows ? panel.rows : kGroups * kInterleavedRows;
    for (int64_t at = 0; at < rows * 4; at += kCacheLine) ask_to_write(to + at);
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
    const int8_t* const first = Kernel::codes(a, inputs.halves[0]);
    const int8_t* const second = Kernel::codes(a, inputs.halves[1]);
    const auto stride = static_cast<size_t>(a.input_stride);
    const int64_t share = (kHalves * kTileRows + tiles - 1) / tiles;  // of rows that are written, for each tile
    int64_t done = 0;
    const auto finish_some = [&](int64_t most) __attribute__((always_inline)) {
      for (const int64_t end = done + most; done < end && done < before.count; ++done) finish(before, done);
    };
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t unit = 0; unit < units; ++unit, now = 1 - now) {
      const bool more = unit + 1 < units;
      const Panel& unpacked_next = more ? panel : after;
      const int64_t unit_next = more ? unit + 1 : 0;
      unrolled<kUnitTiles>([&](auto tile) __attribute__((always_inline)) {
        constexpr int kTile = decltype(tile)::value;
        const int64_t at = unit * kUnitTiles + kTile, column = at * kTileColumns;
        const bool here = at < tiles;
        if (here) {
          _tile_loadd(4, first + column, stride);
          _tile_loadd(6, unpacked[now][0] + kTile * kTileBytes, kTileColumns);
          _tile_loadd(7, unpacked[now][1] + kTile * kTileBytes, kTileColumns);
          if constexpr (kHalfCount > 1) _tile_loadd(5, second + column, stride);
        }
        unrolled<kProducts>([&](auto product) __attribute__((always_inline)) {
          constexpr int kProduct = decltype(product)::value;
          if (here && kProduct < kHalfCount * kGroups) multiply_tile<kProduct>();
          unpack<kTile * kProducts + kProduct>(unpacked_next, unit_next, next);
        });
        if (here) {
          for (int64_t row = at * share; row < (at + 1) * share && row < kRows; ++row)
            will_write(panel, inputs.halves[row / kTileRows] + row % kTileRows);
          finish_some(share);
        }
        tiles_see_memory();
      });
    }
    finish_some(kHalves * kTileRows);
    int32_t(*const to)[kGroups * kInterleavedRows] = sums[sums_now];
    constexpr size_t kBytes = sizeof *to;
    _tile_stored(0, to, kBytes);
    _tile_stored(1, *to + kInterleavedRows, kBytes);
    if constexpr (kHalfCount > 1) {
      _tile_stored(2, to + kTileRows, kBytes);
      _tile_stored(3, to[kTileRows] + kInterleavedRows, kBytes);
    }
    sums_now = 1 - sums_now;
    before = {panel, inputs, kRows, *to};
  }

  void multiply_all() {
    TileConfig config;
    for (int t = 0; t < 8; ++t) config.set(t, kTileRows, kTileColumns);
    use(config);
    const int64_t halves = (a.input_rows + kTileRows - 1) / kTileRows;
    const auto half_at = [&](int64_t h) {
      return h * kTileRows < a.input_rows - kTileRows ? h * kTileRows : a.input_rows - kTileRows;
    };
    constexpr int64_t kRows = kGroups * kInterleavedRows;
    Panel panel = panel_at(a.row_begin);
    unrolled<kUnitSlots>([&](auto slot) { unpack<decltype(slot)::value>(panel, 0, nullptr); });
    tiles_see_memory();
    now = 1 - now;
    for (bool more = true; more;) {
      more = panel.rows > kRows;
      const Panel next = more ? panel_at(panel.row + kRows) : panel;
      for (int64_t h = 0; h < halves; h += kHalves) {
        const Inputs inputs{{half_at(h), half_at(h + 1)}};
        const Panel& after = h + kHalves < halves ? panel : next;
        const std::byte* const asked = h > 0 ? nullptr : more ? next.groups[0] : a.then;
        h + 1 < halves ? multiply<2>(panel, inputs, after, asked) : multiply<1>(panel, inputs, after, asked);
      }
      panel = next;
    }
    for (int64_t i = 0; i < before.count; ++i) finish(before, i);
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
    packing.panel_rows = kGroups * kInterleavedRows;
    packing.panel_input_rows = kInputRows;
    return packing;
  }
};

constinit const Packing kPackings[] = {TernaryTiles<TernaryI2>::packing("i2"), TernaryTiles<TernaryT3>::packing("t3")};

}  // namespace

constinit const std::span<const Packing> kTernary = kPackings;

}  // namespace pare::kernels::amx
