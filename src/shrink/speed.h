#pragma once
#include <cstdint>
#include <functional>
#include <span>

#include "evaluate/divergence.h"
#include "redundancy/greedy.h"
#include "shrink/cost_model.h"

namespace pare {

/// How fast a model decodes beside another, measured in turns so that both meet the same state of the machine.
struct DecodeComparison {
  double base_seconds = 0, seconds = 0;  // a token: median of the rounds
  double ratio = 1;                      // base over model: median of the rounds' own
};

struct DecodeOptions {
  int64_t tokens = 32;  // decoded in a round
  int rounds = 5;
  DType kv = DType::kF16;
};

/// Decodes after a short prompt (one token suffices), base and model in turns. Throws Interrupted.
DecodeComparison compare_decode(Model& base, Model& model, std::span<const int32_t> prompt,
                                const DecodeOptions& options, const CancelFlag* cancel);

/// Prices of values and parts from a few comparisons: of every type throughout, and of half the attentions and half the
/// MLPs dropped. measure(plan) gives what compare_decode does. What the measurements leave open is decided by bytes.
SpeedModel fit_speed(const SearchSpace& space, bool tied_embedding,
                     const std::function<DecodeComparison(const Plan&)>& measure);

/// A SpeedModel as text and back, to be kept with the trials; unknown if the text does not fit the space.
std::string to_string(const SpeedModel& model);
SpeedModel parse_speed_model(const std::string& text, const SearchSpace& space);

}  // namespace pare
