#include "kernels/avx2/primitives.h"
// The primitives come first.
#include "kernels/generic/two_pass_attention.inl.h"
#include "kernels/tables.h"

namespace pare::kernels::avx2 {

constinit const KvFormat kKvF32 = kv_format_of<Avx2, KvF32>();
constinit const KvFormat kKvF16 = kv_format_of<Avx2, KvF16>();
constinit const KvFormat kKvQ8_0 = kv_format_of<Avx2, KvQ8_0>();

}  // namespace pare::kernels::avx2
