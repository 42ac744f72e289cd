#include "evaluate/perplexity.h"

#include <algorithm>
#include <cmath>

#include "base/cpu.h"
#include "base/error.h"
#include "evaluate/run_windows.h"
#include "kernels/elementwise.h"

namespace pare {
namespace {

TextWindows strided_windows(std::span<const int32_t> tokens, int64_t context, int64_t stride) {
  const auto length = static_cast<int64_t>(tokens.size());
  TextWindows result;
  int64_t previous_end = 0;
  for (int64_t begin = 0; begin < length; begin += stride) {
    const int64_t end = std::min(begin + context, length);
    TextWindows::Window window;
    window.tokens.assign(tokens.begin() + begin, tokens.begin() + end);
    // A window's own first token has nothing before it that could predict it.
    window.first = std::max<int64_t>(1, previous_end - begin);
    window.last = end - begin;
    const int64_t counted = window.last - window.first, targets = std::min(end - previous_end, end - begin);
    if (counted > 0) window.weight = static_cast<double>(targets - 1) / static_cast<double>(counted);
    if (window.first < window.last) result.windows.push_back(std::move(window));
    previous_end = end;
    if (end == length) break;
  }
  return result;
}

TextWindows chunked_windows(std::span<const int32_t> tokens, int64_t context, const TokenizerData& tokenizer) {
  const auto length = static_cast<int64_t>(tokens.size());
  TextWindows result;
  for (int64_t begin = 0; begin + context <= length; begin += context) {
    TextWindows::Window window;
    window.tokens.assign(tokens.begin() + begin, tokens.begin() + begin + context);
    if (tokenizer.add_bos && tokenizer.bos) window.tokens[0] = *tokenizer.bos;
    window.first = context / 2 + 1;
    window.last = context;
    result.windows.push_back(std::move(window));
  }
  return result;
}

}  // namespace

PerplexityProtocol parse_protocol(std::string_view name) {
  if (name == "strided") return PerplexityProtocol::kStrided;
  if (name == "chunked") return PerplexityProtocol::kChunked;
  fail("unknown perplexity protocol '{}' (known: strided, chunked)", name);
}

int64_t TextWindows::counted() const {
  int64_t total = 0;
  for (const Window& window : windows) total += window.last - window.first;
  return total;
}

TextWindows make_windows(std::span<const int32_t> tokens, const WindowOptions& options, const Model& model,
                         const TokenizerData& tokenizer) {
  const bool strided = options.protocol == PerplexityProtocol::kStrided;
  const int64_t usual = strided ? 1024 : 512;
  const int64_t context = options.context > 0 ? options.context : std::min(model.config().context, usual);
  const int64_t stride = options.stride > 0 ? options.stride : std::max<int64_t>(1, context / 2);
  const int64_t least = strided ? 2 : 4;  // the smallest window that counts anything
  if (options.context < 0 || options.stride < 0 || options.max_tokens < 0) {
    fail("context, stride and tokens must not be negative");
  }
  if (context < least) fail("a context of {} tokens is too short: at least {} are needed", context, least);
  if (strided && stride > context) fail("stride {} is larger than the context of {} tokens", stride, context);
  if (options.max_tokens > 0) tokens = tokens.first(std::min(tokens.size(), static_cast<size_t>(options.max_tokens)));
  TextWindows result = strided ? strided_windows(tokens, context, stride) : chunked_windows(tokens, context, tokenizer);
  if (result.windows.empty()) {
    fail("the text is too short: it has {} tokens, and {} perplexity needs at least {}", tokens.size(),
         strided ? "strided" : "chunked", strided ? least : context);
  }
  return result;
}

void score_rows(Model& model, const TextWindows& windows, DType kv, FunctionRef<void(const ScoredRows&)> see,
                Progress& progress, const CancelFlag* cancel) {
  std::vector<WindowRun> runs;
  std::vector<int32_t> targets;
  int64_t total = 0;
  for (const TextWindows::Window& window : windows.windows) {
    // The row before a token predicts it, so the last token itself need not be run.
    const auto tokens = std::span(window.tokens).first(static_cast<size_t>(window.last - 1));
    runs.push_back({tokens, window.first - 1, window.last - 1, static_cast<int64_t>(window.tokens.size())});
    targets.insert(targets.end(), window.tokens.begin() + window.first, window.tokens.begin() + window.last);
    total += static_cast<int64_t>(tokens.size());
  }
  KvCache cache = make_window_cache(model, runs, kv);
  progress.start("evaluating", "tokens", total);
  size_t index = 0;
  run_windows(
      model, cache, runs, nullptr,
      [&](const WindowLogits& scored) {
        const size_t rows = scored.logits.size() / static_cast<size_t>(model.config().vocabulary);
        see({static_cast<int64_t>(index), std::span(targets).subspan(index, rows), scored.logits});
        index += rows;
      },
      progress, cancel);
  progress.finish();
}

void score_windows(Model& model, const TextWindows& windows, DType kv,
                   const std::function<void(int64_t index, int32_t token, std::span<const float> logits)>& see,
                   Progress& progress, const CancelFlag* cancel) {
  const auto vocabulary = static_cast<size_t>(model.config().vocabulary);
  score_rows(
      model, windows, kv,
      [&](const ScoredRows& rows) {
        for (size_t i = 0; i < rows.tokens.size(); ++i) {
          see(rows.first + static_cast<int64_t>(i), rows.tokens[i], rows.logits.subspan(i * vocabulary, vocabulary));
        }
      },
      progress, cancel);
}

PerplexityResult summarize(const TextWindows& windows, std::span<const double> nats) {
  PerplexityResult result;
  result.tokens = static_cast<int64_t>(nats.size());
  const auto weighted_mean = [&](FunctionRef<double(double)> of) {
    double sum = 0, weights = 0;
    size_t i = 0;
    for (const TextWindows::Window& window : windows.windows) {
      for (int64_t position = window.first; position < window.last; ++position) {
        sum += window.weight * of(nats[i++]);
        weights += window.weight;
      }
    }
    return weights > 0 ? sum / weights : 0;
  };
  const double mean = weighted_mean([](double x) { return x; });
  const double variance = weighted_mean([&](double x) { return (x - mean) * (x - mean); });
  result.nats_per_token = mean;
  result.perplexity = std::exp(mean);
  if (nats.size() > 1) result.standard_error = std::sqrt(variance / static_cast<double>(nats.size() - 1));
  return result;
}

PerplexityResult perplexity(Model& model, const TextWindows& windows, DType kv, Progress& progress,
                            const CancelFlag* cancel) {
  const kernels::Elementwise& ops = kernels::elementwise();
  const int64_t vocabulary = model.config().vocabulary;
  std::vector<double> nats(static_cast<size_t>(windows.counted()));
  score_rows(
      model, windows, kv,
      [&](const ScoredRows& rows) {
        model.pool().parallel_for(
            static_cast<int64_t>(rows.tokens.size()), 4, [&](int64_t begin, int64_t end, int /*worker*/) {
              for (int64_t i = begin; i < end; ++i) {
                const float* logits = rows.logits.data() + i * vocabulary;
                const double total = ops.log_sum_exp(logits, vocabulary);
                nats[static_cast<size_t>(rows.first + i)] = total - double{logits[rows.tokens[static_cast<size_t>(i)]]};
              }
            });
        for (size_t i = 0; i < rows.tokens.size(); ++i) {
          const auto index = static_cast<size_t>(rows.first) + i;
          if (!std::isfinite(nats[index])) fail("prediction {} of the text is not a finite number", index);
        }
      },
      progress, cancel);
  return summarize(windows, nats);
}

}  // namespace pare
