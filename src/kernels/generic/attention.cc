#include "kernels/generic/scalar.h"
// The primitives come first.
#include "kernels/generic/two_pass_attention.inl.h"
#include "kernels/tables.h"

namespace pare::kernels::generic {

constinit const KvFormat kKvF32 = kv_format_of<Scalar, KvF32>();
constinit const KvFormat kKvF16 = kv_format_of<Scalar, KvF16>();
constinit const KvFormat kKvQ8_0 = kv_format_of<Scalar, KvQ8_0>();

}  // namespace pare::kernels::generic
