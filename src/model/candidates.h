#pragma once
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/head.h"
#include "model/linear.h"

namespace pare {

/// A token that may come next.
struct TokenLogit {
  int32_t token;
  float logit;
  bool operator==(const TokenLogit&) const = default;
};

/// The `count` largest of logits [vocabulary], and those that equal the last of them, by token; all if count is 0. If
/// some are NaN, those.
void pick_candidates(std::span<const float> logits, int64_t count, std::vector<TokenLogit>& candidates);

/// Finds the largest outputs of a matrix without computing all, where it is one in two parts (kernels/head.h): the
/// rows with the highest bounds first, until no bound is left above the worst of those wanted.
class CandidateSearch {
 public:
  explicit CandidateSearch(ThreadPool& pool) : pool_(pool) {}
  /// What pick_candidates would give of the outputs for the single row of input, the same bits.
  void find(const LinearGroup& output, LinearInput& input, Multiplier& multiplier, int64_t count,
            std::vector<TokenLogit>& candidates);
  /// Rows that the last search computed.
  int64_t computed() const { return computed_; }

 private:
  struct Found;
  bool worth_trying();
  void choose(float least, int64_t count, std::vector<int32_t>& groups);
  void compute(const PackedWeight& weight, const kernels::MultiplyArgs& args, std::vector<int32_t>& groups);
  void search(const PackedWeight& weight, const LinearInput::View& input, int64_t count,
              std::vector<TokenLogit>& candidates);

  ThreadPool& pool_;
  std::vector<float> logits_;                    // [vocabulary]
  std::vector<float> most_;                      // [groups of 16 rows] the bound of those that are not computed
  std::vector<kernels::UnitBounds> units_;       // [units of the input]
  std::vector<std::pair<float, int32_t>> best_;  // bounds and groups, to be computed next
  int64_t computed_ = 0;
  // After a search that read more than the whole matrix, so many are not tried.
  int64_t pause_ = 0, paused_ = 0;
};

}  // namespace pare
