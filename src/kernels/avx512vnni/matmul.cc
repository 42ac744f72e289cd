#include "kernels/avx512vnni/primitives.h"
// The primitives come first.
#include "kernels/generic/block_matmul.inl.h"
#include "kernels/tables.h"

namespace pare::kernels::avx512vnni {

constinit const Packing kQ8_0 = block_packing<VnniQ8>("q8_0.avx512vnni", packed_bytes_q8_0, pack_q8_0, unpack_row_q8_0);
constinit const Packing kQ4_0 = block_packing<VnniQ4>("q4_0.avx512vnni", packed_bytes_q4_0, pack_q4_0, unpack_row_q4_0);

}  // namespace pare::kernels::avx512vnni
