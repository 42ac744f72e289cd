#include "kernels/generic/scalar.h"
// The primitives come first.
#include "kernels/generic/attention.inl.h"
#include "kernels/tables.h"

namespace pare::kernels::generic {

constinit const KvFormat kKvF32 = kv_format_of<Scalar, KvF32>();
constinit const KvFormat kKvF16 = kv_format_of<Scalar, KvF16>();

}  // namespace pare::kernels::generic
