#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "base/progress.h"
#include "model/model.h"

namespace pare {

/// What leaving out values below an attention threshold costs and saves (Model::set_attention_threshold).
struct ThresholdLoss {
  float threshold = 0;
  double nats_per_token = 0, perplexity = 0;
  std::vector<double> skipped;  // [layers] share of values left out; 0 for a layer without attention
  double mean_skipped = 0;      // over all values
};

/// Scores windows, at most `max_tokens` tokens of them (but at least one window), without a threshold and with each, in
/// that order; keys and values in f16. The model keeps the threshold it had. Throws Error for a threshold outside
/// [0, 1), or no window of two tokens; Interrupted.
std::vector<ThresholdLoss> measure_threshold_loss(Model& model, std::span<const std::vector<int32_t>> windows,
                                                  std::span<const float> thresholds, int64_t max_tokens,
                                                  Progress& progress, const CancelFlag* cancel);

}  // namespace pare
