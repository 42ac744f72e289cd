#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/buffer.h"
#include "base/thread_pool.h"
#include "evaluate/perplexity.h"

namespace pare {

/// Distributions over a vocabulary, kept small: for each position the log probabilities relative to the largest in f16,
/// of every token or only of the likeliest, when what remains counts as one further outcome.
class DistributionStore {
 public:
  /// Room for `positions` distributions in at most max_bytes. Throws Error if not even kLeastEntries a position fit.
  DistributionStore(int64_t positions, int64_t vocabulary, int64_t max_bytes);

  static constexpr int64_t kLeastEntries = 16;
  int64_t positions() const { return positions_; }
  int64_t vocabulary() const { return vocabulary_; }
  /// Entries kept of each position; vocabulary() if nothing is left out.
  int64_t kept() const { return kept_; }
  int64_t bytes() const;

  /// Keeps the distribution of logits [vocabulary] as that of `position`. scratch: [vocabulary]. Returns log(sum(exp))
  /// of the logits. Different positions may be put at once. Throws Error for logits that are not finite.
  double put(int64_t position, const float* logits, float* scratch);

  struct Comparison {
    double kl;       // nats, KL(kept || logits)
    double log_sum;  // log(sum(exp(logits)))
    bool same_top;   // both would choose the same token
  };
  /// Compares logits [vocabulary] with what was put at `position`. scratch: [vocabulary].
  Comparison compare(int64_t position, const float* logits, float* scratch) const;

 private:
  struct Position {
    int32_t top;         // the likeliest token
    float remaining;     // weight of what is not kept, relative to the likeliest token's
    double weight_sum;   // of all outcomes, as decoded
    double log_weights;  // sum over outcomes of weight * log(weight)
  };
  bool complete() const { return kept_ == vocabulary_; }
  int64_t positions_, vocabulary_, kept_;
  Buffer<uint16_t> codes_;  // [positions, kept] f16 of largest logit - logit
  Buffer<int32_t> ids_;     // [positions, kept], or empty if complete
  std::vector<Position> summary_;
};

/// What a base model predicts on a text, kept to compare variants with it.
class Reference {
 public:
  /// Runs the base model once over the windows. Keeps at most max_bytes (fewer entries a position if needed; the mass
  /// not kept counts as one remaining outcome).
  static Reference measure(Model& base, const TextWindows& windows, DType kv, Progress& progress,
                           const CancelFlag* cancel, int64_t max_bytes = int64_t{1} << 30);
  const TextWindows& windows() const;
  const PerplexityResult& base() const;
  ~Reference();
  Reference(Reference&&) noexcept;
  Reference& operator=(Reference&&) noexcept;

  struct Impl;
  const Impl& impl() const { return *impl_; }

 private:
  Reference();
  std::unique_ptr<Impl> impl_;
};

struct DivergenceResult {
  PerplexityResult model, base;
  double mean_kl = 0;         // nats: mean over positions of KL(base || model)
  double p99_kl = 0;          // nats: 99th percentile
  double top1_agreement = 0;  // share of positions where both would choose the same token
  /// Base perplexity divided by the model's, 1 = as good as the base.
  double quality() const { return base.perplexity / model.perplexity; }
};

/// Compares a model with the reference on the reference's own windows. Throws Error if the vocabularies differ in size.
DivergenceResult divergence(Model& model, const Reference& reference, DType kv, Progress& progress,
                            const CancelFlag* cancel);

}  // namespace pare
