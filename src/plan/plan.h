#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/dtype.h"

namespace pare {

/// Which storage type weights get: the last rule that matches a weight decides.
struct StoreRule {
  std::string tensor = "*";  // a weight kind by its plan name ("attn_q", "ffn_down", "embedding", "output"), or "*"
  int first_layer = 0;       // inclusive; ignored for weights outside layers
  int last_layer = -1;       // inclusive; -1 = to the last
  DType type = DType::kF16;
  bool operator==(const StoreRule&) const = default;
};

/// What to do to a model, as data (layers counted from 0 in the model the plan applies to). JSON form:
///
///   {"version": 1, "drop": {"attention": [3, 5], "mlp": [7]},
///    "store": [{"type": "q8_0"}, {"tensor": "ffn_down", "layers": [0, 3], "type": "q4_0"}]}
///
/// Rotations, per-stage image tokens and the like become further members; an unknown member is an error, so that a plan
/// is never half applied.
struct Plan {
  std::vector<int> drop_attention;  // ascending, unique
  std::vector<int> drop_mlp;        // ascending, unique
  std::vector<StoreRule> store;     // empty: every weight keeps its type

  bool operator==(const Plan&) const = default;
  bool drops_attention(int layer) const;
  bool drops_mlp(int layer) const;
  /// The type a weight gets, or nothing if no rule matches. layer is -1 for weights outside layers.
  std::optional<DType> type_of(std::string_view tensor, int layer) const;
  /// "drop 8 attention, 2 MLP; q8_0, ffn_down q4_0", for tables.
  std::string summary() const;
};

/// Strict: unknown members, wrong types, negative, repeated or absurd (over 100,000) layers throw Error naming `where`.
Plan parse_plan(std::string_view json, std::string_view where);
/// One line of JSON; parse_plan gives the same plan back.
std::string to_json(const Plan& plan);
/// The plan that does `first` and then `second` (layers of both are those of the original model).
Plan merge(const Plan& first, const Plan& second);
/// What differs, a line each, in plain words; empty if equal.
std::vector<std::string> compare(const Plan& a, const Plan& b);

}  // namespace pare
