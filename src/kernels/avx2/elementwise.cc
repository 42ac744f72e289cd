#include "kernels/avx2/primitives.h"
// The primitives come first.
#include "kernels/generic/elementwise.inl.h"
#include "kernels/tables.h"

namespace pare::kernels::avx2 {

constinit const Elementwise kElementwise = elementwise_table<Avx2>();

}  // namespace pare::kernels::avx2
