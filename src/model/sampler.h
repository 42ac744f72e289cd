#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "base/random.h"
#include "model/candidates.h"

namespace pare {

struct SamplerOptions {
  float temperature = 0.8f;         // 0 = greedy
  int top_k = 40;                   // 0 = all
  float top_p = 0.95f;              // 1 = all
  float min_p = 0.05f;              // 0 = all
  float repetition_penalty = 1.0f;  // 1 = none (CTRL, arXiv 1909.05858)
  int repetition_window = 64;
  uint64_t seed = 0;
};

/// Throws Error naming the option that makes no sense.
void check_sampler_options(const SamplerOptions& options);

/// Chooses tokens from logits; one per sequence, since it remembers what was chosen.
class Sampler {
 public:
  explicit Sampler(const SamplerOptions& options);
  /// For the repetition penalty: a token of the prompt.
  void saw(int32_t token);
  /// So many of the largest logits decide; 0: all.
  int64_t considered() const;
  /// Chooses from the tokens given, by id: all, or those of the largest logits that decide. Ties go to the lowest id.
  /// The chosen token counts as seen.
  int32_t sample(std::span<const TokenLogit> given);
  /// logits [vocabulary]
  int32_t sample(std::span<const float> logits);

 private:
  SamplerOptions options_;
  Random random_;
  std::vector<int32_t> recent_;
};

}  // namespace pare
