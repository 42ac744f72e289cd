#include "kernels/neon/primitives.h"
// The primitives come first.
#include "kernels/generic/lut_matmul.inl.h"
#include "kernels/tables.h"

namespace pare::kernels::neon {
namespace {

constinit const Packing kPackings[] = {ternary_packing<NeonInt8, TernaryI2>("i2", "neon"),
                                       lut_packing<NeonLookup, NeonInt8, TernaryTl1>("tl1", "neon"),
                                       lut_packing<NeonLookup, NeonInt8, TernaryTl2>("tl2", "neon")};

}  // namespace

constinit const std::span<const Packing> kTernary = kPackings;
constinit const InputFormatInfo kInt8Row = int8_row_format<Neon>();

}  // namespace pare::kernels::neon
