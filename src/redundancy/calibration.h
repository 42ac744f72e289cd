#pragma once
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/progress.h"
#include "evaluate/perplexity.h"
#include "model/model.h"

namespace pare {

/// The calibration text that comes with pare (data/calibration.txt): public-domain stories.
std::string_view default_calibration_text();

struct CalibrationOptions {
  int64_t window = 0;          // tokens a window; 0 = the smaller of the model's context and 2048
  int64_t max_tokens = 65536;  // in all; at least one window is made
};

/// A text's documents (separated by the line <|endoftext|>), each followed by the end token, with no beginning token;
/// at most max_tokens tokens.
std::vector<int32_t> joined_documents(const Tokenizer& tokenizer, std::string_view text, int64_t max_tokens);

/// Calibration text in windows as LLM-Drop cuts it: documents (separated by the line <|endoftext|> in the text) each
/// followed by the end token, no beginning token, cut into full windows; a text shorter than one window is one window.
/// Throws Error if the text holds fewer than two tokens.
std::vector<std::vector<int32_t>> calibration_windows(const Tokenizer& tokenizer, std::string_view text,
                                                      const CalibrationOptions& options, const Model& model);
/// Calibration text that the model writes itself: sampled at temperature 1 from its beginning token (the end token, or
/// a random one, for a tokenizer without it). Windows are written several at a time; each depends only on the seed and
/// its own number.
std::vector<std::vector<int32_t>> self_calibration(Model& model, const Tokenizer& tokenizer,
                                                   const CalibrationOptions& options, uint64_t seed, Progress& progress,
                                                   const CancelFlag* cancel);

/// The same windows for comparing models on: every token but a window's first counts. At most max_tokens tokens, taken
/// as windows of at most `longest` tokens spread evenly over the text.
TextWindows scoring_windows(std::span<const std::vector<int32_t>> windows, int64_t max_tokens, int64_t longest = 512);

}  // namespace pare
