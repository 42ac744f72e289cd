#include "kernels/avx512vbmi/primitives.h"
// The primitives come first.
#include "kernels/generic/ternary_matmul.inl.h"
#include "kernels/tables.h"

namespace pare::kernels::avx512vbmi {
namespace {

constinit const Packing kPackings[] = {ternary_packing<Avx512VbmiInt8, TernaryT3>("t3", "avx512vbmi")};

}  // namespace

constinit const std::span<const Packing> kTernary = kPackings;

}  // namespace pare::kernels::avx512vbmi
