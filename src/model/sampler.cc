#include "model/sampler.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace pare {
namespace {

struct Candidate {
  int32_t token;
  float logit;
  double probability;
};

bool better(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

}  // namespace

void check_sampler_options(const SamplerOptions& options) {
  const auto check = [](bool good, const char* name, double value, const char* expected) {
    if (!good) fail("{} is {}, expected {}", name, value, expected);
  };
  check(options.temperature >= 0 && std::isfinite(options.temperature), "temperature",
        static_cast<double>(options.temperature), "0 or more");
  check(options.top_k >= 0, "top-k", options.top_k, "0 or more");
  check(options.top_p > 0 && options.top_p <= 1, "top-p", static_cast<double>(options.top_p),
        "a number over 0 and up to 1");
  check(options.min_p >= 0 && options.min_p <= 1, "min-p", static_cast<double>(options.min_p), "a number from 0 to 1");
  check(options.repetition_penalty > 0 && std::isfinite(options.repetition_penalty), "repetition penalty",
        static_cast<double>(options.repetition_penalty), "a number over 0");
  check(options.repetition_window >= 0, "repetition window", options.repetition_window, "0 or more");
}

Sampler::Sampler(const SamplerOptions& options) : options_(options), random_(options.seed) {
  check_sampler_options(options);
}

void Sampler::saw(int32_t token) {
  recent_.push_back(token);
  if (recent_.size() > static_cast<size_t>(options_.repetition_window)) recent_.erase(recent_.begin());
}

int32_t Sampler::sample(std::span<const float> logits) {
  std::vector<Candidate> candidates;
  candidates.reserve(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    // NaN orders nothing; counting it as impossible keeps every comparison defined.
    const float logit = std::isnan(logits[i]) ? -INFINITY : logits[i];
    candidates.push_back({static_cast<int32_t>(i), logit, 0});
  }
  if (options_.repetition_penalty != 1) {
    std::vector<int32_t> seen = recent_;
    std::sort(seen.begin(), seen.end());
    seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
    for (int32_t token : seen) {
      if (token < 0 || token >= static_cast<int32_t>(candidates.size())) continue;
      float& logit = candidates[static_cast<size_t>(token)].logit;
      logit = logit > 0 ? logit / options_.repetition_penalty : logit * options_.repetition_penalty;
    }
  }
  if (options_.temperature == 0) {
    const int32_t best = std::min_element(candidates.begin(), candidates.end(), better)->token;
    saw(best);
    return best;
  }
  const size_t keep =
      options_.top_k > 0 ? std::min(static_cast<size_t>(options_.top_k), candidates.size()) : candidates.size();
  std::partial_sort(candidates.begin(), candidates.begin() + static_cast<ptrdiff_t>(keep), candidates.end(), better);
  candidates.resize(keep);
  // Probabilities of the model itself decide what top-p and min-p keep; temperature reshapes what is left.
  double sum = 0;
  for (Candidate& c : candidates)
    sum += c.probability = std::exp(static_cast<double>(c.logit) - static_cast<double>(candidates[0].logit));
  double covered = 0;
  size_t count = 0;
  for (const Candidate& c : candidates) {
    if (count > 0 &&
        (covered >= static_cast<double>(options_.top_p) * sum || c.probability < static_cast<double>(options_.min_p)))
      break;
    covered += c.probability;
    ++count;
  }
  candidates.resize(count);
  double total = 0;
  for (Candidate& c : candidates) {
    c.probability = std::exp((static_cast<double>(c.logit) - static_cast<double>(candidates[0].logit)) /
                             static_cast<double>(options_.temperature));
    total += c.probability;
  }
  double draw = random_.uniform() * total;
  int32_t chosen = candidates[0].token;
  for (const Candidate& c : candidates) {
    chosen = c.token;
    draw -= c.probability;
    if (draw < 0) break;
  }
  saw(chosen);
  return chosen;
}

}  // namespace pare
