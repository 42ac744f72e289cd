#include "kernels/avx2/primitives.h"
// The primitives come first.
#include "kernels/generic/block_matmul.inl.h"
#include "kernels/generic/float_matmul.inl.h"
#include "kernels/tables.h"

namespace pare::kernels::avx2 {

constinit const Packing kF32 = float_packing<Avx2, WeightF32>("f32.avx2", packed_bytes_f32, unpack_row_f32);
constinit const Packing kF16 = float_packing<Avx2, WeightF16>("f16.avx2", packed_bytes_16bit, unpack_row_f16);
constinit const Packing kBF16 = float_packing<Avx2, WeightBF16>("bf16.avx2", packed_bytes_16bit, unpack_row_bf16);
constinit const Packing kQ8_0 = block_packing<Avx2Q8>("q8_0.avx2", packed_bytes_q8_0, pack_q8_0, unpack_row_q8_0);
constinit const Packing kQ4_0 = block_packing<Avx2Q4>("q4_0.avx2", packed_bytes_q4_0, pack_q4_0, unpack_row_q4_0);
constinit const InputFormatInfo kInt8Block{InputFormat::kInt8Block, "int8_block", input_row_bytes_int8,
                                           prepare_int8<Avx2>};

}  // namespace pare::kernels::avx2
