#include "kernels/avxvnni/primitives.h"
// The primitives come first.
#include "kernels/generic/ternary_matmul.inl.h"
#include "kernels/tables.h"

namespace pare::kernels::avxvnni {
namespace {

constinit const Packing kPackings[] = {ternary_packing<AvxVnniInt8, TernaryI2>("i2", "avxvnni")};

}  // namespace

constinit const std::span<const Packing> kTernary = kPackings;

}  // namespace pare::kernels::avxvnni
