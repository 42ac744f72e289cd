#include "kernels/avx512/primitives.h"
// The primitives come first.
#include "kernels/generic/float_matmul.inl.h"
#include "kernels/generic/head_matmul.inl.h"
#include "kernels/generic/prepare_int8.inl.h"
#include "kernels/tables.h"

namespace pare::kernels::avx512 {
namespace {

constinit const FloatPackings kFloatPackings = float_packings<Avx512>("avx512");
constinit const BlockPackings kBlockPackings = block_packings<Avx512Int8>("avx512");
constinit const HeadPackings kHeadPackings = head_packings<Avx512Int8>("avx512");

}  // namespace

constinit const std::span<const Packing> kFloats = kFloatPackings.all, kBlocks = kBlockPackings.all,
                                         kHeads = kHeadPackings.all;
constinit const InputFormatInfo kInt8Block{InputFormat::kInt8Block, "int8_block", input_row_bytes_int8,
                                           prepare_int8<Avx512>};

}  // namespace pare::kernels::avx512
