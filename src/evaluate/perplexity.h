#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/function_ref.h"
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
    double weight = 1;  // of each counted token in the mean
  };
  std::vector<Window> windows;
  int64_t counted() const;  // predictions in all
};

/// "strided" or "chunked"; throws Error naming both for anything else.
PerplexityProtocol parse_protocol(std::string_view name);

struct WindowOptions {
  PerplexityProtocol protocol = PerplexityProtocol::kStrided;
  int64_t context = 0;     // 0 = the smaller of the model's context and 1024 (strided) or 512 (chunked)
  int64_t stride = 0;      // 0 = half the context (strided only)
  int64_t max_tokens = 0;  // 0 = the whole text
};

/// Cuts a text that was tokenised once, with the tokens its tokenizer adds. Throws Error if it is too short for one
/// window that counts anything, or the options contradict themselves.
///
/// Strided (https://huggingface.co/docs/transformers/perplexity): windows begin at 0, stride, 2 stride, ... and end
/// with the text; of each, the tokens after the end of the window before count. The guide's running mean takes each
/// later window for one token less than its loss is the mean of; so do these weights, or the fourth digit would differ.
///
/// Chunked (llama.cpp, tools/perplexity): whole windows only; the logits of positions [context / 2, context - 1) count,
/// each for the token after it.
TextWindows make_windows(std::span<const int32_t> tokens, const WindowOptions& options, const Model& model,
                         const TokenizerData& tokenizer);

/// Counted predictions that were run together, in order of the text.
struct ScoredRows {
  int64_t first = 0;                // index of the first among all counted predictions
  std::span<const int32_t> tokens;  // [rows] the tokens that came
  std::span<const float> logits;    // [rows, vocabulary] before each
};

/// Runs the windows, several at a time, and shows every counted prediction once, in order. `see` is called between
/// forward passes on the calling thread, so it may use the model's thread pool. Throws Interrupted.
void score_rows(Model& model, const TextWindows& windows, DType kv, FunctionRef<void(const ScoredRows&)> see,
                Progress& progress, const CancelFlag* cancel);

/// The same, one prediction at a time: the token that came and the logits [vocabulary] before it.
void score_windows(Model& model, const TextWindows& windows, DType kv,
                   const std::function<void(int64_t index, int32_t token, std::span<const float> logits)>& see,
                   Progress& progress, const CancelFlag* cancel);

struct PerplexityResult {
  double perplexity = 0;
  double nats_per_token = 0;
  double standard_error = 0;  // of nats_per_token
  int64_t tokens = 0;         // predictions counted
};

/// The mean, in double, of what each counted prediction cost, in nats: [predictions].
PerplexityResult summarize(const TextWindows& windows, std::span<const double> nats);

PerplexityResult perplexity(Model& model, const TextWindows& windows, DType kv, Progress& progress,
                            const CancelFlag* cancel);

}  // namespace pare
