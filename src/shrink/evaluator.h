#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "evaluate/divergence.h"
#include "redundancy/greedy.h"
#include "shrink/trials.h"

namespace pare {

/// What the trials of two searches must share to be of use to each other: the model (its shape, a sample of its
/// weights, what it predicts) and the cache's type.
std::string model_fingerprint(const Checkpoint& checkpoint, Model& model, DType kv);

/// Evaluates plans of one model on named slices of text: each plan and slice once, then from the store.
class PlanEvaluator {
 public:
  /// All must outlive it. Slices are measured with the base when they are first needed.
  PlanEvaluator(Variants& variants, TrialStore& store, DType kv, GgufReader reader, const CancelFlag* cancel);

  /// Adds a text; returns its number.
  int add_slice(const TextWindows& windows);
  /// Keeps the whole model at this type in memory, so that plans find their weights encoded; does nothing if that takes
  /// more than kKeptBytes in all.
  void keep(const Plan& plan);
  static constexpr int64_t kKeptBytes = int64_t{2} << 30;

  /// The plan against the base on a slice. A plan whose predictions are not numbers scores as useless, KL 1000.
  /// Throws Interrupted.
  SliceScore evaluate(const Plan& plan, int slice);
  /// The base on a slice.
  const PerplexityResult& base(int slice);
  /// Of the file that its reader gets.
  int64_t file_bytes(const Plan& plan) const;
  std::unique_ptr<Model> make(const Plan& plan) { return variants_.make(plan); }
  Variants& variants() { return variants_; }

  int64_t evaluated() const { return evaluated_; }  // now, not read from the store
  int64_t remembered() const { return remembered_; }
  /// Tokens run through models so far, and the seconds it took: the rate to expect.
  double tokens_per_second() const { return seconds_ > 0 ? static_cast<double>(tokens_) / seconds_ : 0; }

 private:
  struct Slice {
    TextWindows windows;
    std::string key;
    std::optional<Reference> reference;
  };
  const Reference& reference(Slice& slice);
  Slice& slice(int number) { return slices_[static_cast<size_t>(number)]; }

  Variants& variants_;
  TrialStore& store_;
  DType kv_;
  GgufReader reader_;
  const CancelFlag* cancel_;
  std::vector<Slice> slices_;
  std::vector<std::unique_ptr<Model>> kept_;
  int64_t kept_bytes_ = 0, evaluated_ = 0, remembered_ = 0, tokens_ = 0;
  double seconds_ = 0;
};

}  // namespace pare
