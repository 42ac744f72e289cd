#include "kernels/generic/scalar.h"
// The primitives come first.
#include "kernels/generic/elementwise.inl.h"
#include "kernels/tables.h"

namespace pare::kernels::generic {

constinit const Elementwise kElementwise = elementwise_table<Scalar>();

}  // namespace pare::kernels::generic
