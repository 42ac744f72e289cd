#include "shrink/random_search.h"

#include <cmath>
#include <set>

namespace pare {
namespace {

Candidate draw(const SearchSpace& space, Random& random) {
  Candidate candidate = space.unchanged();
  std::vector<double> weight(256);
  for (double& w : weight) w = -std::log(1 - random.uniform());
  for (size_t u = 0; u < space.units.size(); ++u) {
    const size_t options = space.units[u].options.size();
    double sum = 0;
    for (size_t o = 0; o < options; ++o) sum += weight[o];
    double at = random.uniform() * sum;
    size_t o = 0;
    while (o + 1 < options && at >= weight[o]) at -= weight[o++];
    candidate.option[u] = static_cast<uint8_t>(o);
  }
  const size_t half = space.parts.size() / 2;
  if (half > 0 && random.below(2) == 0) {
    const uint64_t drops = 1 + random.below(std::max<uint64_t>(1, half / 2));
    for (uint64_t i = 0; i < drops; ++i) candidate.dropped[random.below(half)] = 1;
  }
  return candidate;
}

}  // namespace

std::vector<SearchTrial> random_search(const SearchSpace& space, const SpeedModel& speed,
                                       const TrialEvaluator& evaluator, int64_t trials, uint64_t seed) {
  Random random(seed);
  std::vector<SearchTrial> result(1);
  result[0].candidate = space.unchanged();
  result[0].bytes = space.bytes(result[0].candidate);
  result[0].complete = true;
  std::set<std::string> seen;
  for (int64_t tries = 0; static_cast<int64_t>(result.size()) <= trials && tries < 20 * trials; ++tries) {
    SearchTrial trial;
    trial.candidate = space.canonical(draw(space, random));
    trial.plan = space.to_plan(trial.candidate);
    if (!seen.insert(to_json(trial.plan)).second) continue;
    trial.bytes = evaluator.bytes ? evaluator.bytes(trial.plan) : space.bytes(trial.candidate);
    trial.seconds = speed.known() ? speed.seconds(space, trial.candidate) : 0;
    trial.drops = space.drops(trial.candidate);
    trial.slice = trial.score = evaluator.evaluate(trial.plan, 0);
    if (evaluator.slices > 1) trial.score = combine(trial.slice, evaluator.evaluate(trial.plan, 1));
    trial.complete = true;
    trial.origin = "drawn at random";
    result.push_back(std::move(trial));
  }
  return result;
}

std::optional<double> best_kl_at(const std::vector<SearchTrial>& trials, int64_t bytes) {
  std::optional<double> best;
  for (const SearchTrial& trial : trials) {
    if (trial.complete && trial.bytes <= bytes && (!best || trial.score.kl < *best)) best = trial.score.kl;
  }
  return best;
}

}  // namespace pare
