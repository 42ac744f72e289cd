#include "kernels/avx512/primitives.h"
// The primitives come first.
#include "kernels/generic/block_matmul.inl.h"
#include "kernels/generic/float_matmul.inl.h"
#include "kernels/tables.h"

namespace pare::kernels::avx512 {

constinit const Packing kF32 = float_packing<Avx512, WeightF32>("f32.avx512", packed_bytes_f32, unpack_row_f32);
constinit const Packing kF16 = float_packing<Avx512, WeightF16>("f16.avx512", packed_bytes_16bit, unpack_row_f16);
constinit const Packing kBF16 = float_packing<Avx512, WeightBF16>("bf16.avx512", packed_bytes_16bit, unpack_row_bf16);
constinit const Packing kQ8_0 = block_packing<Avx512Q8>("q8_0.avx512", packed_bytes_q8_0, pack_q8_0, unpack_row_q8_0);
constinit const Packing kQ4_0 = block_packing<Avx512Q4>("q4_0.avx512", packed_bytes_q4_0, pack_q4_0, unpack_row_q4_0);
constinit const InputFormatInfo kInt8Block{InputFormat::kInt8Block, "int8_block", input_row_bytes_int8,
                                           prepare_int8<Avx512>};

}  // namespace pare::kernels::avx512
