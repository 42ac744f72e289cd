#include "model/generate.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "base/error.h"

namespace pare {
namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

GenerateResult generate(Model& model, KvCache& cache, int sequence, std::span<const int32_t> prompt,
                        const GenerateOptions& options, const std::vector<int32_t>& end_tokens,
                        const std::function<void(int32_t)>& on_token) {
  if (prompt.empty()) fail("an empty prompt: expected at least one token");
  if (static_cast<int64_t>(prompt.size()) > cache.context()) {
    fail("a prompt of {} tokens: longer than the context of {}", prompt.size(), cache.context());
  }
  GenerateResult result;
  Sampler sampler(options.sampler);
  for (int32_t token : prompt) sampler.saw(token);
  cache.clear(sequence);
  std::vector<TokenLogit> candidates;
  const auto cancelled = [&] { return options.cancel && options.cancel->load(std::memory_order_relaxed); };
  double start = now();
  // In pieces, so that a long prompt can be stopped; frequencies still follow the whole prompt's length.
  for (size_t at = 0; at < prompt.size() && !cancelled(); at += kMaxChunkRows) {
    Batch batch;
    batch.add_span(prompt.subspan(at, std::min<size_t>(kMaxChunkRows, prompt.size() - at)), sequence,
                   static_cast<int32_t>(at), false);
    batch.sequence_length.assign(batch.tokens.size(), static_cast<int32_t>(prompt.size()));
    model.forward(batch, cache, sampler.considered(), candidates);
  }
  result.prefill_seconds = now() - start;
  start = now();
  Batch batch;
  while (true) {
    if (cancelled()) {
      result.reason = StopReason::kCancelled;
      break;
    }
    if (static_cast<int64_t>(result.tokens.size()) >= options.max_tokens) {
      result.reason = StopReason::kLength;
      break;
    }
    if (std::any_of(candidates.begin(), candidates.end(), [](const TokenLogit& c) { return std::isnan(c.logit); })) {
      throw NotFinite(fmt::format("logits are NaN after {} tokens: expected numbers", cache.tokens(sequence)));
    }
    const int32_t token = sampler.sample(candidates);
    if (!options.ignore_end && std::find(end_tokens.begin(), end_tokens.end(), token) != end_tokens.end()) {
      result.reason = StopReason::kEnd;
      break;
    }
    result.tokens.push_back(token);
    if (on_token) on_token(token);
    if (cache.tokens(sequence) >= cache.context()) {
      result.reason = StopReason::kContext;
      break;
    }
    if (static_cast<int64_t>(result.tokens.size()) >= options.max_tokens) continue;  // its logits would go unused
    batch.clear();
    batch.add(token, sequence, static_cast<int32_t>(cache.tokens(sequence)), true);
    model.forward(batch, cache, sampler.considered(), candidates);
  }
  result.decode_seconds = now() - start;
  return result;
}

}  // namespace pare
