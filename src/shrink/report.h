#pragma once
#include <string>

#include "shrink/shrink.h"

namespace pare {

/// The report of a search as one HTML page that needs nothing else: the plan in words, what each step cost and gained,
/// the Pareto front, importance by depth, speed, and where the bytes are.
std::string shrink_page(const ShrinkResult& result, const std::string& model_name, const std::string& text_name);

}  // namespace pare
