#pragma once
#include <vector>

#include "shrink/search.h"

namespace pare {

/// The yardstick of a search: as many plans drawn at random, each evaluated on all text. Not a blind draw: every plan
/// has its own random mix of types, so that all sizes come up, and half of them drop some of the less important half of
/// the parts. The first trial is the base.
std::vector<SearchTrial> random_search(const SearchSpace& space, const SpeedModel& speed,
                                       const TrialEvaluator& evaluator, int64_t trials, uint64_t seed);

/// The least KL divergence of complete trials at most this large; nothing if there is none.
std::optional<double> best_kl_at(const std::vector<SearchTrial>& trials, int64_t bytes);

}  // namespace pare
