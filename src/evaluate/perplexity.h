#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/progress.h"
#include "model/model.h"

namespace pare {

/// How a long text is cut into windows, and which tokens of a window count.
enum class PerplexityProtocol : uint8_t {
  /// transformers' guide: windows of `context` tokens, `stride` apart; only tokens that no earlier window scored count.
  kStrided,
  /// llama.cpp's perplexity: windows of `context` tokens, one after another, each beginning with BOS in place of its
  /// first token where the model adds one; only the second half of each counts.
  kChunked,
};

struct TextWindows {
  /// One window: tokens, and the range [first, last) of positions whose prediction counts: position i is predicted from
  /// tokens before it, so first >= 1.
  struct Window {
    std::vector<int32_t> tokens;
    int64_t first = 0, last = 0;
  };
  std::vector<Window> windows;
  int64_t counted() const;  // predictions in all
};

struct WindowOptions {
  PerplexityProtocol protocol = PerplexityProtocol::kStrided;
  int64_t context = 0;     // 0 = the smaller of the model's context and 1024 (strided) or 512 (chunked)
  int64_t stride = 0;      // 0 = half the context (strided only)
  int64_t max_tokens = 0;  // 0 = the whole text
};

/// Cuts a tokenised text. Throws Error if it is too short for one window that counts anything.
TextWindows make_windows(std::span<const int32_t> tokens, const WindowOptions& options, const Model& model,
                         const TokenizerData& tokenizer);

/// Calls `see` for each counted prediction in order of the text: the token that came and the logits [vocabulary] before
/// it. Windows are run several at a time. Throws Interrupted.
void score_windows(Model& model, const TextWindows& windows, DType kv,
                   const std::function<void(int64_t index, int32_t token, std::span<const float> logits)>& see,
                   Progress& progress, const CancelFlag* cancel);

struct PerplexityResult {
  double perplexity = 0;
  double nats_per_token = 0;
  double standard_error = 0;  // of nats_per_token
  int64_t tokens = 0;         // predictions counted
};

PerplexityResult perplexity(Model& model, const TextWindows& windows, DType kv, Progress& progress,
                            const CancelFlag* cancel);

}  // namespace pare
