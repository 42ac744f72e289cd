#include "kernels/avx512/primitives.h"
// The primitives come first.
#include "kernels/generic/ternary_matmul.inl.h"
#include "kernels/tables.h"

namespace pare::kernels::avx512 {
namespace {

constinit const Packing kPackings[] = {ternary_packing<Avx512Int8, TernaryI2>("i2", "avx512")};

}  // namespace

constinit const std::span<const Packing> kTernary = kPackings;
constinit const InputFormatInfo kInt8Row = int8_row_format<Avx512>();

}  // namespace pare::kernels::avx512
