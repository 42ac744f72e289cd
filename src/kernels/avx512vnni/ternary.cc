#include "kernels/avx512vnni/primitives.h"
// The primitives come first.
#include "kernels/generic/ternary_matmul.inl.h"
#include "kernels/tables.h"

namespace pare::kernels::avx512vnni {
namespace {

constinit const Packing kPackings[] = {ternary_packing<Avx512VnniInt8, TernaryI2>("i2", "avx512vnni")};

}  // namespace

constinit const std::span<const Packing> kTernary = kPackings;

}  // namespace pare::kernels::avx512vnni
