#include "kernels/neondot/primitives.h"
// The primitives come first.
#include "kernels/generic/ternary_matmul.inl.h"
#include "kernels/tables.h"

namespace pare::kernels::neondot {
namespace {

constinit const Packing kPackings[] = {ternary_packing<NeonDotInt8, TernaryI2>("i2", "dotprod")};

}  // namespace

constinit const std::span<const Packing> kTernary = kPackings;

}  // namespace pare::kernels::neondot
