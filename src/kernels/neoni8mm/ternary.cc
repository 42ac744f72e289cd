#include "kernels/neoni8mm/primitives.h"
// The primitives come first.
#include "kernels/generic/ternary_matmul.inl.h"
#include "kernels/tables.h"

namespace pare::kernels::neoni8mm {
namespace {

constinit const Packing kPackings[] = {ternary_packing<NeonI8mmInt8, TernaryI2>("i2", "i8mm")};

}  // namespace

constinit const std::span<const Packing> kTernary = kPackings;

}  // namespace pare::kernels::neoni8mm
