#include "model/sampler.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace pare {
namespace {

struct Choice {
  int32_t token;
  float logit;
  double probability;
};

bool better(const Choice& a, const Choice& b) { return a.logit != b.logit ? a.logit > b.logit : a.token < b.token; }

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

int64_t Sampler::considered() const {
  const int64_t kept = options_.temperature == 0 ? 1 : options_.top_k;
  if (options_.repetition_penalty == 1 || kept == 0) return kept;
  // Seen tokens become less likely: those behind them move up. More likely, any of them could.
  return options_.repetition_penalty > 1 ? kept + options_.repetition_window : 0;
}

int32_t Sampler::sample(std::span<const float> logits) {
  std::vector<TokenLogit> all;
  all.reserve(logits.size());
  for (const float logit : logits) all.push_back({static_cast<int32_t>(all.size()), logit});
  return sample(all);
}

int32_t Sampler::sample(std::span<const TokenLogit> given) {
  std::vector<Choice> candidates;
  candidates.reserve(given.size());
  for (const TokenLogit& candidate : given) {
    // NaN orders nothing; counting it as impossible keeps every comparison defined.
    candidates.push_back({candidate.token, std::isnan(candidate.logit) ? -INFINITY : candidate.logit, 0});
  }
  if (options_.repetition_penalty != 1) {
    std::vector<int32_t> seen = recent_;
    std::sort(seen.begin(), seen.end());
    seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
    for (int32_t token : seen) {
      const auto found = std::lower_bound(candidates.begin(), candidates.end(), token,
                                          [](const Choice& choice, int32_t id) { return choice.token < id; });
      if (found == candidates.end() || found->token != token) continue;
      float& logit = found->logit;
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
  for (Choice& c : candidates)
    sum += c.probability = std::exp(static_cast<double>(c.logit) - static_cast<double>(candidates[0].logit));
  double covered = 0;
  size_t count = 0;
  for (const Choice& c : candidates) {
    if (count > 0 &&
        (covered >= static_cast<double>(options_.top_p) * sum || c.probability < static_cast<double>(options_.min_p)))
      break;
    covered += c.probability;
    ++count;
  }
  candidates.resize(count);
  double total = 0;
  for (Choice& c : candidates) {
    c.probability = std::exp((static_cast<double>(c.logit) - static_cast<double>(candidates[0].logit)) /
                             static_cast<double>(options_.temperature));
    total += c.probability;
  }
  double draw = random_.uniform() * total;
  int32_t chosen = candidates[0].token;
  for (const Choice& c : candidates) {
    chosen = c.token;
    draw -= c.probability;
    if (draw < 0) break;
  }
  saw(chosen);
  return chosen;
}

}  // namespace pare
