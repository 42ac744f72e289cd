#include "base/progress.h"

#include "base/error.h"

namespace pare {

Progress& no_progress() {
  static Progress nothing;
  return nothing;
}

void throw_if_cancelled(const CancelFlag* flag) {
  if (flag && flag->load(std::memory_order_relaxed)) throw Interrupted();
}

}  // namespace pare
