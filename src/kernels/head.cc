#include "kernels/head.h"

#include <algorithm>

#include "kernels/family.h"
#include "kernels/packing.h"

namespace pare::kernels {

float bound_slack(const BlockForm& form, int rest_bits, int64_t columns) {
  const double units = static_cast<double>(columns) / form.unit;
  const double radii = 1 + 2.0 * form.offset / ((1 << rest_bits) - 1);
  return static_cast<float>(1 + 4 * (units + 8) * radii * 0x1p-24);
}

void prepare_unit_bounds(const BlockForm& form, int rest_bits, const std::byte* input, int64_t columns,
                         UnitBounds* to) {
  const auto* blocks = reinterpret_cast<const Int8Block*>(input);
  const float middle = static_cast<float>((1 << rest_bits) - 1) / 2;
  for (int64_t k = 0; k < columns; k += form.unit, ++to) {
    const Int8Block& block = blocks[k / kBlock];
    const int8_t* codes = block.codes + k % kBlock;
    int32_t sum = 0, magnitudes = 0;
    for (int i = 0; i < form.unit; ++i) {
      sum += codes[i];
      magnitudes += codes[i] < 0 ? -codes[i] : codes[i];
    }
    const float step = middle * block.scale;
    *to = {static_cast<float>(1 << rest_bits) * block.scale, step * static_cast<float>(sum),
           step * static_cast<float>(magnitudes)};
  }
}

std::vector<const Packing*> split_packings(CpuFeatures features) {
  std::vector<const Packing*> found;
  for (const ProductsRow& row : family_tables().heads) {
    if ((features & row.required) != row.required) continue;
    for (const Packing& packing : *row.packings) found.push_back(&packing);
  }
  return found;
}

const Packing& output_packing_for(DType type, CpuFeatures features) {
  const auto packings = split_packings(features);
  const auto found =
      std::find_if(packings.begin(), packings.end(), [&](const Packing* p) { return p->source == type; });
  return found == packings.end() ? packing_for(type, features) : **found;
}

}  // namespace pare::kernels
