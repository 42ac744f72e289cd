#include "kernels/neondot/primitives.h"
// The primitives come first.
#include "kernels/generic/head_matmul.inl.h"
#include "kernels/tables.h"

namespace pare::kernels::neondot {
namespace {

constinit const BlockPackings kBlockPackings = block_packings<NeonDotInt8>("dotprod");
constinit const HeadPackings kHeadPackings = head_packings<NeonDotInt8>("dotprod");

}  // namespace

constinit const std::span<const Packing> kBlocks = kBlockPackings.all, kHeads = kHeadPackings.all;

}  // namespace pare::kernels::neondot
