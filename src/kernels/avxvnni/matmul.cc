#include "kernels/avxvnni/primitives.h"
// The primitives come first.
#include "kernels/generic/head_matmul.inl.h"
#include "kernels/tables.h"

namespace pare::kernels::avxvnni {
namespace {

constinit const BlockPackings kBlockPackings = block_packings<AvxVnniInt8>("avxvnni");
constinit const HeadPackings kHeadPackings = head_packings<AvxVnniInt8>("avxvnni");

}  // namespace

constinit const std::span<const Packing> kBlocks = kBlockPackings.all, kHeads = kHeadPackings.all;

}  // namespace pare::kernels::avxvnni
