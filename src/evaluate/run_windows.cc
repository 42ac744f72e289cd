#include "evaluate/run_windows.h"

#include <algorithm>
#include <vector>

namespace pare {
namespace {

constexpr int64_t kLogitBytes = int64_t{64} << 20;

/// How many windows from `begin` on fit one batch whole; at least one, which may be longer than a batch.
size_t group_end(std::span<const WindowRun> windows, size_t begin, int64_t max_rows) {
  auto rows = static_cast<int64_t>(windows[begin].tokens.size());
  size_t end = begin + 1;
  while (end < windows.size()) {
    rows += static_cast<int64_t>(windows[end].tokens.size());
    if (rows > max_rows) break;
    ++end;
  }
  return end;
}

int64_t rows_at_once(const Model& model, std::span<const WindowRun> windows) {
  const bool any =
      std::any_of(windows.begin(), windows.end(), [](const WindowRun& w) { return w.logits_last > w.logits_first; });
  if (!any) return kMaxChunkRows;
  const int64_t row_bytes = model.config().vocabulary * static_cast<int64_t>(sizeof(float));
  return std::clamp<int64_t>(kLogitBytes / row_bytes, 16, kMaxChunkRows);
}

void append(Batch& batch, const WindowRun& window, int32_t slot, int64_t begin, int64_t end) {
  const auto length = window.length > 0 ? window.length : static_cast<int64_t>(window.tokens.size());
  for (int64_t i = begin; i < end; ++i) {
    batch.add(window.tokens[static_cast<size_t>(i)], slot, static_cast<int32_t>(i),
              i >= window.logits_first && i < window.logits_last);
    // A window is one call in transformers, whatever pieces it is run in here.
    batch.sequence_length.push_back(static_cast<int32_t>(length));
  }
}

}  // namespace

KvCache make_window_cache(const Model& model, std::span<const WindowRun> windows, DType kv) {
  const int64_t max_rows = rows_at_once(model, windows);
  size_t slots = 1, longest = 1;
  for (size_t begin = 0, end = 0; begin < windows.size(); begin = end) {
    end = group_end(windows, begin, max_rows);
    slots = std::max(slots, end - begin);
  }
  for (const WindowRun& window : windows) longest = std::max(longest, window.tokens.size());
  return KvCache(model.config(), static_cast<int>(slots), static_cast<int64_t>(longest), kv);
}

void run_windows(Model& model, KvCache& cache, std::span<const WindowRun> windows, Observer* observer,
                 FunctionRef<void(const WindowLogits&)> after, Progress& progress, const CancelFlag* cancel) {
  const int64_t max_rows = rows_at_once(model, windows);
  Buffer<float> logits;
  Batch batch;
  int64_t done = 0;
  const auto run = [&] {
    throw_if_cancelled(cancel);
    const auto wanted = static_cast<size_t>(std::count(batch.wants_logits.begin(), batch.wants_logits.end(), 1));
    const size_t floats = wanted * static_cast<size_t>(model.config().vocabulary);
    logits.reserve(floats);
    model.forward(batch, cache, logits.span().first(floats), observer);
    if (wanted > 0) after({&batch, logits.span().first(floats)});
    progress.update(done += batch.rows());
    batch.clear();
  };
  for (size_t begin = 0, end = 0; begin < windows.size(); begin = end) {
    end = group_end(windows, begin, max_rows);
    for (size_t w = begin; w < end; ++w) {
      const auto slot = static_cast<int32_t>(w - begin);
      const auto length = static_cast<int64_t>(windows[w].tokens.size());
      cache.clear(slot);
      for (int64_t from = 0; from < length; from += max_rows) {
        const int64_t to = std::min(length, from + max_rows);
        append(batch, windows[w], slot, from, to);
        if (to < length) run();
      }
    }
    run();
  }
}

}  // namespace pare
