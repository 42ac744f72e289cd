#pragma once
#include <cstdint>
#include <span>

#include "base/function_ref.h"
#include "base/progress.h"
#include "model/model.h"

namespace pare {

/// A stretch of tokens that begins a sequence of its own, and the rows of it whose logits are wanted.
struct WindowRun {
  std::span<const int32_t> tokens;
  int64_t logits_first = 0, logits_last = 0;  // rows [first, last)
  int64_t length = 0;                         // of the sequence as rope scalings see it; 0 = tokens.size()
};

/// What was just run: logits [rows, vocabulary] of consecutive wanted rows, windows in order.
struct WindowLogits {
  const Batch* batch = nullptr;
  std::span<const float> logits;
};

/// A cache that run_windows can use for these windows: as many slots as are run together.
KvCache make_window_cache(const Model& model, std::span<const WindowRun> windows, DType kv);

/// Runs every window through the model, in order: short ones several at a time as sequences of one batch, long ones in
/// pieces, at most kMaxChunkRows rows and about 64 MB of logits at once. `after` is called after each batch that wanted
/// logits. Progress is counted in tokens. Throws Interrupted.
void run_windows(Model& model, KvCache& cache, std::span<const WindowRun> windows, Observer* observer,
                 FunctionRef<void(const WindowLogits&)> after, Progress& progress, const CancelFlag* cancel);

}  // namespace pare
