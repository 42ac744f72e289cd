#include "kernels/avx512/primitives.h"
// The primitives come first.
#include "kernels/generic/two_pass_attention.inl.h"
#include "kernels/tables.h"

namespace pare::kernels::avx512 {

constinit const KvFormat kKvF32 = kv_format_of<Avx512, KvF32>();
constinit const KvFormat kKvF16 = kv_format_of<Avx512, KvF16>();
constinit const KvFormat kKvQ8_0 = kv_format_of<Avx512, KvQ8_0>();

}  // namespace pare::kernels::avx512
