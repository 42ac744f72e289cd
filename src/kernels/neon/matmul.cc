#include "kernels/neon/primitives.h"
// The primitives come first.
#include "kernels/generic/float_matmul.inl.h"
#include "kernels/generic/head_matmul.inl.h"
#include "kernels/tables.h"

namespace pare::kernels::neon {
namespace {

constinit const FloatPackings kFloatPackings = float_packings<Neon>("neon");
constinit const BlockPackings kBlockPackings = block_packings<NeonInt8>("neon");
constinit const HeadPackings kHeadPackings = head_packings<NeonInt8>("neon");

}  // namespace

constinit const std::span<const Packing> kFloats = kFloatPackings.all, kBlocks = kBlockPackings.all,
                                         kHeads = kHeadPackings.all;

}  // namespace pare::kernels::neon
