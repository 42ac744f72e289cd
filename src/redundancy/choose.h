#pragma once
#include "plan/plan.h"
#include "redundancy/importance.h"

namespace pare {

/// What a drop removes: N attentions, N MLPs, N whole blocks, or the N least important of attentions and MLPs together.
struct DropRequest {
  int attention = 0, mlp = 0, block = 0, joint = 0;
};

/// The published rule: scores of the intact model, the highest similarity first, no layer protected; joint sorts
/// [attention of every layer, MLP of every layer] once. Ties go to the lower index, attention before MLP. Throws Error if
/// more is asked for than there is.
Plan choose_drops(const Redundancy& redundancy, const DropRequest& request);

}  // namespace pare
