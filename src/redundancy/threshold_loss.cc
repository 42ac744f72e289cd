#include "redundancy/threshold_loss.h"

#include "base/error.h"
#include "evaluate/perplexity.h"

namespace pare {
namespace {

/// Every token of a window after its first counts.
TextWindows whole_windows(std::span<const std::vector<int32_t>> windows, int64_t max_tokens) {
  TextWindows result;
  int64_t tokens = 0;
  for (const std::vector<int32_t>& window : windows) {
    const auto length = static_cast<int64_t>(window.size());
    if (length < 2) continue;
    if (!result.windows.empty() && tokens + length > max_tokens) break;
    result.windows.push_back({window, 1, length, 1});
    tokens += length;
  }
  if (result.windows.empty()) fail("there is no calibration text to score attention thresholds on");
  return result;
}

ThresholdLoss measure_one(Model& model, const TextWindows& windows, float threshold, Progress& progress,
                          const CancelFlag* cancel) {
  model.set_attention_threshold(threshold);
  const PerplexityResult result = perplexity(model, windows, DType::kF16, progress, cancel);
  ThresholdLoss loss{threshold, result.nats_per_token, result.perplexity, {}, 0};
  AttentionReads all;
  for (const AttentionReads& layer : model.attention_reads()) {
    const auto left_out = static_cast<double>(layer.seen - layer.read);
    loss.skipped.push_back(layer.seen > 0 ? left_out / static_cast<double>(layer.seen) : 0);
    all.read += layer.read, all.seen += layer.seen;
  }
  if (all.seen > 0) loss.mean_skipped = static_cast<double>(all.seen - all.read) / static_cast<double>(all.seen);
  return loss;
}

}  // namespace

std::vector<ThresholdLoss> measure_threshold_loss(Model& model, std::span<const std::vector<int32_t>> windows,
                                                  std::span<const float> thresholds, int64_t max_tokens,
                                                  Progress& progress, const CancelFlag* cancel) {
  const TextWindows text = whole_windows(windows, max_tokens);
  const struct Restore {
    Model& model;
    float threshold;
    ~Restore() { model.set_attention_threshold(threshold); }
  } restore{model, model.attention_threshold()};
  std::vector<ThresholdLoss> losses{measure_one(model, text, 0, progress, cancel)};
  for (const float threshold : thresholds) losses.push_back(measure_one(model, text, threshold, progress, cancel));
  return losses;
}

}  // namespace pare
