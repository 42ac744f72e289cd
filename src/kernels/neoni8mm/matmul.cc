#include "kernels/neoni8mm/primitives.h"
// The primitives come first.
#include "kernels/generic/head_matmul.inl.h"
#include "kernels/tables.h"

namespace pare::kernels::neoni8mm {
namespace {

constinit const BlockPackings kBlockPackings = block_packings<NeonI8mmInt8>("i8mm");
constinit const HeadPackings kHeadPackings = head_packings<NeonI8mmInt8>("i8mm");

}  // namespace

constinit const std::span<const Packing> kBlocks = kBlockPackings.all, kHeads = kHeadPackings.all;

}  // namespace pare::kernels::neoni8mm
