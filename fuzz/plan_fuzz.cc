// Any text as a plan. What is parsed comes back from its own JSON, merges with itself to the same effect, and differs
// from itself in nothing.
// covers: src/plan/plan.cc
#include <cstdint>
#include <cstdlib>

#include "base/error.h"
#include "plan/plan.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  pare::Plan plan;
  try {
    plan = pare::parse_plan({reinterpret_cast<const char*>(data), size}, "input");
  } catch (const pare::Error&) {
    return 0;
  }
  if (pare::parse_plan(pare::to_json(plan), "own") != plan) std::abort();
  if (!pare::compare(plan, plan).empty() || plan.summary().empty()) std::abort();
  const pare::Plan merged = pare::merge(plan, plan);
  for (const pare::StoreRule& rule : plan.store) {
    for (const int layer : {-1, rule.first_layer, rule.last_layer}) {
      if (merged.type_of(rule.tensor, layer) != plan.type_of(rule.tensor, layer)) std::abort();
    }
  }
  return 0;
}
