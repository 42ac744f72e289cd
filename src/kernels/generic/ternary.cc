#include "kernels/generic/scalar.h"
// The primitives come first.
#include "kernels/generic/lut_matmul.inl.h"
#include "kernels/tables.h"

namespace pare::kernels::generic {
namespace {

constinit const Packing kPackings[] = {ternary_packing<ScalarInt8, TernaryI2>("i2", "generic"),
                                       ternary_packing<ScalarInt8, TernaryT3>("t3", "generic"),
                                       lut_packing<ScalarLookup, ScalarInt8, TernaryTl1>("tl1", "generic"),
                                       lut_packing<ScalarLookup, ScalarInt8, TernaryTl2>("tl2", "generic")};

}  // namespace

constinit const std::span<const Packing> kTernary = kPackings;
constinit const InputFormatInfo kInt8Row = int8_row_format<Scalar>();
constinit const InputFormatInfo kInt8Pairs = lut_format<Scalar, TernaryTl1>("int8_pairs");
constinit const InputFormatInfo kInt8Triples = lut_format<Scalar, TernaryTl2>("int8_triples");

}  // namespace pare::kernels::generic
