#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/checkpoint.h"
#include "plan/plan.h"
#include "redundancy/choose.h"

namespace pare {

/// A point of the search space: which option each unit takes, which parts are gone.
struct Candidate {
  std::vector<uint8_t> option;   // [units] index into its options
  std::vector<uint8_t> dropped;  // [parts] 0 or 1
  bool operator==(const Candidate&) const = default;
};

/// What a search may choose between. Plain data, so that it can be made up in tests.
struct SearchSpace {
  /// A kind of matrix over a range of layers: its weights are stored in one type.
  struct Unit {
    std::string tensor;  // the plan's name: "ffn_down"
    int first_layer = -1, last_layer = -1;
    /// Types, largest first; the first is nothing: as it is stored now.
    std::vector<std::optional<DType>> options{std::nullopt};
    /// What rounding does to the weights: squared error relative to their squares, one an option (0 for the first).
    std::vector<double> error{0.0};
  };
  /// An attention or MLP that can be dropped.
  struct Part {
    DropPart part;
    double importance = 0;    // 1 - cosine similarity
    int64_t other_bytes = 0;  // that go with it: norms, biases, file headers
  };
  /// A matrix: belongs to one unit, and to a part or (-1) to none.
  struct Weight {
    int unit = 0, part = -1;
    int64_t values = 0;
    std::vector<int64_t> bytes;  // one an option of the unit
  };
  std::vector<Unit> units;
  std::vector<Part> parts;
  std::vector<Weight> weights;
  int64_t fixed_bytes = 0;  // what no choice changes

  /// Nothing dropped, everything stored as it is.
  Candidate unchanged() const;
  /// Every unit at this type where it may have it, else at the next larger one that it may.
  Candidate uniform(DType type) const;
  /// The types that some unit may take, largest first.
  std::vector<DType> types() const;
  /// The same model always as the same candidate: a unit that is dropped altogether takes its first option.
  Candidate canonical(Candidate candidate) const;
  int64_t bytes(const Candidate& candidate) const;
  /// As few rules as say it.
  Plan to_plan(const Candidate& candidate) const;
  int drops(const Candidate& candidate) const;
};

/// The space of a checkpoint: layers in `depth_groups` ranges of about equal length; for each matrix every type of the
/// table that is smaller than what it has, whose blocks fit, that a kernel multiplies, and that no other type beats in
/// both size and rounding error. Parts in ascending order of importance.
SearchSpace make_space(const Checkpoint& base, const Redundancy& redundancy, int depth_groups, ThreadPool& pool,
                       GgufReader reader = GgufReader::kPare);

}  // namespace pare
