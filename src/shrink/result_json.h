#pragma once
#include "base/json_fwd.h"
#include "shrink/shrink.h"

namespace pare {

/// All of a result but the redundancy scores of layers, for `pare shrink --json` and for the report.
Json to_json(const ShrinkResult& result);
Json to_json(const PlanResult& plan);

/// What a divergence means: "hardly any difference".
const char* in_words(double kl);
/// A plan as sentences: what is dropped, which types are stored where.
std::vector<std::string> in_words(const Plan& plan);

}  // namespace pare
