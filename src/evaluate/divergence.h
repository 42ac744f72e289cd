#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "evaluate/perplexity.h"

namespace pare {

/// What a base model predicts on a text, kept to compare variants with it: per counted prediction the full distribution as
/// log probabilities in f16 relative to the largest, or the top entries, whichever the budget allows.
class Reference {
 public:
  /// Runs the base model once over the windows. Keeps at most max_bytes (fewer entries a position if needed; the mass not
  /// kept counts as one remaining outcome).
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
  double mean_kl = 0;       // nats: mean over positions of KL(base || model)
  double p99_kl = 0;        // nats: 99th percentile
  double top1_agreement = 0;  // share of positions where both would choose the same token
  /// Base perplexity divided by the model's, 1 = as good as the base.
  double quality() const { return base.perplexity / model.perplexity; }
};

/// Compares a model with the reference on the reference's own windows.
DivergenceResult divergence(Model& model, const Reference& reference, DType kv, Progress& progress,
                            const CancelFlag* cancel);

}  // namespace pare
