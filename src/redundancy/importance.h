#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/progress.h"
#include "evaluate/perplexity.h"
#include "model/model.h"

namespace pare {

/// What one layer's parts are worth, as LLM-Drop scores it (arXiv 2406.15786, section 3): 1 - mean over tokens of the
/// cosine similarity of the residual stream before the pre-norm and after the part's output was added. Parts that are
/// absent have none.
struct LayerImportance {
  double block = 0;
  std::optional<double> attention, mlp;
  /// Share of causal attention weights below 1e-3 of their row's largest, mean over heads and sampled rows.
  std::optional<double> attention_sparsity;
  /// Largest and tenth largest absolute value of the block's output stream, over all tokens.
  double top1_activation = 0, top10_activation = 0;
};

struct Redundancy {
  std::vector<LayerImportance> layers;
  int64_t tokens = 0;  // calibration tokens scored
};

struct CalibrationOptions {
  int64_t window = 0;         // tokens a window; 0 = the smaller of the model's context and 2048
  int64_t max_tokens = 65536; // in all
};

/// Calibration text in windows as LLM-Drop cuts it: documents (separated by the line <|endoftext|> in the text) joined by
/// the end token, no beginning token, cut into full windows; a text shorter than one window is one window.
std::vector<std::vector<int32_t>> calibration_windows(const Tokenizer& tokenizer, std::string_view text,
                                                      const CalibrationOptions& options, const Model& model);
/// Calibration text that the model writes itself: sampled at temperature 1 from its beginning token.
std::vector<std::vector<int32_t>> self_calibration(Model& model, const Tokenizer& tokenizer,
                                                   const CalibrationOptions& options, uint64_t seed,
                                                   Progress& progress, const CancelFlag* cancel);

/// Scores every layer in one pass over the windows.
Redundancy measure_redundancy(Model& model, std::span<const std::vector<int32_t>> windows, Progress& progress,
                              const CancelFlag* cancel);

}  // namespace pare
