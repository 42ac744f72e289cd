#include "kernels/avx2/primitives.h"
// The primitives come first.
#include "kernels/generic/ternary_matmul.inl.h"
#include "kernels/tables.h"

namespace pare::kernels::avx2 {
namespace {

constinit const Packing kPackings[] = {ternary_packing<Avx2Int8, TernaryI2>("i2", "avx2")};

}  // namespace

constinit const std::span<const Packing> kTernary = kPackings;
constinit const InputFormatInfo kInt8Row{InputFormat::kInt8Row, "int8_row", input_row_bytes_int8_row,
                                         prepare_int8_row<Avx2>};

}  // namespace pare::kernels::avx2
