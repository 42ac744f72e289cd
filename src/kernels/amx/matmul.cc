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
  static void multiply(const MultiplyArgs& a) {
    constexpr int64_t kFewest = 16;
    if (a.input_rows < kFewest) return avx512vnni::kBlocks[kForm].multiply(a);
    Kernel::template multiply_panels<AmxBlockPanels<Kernel>>(a);
  }
  static void multiply_one_stream(const MultiplyArgs& a) { avx512vnni::kBlocks[kForm].multiply_one_stream(a); }
  static constexpr Packing packing() { return Kernel::packing("amx", multiply, multiply_one_stream); }
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
