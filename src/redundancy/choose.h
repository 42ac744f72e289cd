#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "plan/plan.h"
#include "redundancy/importance.h"

namespace pare {

/// What a drop removes: N attentions, N MLPs, N whole blocks, or the N least important of attentions and MLPs together.
struct DropRequest {
  int attention = 0, mlp = 0, block = 0, joint = 0;
};

/// One thing that can be dropped: an attention or MLP with its norm, or all of a block.
struct DropPart {
  enum class Kind : uint8_t { kAttention, kMlp, kBlock };
  Kind kind = Kind::kAttention;
  int layer = 0;
  bool operator==(const DropPart&) const = default;
  /// "attention 12"
  std::string to_string() const;
};

/// A request step by step, in the order in which it is carried out: blocks, attentions, MLPs, joint.
struct DropPhase {
  std::vector<DropPart::Kind> kinds;  // which parts it may take
  int count = 0;
};
std::vector<DropPhase> phases(const DropRequest& request);

/// Parts of these kinds that are there and that the plan does not drop yet, least important first. Ties go to the
/// earlier kind, then to the lower layer. Throws Error naming a layer whose score is not a number.
std::vector<DropPart> parts_by_importance(const Redundancy& redundancy, const std::vector<DropPart::Kind>& kinds,
                                          const Plan& plan = {});
/// The plan that drops this part too; of a block, whatever is still there.
Plan with_drop(const Plan& plan, const DropPart& part, const Redundancy& redundancy);

/// The published rule: scores of the intact model, the highest similarity first, no layer protected; joint sorts
/// [attention of every layer, MLP of every layer] once. Ties go to the lower index, attention before MLP. Throws Error
/// if more is asked for than there is.
Plan choose_drops(const Redundancy& redundancy, const DropRequest& request);

}  // namespace pare
