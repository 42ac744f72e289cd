#include "kernels/avx512vbmi/primitives.h"
// The primitives come first.
#include "kernels/amx/panels.h"
#include "kernels/tables.h"

namespace pare::kernels::amx {
namespace {

constinit const Packing kPackings[] = {
    ternary_packing<Avx512VbmiInt8, TernaryI2, AmxPanels<Avx512VbmiInt8>>("i2", "amx"),
    ternary_packing<Avx512VbmiInt8, TernaryT3, AmxPanels<Avx512VbmiInt8>>("t3", "amx")};

}  // namespace

constinit const std::span<const Packing> kTernary = kPackings;

}  // namespace pare::kernels::amx
