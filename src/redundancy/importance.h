#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/progress.h"
#include "model/model.h"

namespace pare {

/// What one layer's parts are worth, as LLM-Drop scores it (arXiv 2406.15786, section 3): 1 - mean over tokens of the
/// cosine similarity of the residual stream before the pre-norm and after the part's output was added. Parts that are
/// absent have none.
struct LayerImportance {
  double block = 0;
  std::optional<double> attention, mlp;
  /// Share of causal attention weights below 1e-3 of their row's largest, mean over heads and sampled rows: 64 of each
  /// window, evenly spread.
  std::optional<double> attention_sparsity;
  /// Largest and tenth largest absolute value of the block's output stream, over all tokens.
  double top1_activation = 0, top10_activation = 0;
};

struct Redundancy {
  std::vector<LayerImportance> layers;
  int64_t tokens = 0;  // calibration tokens scored
};

/// Scores every layer in one pass over the windows, with keys and values in f32. Throws Error naming the first layer
/// whose activations are not finite; Interrupted.
Redundancy measure_redundancy(Model& model, std::span<const std::vector<int32_t>> windows, Progress& progress,
                              const CancelFlag* cancel);

}  // namespace pare
