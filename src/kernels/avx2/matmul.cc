#include "kernels/avx2/primitives.h"
// The primitives come first.
#include "kernels/generic/float_matmul.inl.h"
#include "kernels/generic/head_matmul.inl.h"
#include "kernels/generic/prepare_int8.inl.h"
#include "kernels/tables.h"

namespace pare::kernels::avx2 {
namespace {

constinit const FloatPackings kFloatPackings = float_packings<Avx2>("avx2");
constinit const BlockPackings kBlockPackings = block_packings<Avx2Int8>("avx2");
constinit const HeadPackings kHeadPackings = head_packings<Avx2Int8>("avx2");

}  // namespace

constinit const std::span<const Packing> kFloats = kFloatPackings.all, kBlocks = kBlockPackings.all,
                                         kHeads = kHeadPackings.all;
constinit const InputFormatInfo kInt8Block{InputFormat::kInt8Block, "int8_block", input_row_bytes_int8,
                                           prepare_int8<Avx2>};

}  // namespace pare::kernels::avx2
