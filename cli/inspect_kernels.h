#pragma once
#include <string>

#include "common.h"

namespace pare::cli {

/// Which kernels run a model's matrices here with --threads and --kernel, why, and which others could; those that are
/// chosen by time are timed unless that is remembered. Throws Error for a --kernel that does not run here, Interrupted.
std::string kernels_text(const Checkpoint& checkpoint, Common& common);
Json kernels_json(const Checkpoint& checkpoint, Common& common);

}  // namespace pare::cli
