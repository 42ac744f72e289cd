#include "kernels/avx512vnni/primitives.h"
// The primitives come first.
#include "kernels/amx/block_panels.h"
#include "kernels/tables.h"

namespace pare::kernels::amx {
namespace {

/// The forms whose units fill a tile.
struct TiledForms {
  int at[block_forms().size()], count = 0;
};
constexpr TiledForms kTiled = [] {
  TiledForms forms{};
  for (size_t i = 0; i < block_forms().size(); ++i)
    if (block_forms()[i].unit == kBlock) forms.at[forms.count++] = static_cast<int>(i);
  return forms;
}();

/// Few activation rows go through vector registers.
template <int kForm>
struct Blocks {
  using Kernel = BlockKernel<Avx512VnniInt8, block_forms()[kForm].type>;
  using Panels = AmxBlockPanels<Kernel>;
  static constexpr int64_t kFewest = 16;
  static void multiply(const MultiplyArgs& a) {
    if (a.input_rows < kFewest) return avx512vnni::kBlocks[kForm].multiply(a);
    Kernel::template multiply_panels<Panels>(a);
  }
  static void multiply_one_stream(const MultiplyArgs& a) { avx512vnni::kBlocks[kForm].multiply_one_stream(a); }
  static constexpr Packing packing() {
    Packing packing = Kernel::packing("amx");
    packing.multiply = multiply;
    packing.multiply_one_stream = multiply_one_stream;
    packing.panel_inputs = kFewest;
    packing.panel_rows = Panels::kGroups * kInterleavedRows;
    packing.panel_input_rows = Panels::kInputs;
    return packing;
  }
};

struct Packings {
  Packing all[kTiled.count];
};
template <int... kIndex>
constexpr Packings packings(std::integer_sequence<int, kIndex...>) {
  return {{Blocks<kTiled.at[kIndex]>::packing()...}};
}

constinit const Packings kPackings = packings(std::make_integer_sequence<int, kTiled.count>());

}  // namespace

constinit const std::span<const Packing> kBlocks = kPackings.all;

}  // namespace pare::kernels::amx
