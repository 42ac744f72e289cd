#include "kernels/avx512vnni/primitives.h"
// The primitives come first.
#include "kernels/generic/head_matmul.inl.h"
#include "kernels/tables.h"

namespace pare::kernels::avx512vnni {
namespace {

constinit const BlockPackings kBlockPackings = block_packings<Avx512VnniInt8>("avx512vnni");
constinit const HeadPackings kHeadPackings = head_packings<Avx512VnniInt8>("avx512vnni");

}  // namespace

constinit const std::span<const Packing> kBlocks = kBlockPackings.all, kHeads = kHeadPackings.all;

}  // namespace pare::kernels::avx512vnni
