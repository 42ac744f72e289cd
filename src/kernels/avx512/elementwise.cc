#include "kernels/avx512/primitives.h"
// The primitives come first.
#include "kernels/generic/elementwise.inl.h"
#include "kernels/tables.h"

namespace pare::kernels::avx512 {

constinit const Elementwise kElementwise = elementwise_table<Avx512>();

}  // namespace pare::kernels::avx512
