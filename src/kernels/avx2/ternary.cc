#include "kernels/avx2/primitives.h"
// The primitives come first.
#include "kernels/generic/lut_matmul.inl.h"
#include "kernels/tables.h"

namespace pare::kernels::avx2 {
namespace {

constinit const Packing kPackings[] = {ternary_packing<Avx2Int8, TernaryI2>("i2", "avx2"),
                                       lut_packing<Avx2Lookup, Avx2Int8, TernaryTl2>("tl2", "avx2")};

}  // namespace

constinit const std::span<const Packing> kTernary = kPackings;
constinit const InputFormatInfo kInt8Row = int8_row_format<Avx2>();
constinit const InputFormatInfo kInt8Triples = lut_format<Avx2, TernaryTl2>("int8_triples");

}  // namespace pare::kernels::avx2
