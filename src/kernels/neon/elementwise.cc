#include "kernels/neon/primitives.h"
// The primitives come first.
#include "kernels/generic/elementwise.inl.h"
#include "kernels/tables.h"

namespace pare::kernels::neon {

constinit const Elementwise kElementwise = elementwise_table<Neon>();

}  // namespace pare::kernels::neon
