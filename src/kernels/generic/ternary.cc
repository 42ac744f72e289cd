#include "kernels/generic/scalar.h"
// The primitives come first.
#include "kernels/generic/ternary_matmul.inl.h"
#include "kernels/tables.h"

namespace pare::kernels::generic {
namespace {

constinit const Packing kPackings[] = {ternary_packing<ScalarInt8, TernaryI2>("i2", "generic"),
                                       ternary_packing<ScalarInt8, TernaryT3>("t3", "generic")};

}  // namespace

constinit const std::span<const Packing> kTernary = kPackings;
constinit const InputFormatInfo kInt8Row{InputFormat::kInt8Row, "int8_row", input_row_bytes_int8_row,
                                         prepare_int8_row<Scalar>};

}  // namespace pare::kernels::generic
