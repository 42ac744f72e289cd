#include "kernels/avxvnni/primitives.h"
// The primitives come first.
#include "kernels/generic/lut_matmul.inl.h"
#include "kernels/tables.h"

namespace pare::kernels::avxvnni {
namespace {

// Lookups are those of AVX2; their many activation rows are products.
constinit const Packing kPackings[] = {ternary_packing<AvxVnniInt8, TernaryI2>("i2", "avxvnni"),
                                       lut_packing<Avx2Lookup, AvxVnniInt8, TernaryTl2>("tl2", "avxvnni")};

}  // namespace

constinit const std::span<const Packing> kTernary = kPackings;

}  // namespace pare::kernels::avxvnni
