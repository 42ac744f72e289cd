#pragma once
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "model/model.h"
#include "model/sampler.h"

namespace pare {

struct GenerateOptions {
  int64_t max_tokens = 128;
  SamplerOptions sampler;
  bool ignore_end = false;             // go on after an end-of-generation token
  const CancelFlag* cancel = nullptr;  // stops cleanly after the token in hand
};

enum class StopReason : uint8_t { kLength, kEnd, kContext, kCancelled };

struct GenerateResult {
  std::vector<int32_t> tokens;
  StopReason reason = StopReason::kLength;
  double prefill_seconds = 0, decode_seconds = 0;
};

/// A forward pass gave logits that are not numbers: weights hold NaN or infinities, or sums overflowed.
class NotFinite : public Error {
 public:
  using Error::Error;
};

/// Continues a prompt (at least one token) in slot `sequence` of the cache, which is cleared first. on_token sees each
/// token as it comes. Throws NotFinite if the logits to choose from hold a NaN.
GenerateResult generate(Model& model, KvCache& cache, int sequence, std::span<const int32_t> prompt,
                        const GenerateOptions& options, const std::vector<int32_t>& end_tokens,
                        const std::function<void(int32_t)>& on_token = {});

}  // namespace pare
