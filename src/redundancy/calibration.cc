#include "redundancy/calibration.h"

#include <algorithm>
#include <utility>

#include "base/buffer.h"
#include "base/error.h"
#include "model/sampler.h"

namespace pare {
namespace {

constexpr std::string_view kSeparator = "<|endoftext|>";
constexpr int64_t kWriterCacheBytes = int64_t{256} << 20;

int64_t window_tokens(const CalibrationOptions& options, const Model& model) {
  const int64_t window = options.window > 0 ? options.window : std::min<int64_t>(model.config().context, 2048);
  if (options.window < 0 || options.max_tokens < 0) fail("calibration windows and tokens must not be negative");
  if (window < 2) fail("a calibration window of {} tokens is too short: at least 2 are needed", window);
  return window;
}

/// Takes the next document off the front of the text: everything up to the next separator line.
std::string_view next_document(std::string_view& text) {
  for (size_t at = text.find(kSeparator); at != std::string_view::npos; at = text.find(kSeparator, at + 1)) {
    const size_t after = at + kSeparator.size();
    const bool begins_line = at == 0 || text[at - 1] == '\n';
    const bool ends_line = after == text.size() || text[after] == '\n' || text[after] == '\r';
    if (!begins_line || !ends_line) continue;
    const std::string_view document = text.substr(0, at);
    text.remove_prefix(after);
    return document;
  }
  return std::exchange(text, {});
}

std::string_view trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

int64_t kv_bytes_per_token(const ModelConfig& config) {
  int64_t values = 0;
  for (const LayerConfig& layer : config.layers) {
    if (layer.attention) values += int64_t{2} * layer.attention->kv_heads * layer.attention->head_dim;
  }
  return values * 2;  // f16
}

int32_t first_token(const TokenizerData& tokenizer, const ModelConfig& config, uint64_t seed) {
  if (tokenizer.bos) return *tokenizer.bos;
  if (tokenizer.eos) return *tokenizer.eos;
  return static_cast<int32_t>(Random(seed).below(static_cast<uint64_t>(config.vocabulary)));
}

}  // namespace

std::vector<int32_t> joined_documents(const Tokenizer& tokenizer, std::string_view text, int64_t max_tokens) {
  std::vector<int32_t> ids;
  while (!text.empty() && static_cast<int64_t>(ids.size()) < max_tokens) {
    const std::string_view document = trim(next_document(text));
    if (document.empty()) continue;
    const std::vector<int32_t> encoded = tokenizer.encode(document, {.add_special = false, .parse_special = false});
    ids.insert(ids.end(), encoded.begin(), encoded.end());
    if (tokenizer.data().eos) ids.push_back(*tokenizer.data().eos);
  }
  ids.resize(std::min(ids.size(), static_cast<size_t>(max_tokens)));
  return ids;
}

std::vector<std::vector<int32_t>> calibration_windows(const Tokenizer& tokenizer, std::string_view text,
                                                      const CalibrationOptions& options, const Model& model) {
  const int64_t window = window_tokens(options, model);
  const std::vector<int32_t> ids =
      joined_documents(tokenizer, text, std::max<int64_t>(1, options.max_tokens / window) * window);
  if (ids.size() < 2) fail("the calibration text is too short: it has {} tokens", ids.size());
  std::vector<std::vector<int32_t>> windows;
  if (static_cast<int64_t>(ids.size()) < window) return {ids};
  for (auto at = ids.begin(); ids.end() - at >= window; at += window) windows.emplace_back(at, at + window);
  return windows;
}

std::vector<std::vector<int32_t>> self_calibration(Model& model, const Tokenizer& tokenizer,
                                                   const CalibrationOptions& options, uint64_t seed, Progress& progress,
                                                   const CancelFlag* cancel) {
  const int64_t window = window_tokens(options, model);
  const int64_t count = std::max<int64_t>(1, options.max_tokens / window);
  const int64_t cache_bytes = std::max<int64_t>(1, kv_bytes_per_token(model.config()) * window);
  const int64_t together = std::clamp<int64_t>(kWriterCacheBytes / cache_bytes, 1, std::min<int64_t>(count, 64));
  const auto vocabulary = static_cast<size_t>(model.config().vocabulary);
  KvCache cache(model.config(), static_cast<int>(together), window, DType::kF16);
  Buffer<float> logits(static_cast<size_t>(together) * vocabulary);
  std::vector<std::vector<int32_t>> windows(static_cast<size_t>(count));
  int64_t done = 0;
  progress.start("writing calibration text", "tokens", count * window);
  for (int64_t begin = 0; begin < count; begin += together) {
    const int64_t end = std::min(count, begin + together);
    std::vector<Sampler> samplers;
    for (int64_t w = begin; w < end; ++w) {
      const uint64_t own_seed = seed + static_cast<uint64_t>(w);
      samplers.emplace_back(SamplerOptions{
          .temperature = 1, .top_k = 0, .top_p = 1, .min_p = 0, .repetition_window = 0, .seed = own_seed});
      windows[static_cast<size_t>(w)] = {first_token(tokenizer.data(), model.config(), own_seed)};
      cache.clear(static_cast<int>(w - begin));
    }
    Batch batch;
    for (int64_t at = 0; at + 1 < window; ++at) {
      throw_if_cancelled(cancel);
      batch.clear();
      for (int64_t w = begin; w < end; ++w) {
        batch.add(windows[static_cast<size_t>(w)].back(), static_cast<int32_t>(w - begin), static_cast<int32_t>(at),
                  true);
      }
      const auto rows = static_cast<size_t>(end - begin);
      model.forward(batch, cache, logits.span().first(rows * vocabulary));
      for (size_t row = 0; row < rows; ++row) {
        const auto of_row = logits.span().subspan(row * vocabulary, vocabulary);
        windows[static_cast<size_t>(begin) + row].push_back(samplers[row].sample(of_row));
      }
      progress.update(done += batch.rows());
    }
  }
  progress.finish();
  return windows;
}

TextWindows scoring_windows(std::span<const std::vector<int32_t>> windows, int64_t max_tokens, int64_t longest) {
  std::vector<std::span<const int32_t>> pieces;
  for (const std::vector<int32_t>& window : windows) {
    for (std::span<const int32_t> rest = window; rest.size() >= 2;) {
      const size_t size = std::min(rest.size(), static_cast<size_t>(longest));
      pieces.push_back(rest.first(size));
      rest = rest.subspan(size);
    }
  }
  const auto available = static_cast<int64_t>(pieces.size());
  const int64_t wanted = std::clamp<int64_t>(max_tokens / longest, 1, available);
  TextWindows result;
  for (int64_t i = 0; i < wanted; ++i) {
    const auto piece = pieces[static_cast<size_t>(i * available / wanted)];
    result.windows.push_back({{piece.begin(), piece.end()}, 1, static_cast<int64_t>(piece.size())});
  }
  return result;
}

}  // namespace pare
