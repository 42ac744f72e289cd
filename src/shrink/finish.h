#pragma once
#include <functional>
#include <span>

#include "shrink/evaluator.h"
#include "shrink/shrink.h"
#include "shrink/speed.h"

namespace pare {

/// The end of a search: picks the plan, measures it and those it is compared with on the validation text and in decode
/// speed, and fills the result.
class Finisher {
 public:
  struct Text {
    int validation = 0;           // the evaluator's slice
    std::vector<int32_t> prompt;  // to decode after
  };
  Finisher(PlanEvaluator& evaluator, const PlanSearch& search, const ShrinkOptions& options, Text text,
           DecodeOptions decode, std::function<bool()> hurry, Progress& progress, const CancelFlag* cancel);

  /// Throws Error if no plan is within the budget.
  void choose(ShrinkResult& result);
  /// Steps alone and together, and plans with and without drops. Once time is up (hurry) the rest is left out.
  void compare(ShrinkResult& result);

 private:
  PlanResult measure(const Plan& plan, const std::string& name);
  bool within(const PlanResult& plan) const;
  PlanResult& with_speed(PlanResult& plan);
  [[noreturn]] void refuse(const std::vector<PlanResult>& tried);

  PlanEvaluator& evaluator_;
  const PlanSearch& search_;
  const ShrinkOptions& options_;
  Text text_;
  DecodeOptions decode_;
  std::function<bool()> hurry_;
  Progress& progress_;
  const CancelFlag* cancel_;
  std::vector<PlanResult> measured_;
  int64_t done_ = 0;
};

}  // namespace pare
