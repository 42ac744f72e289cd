#include "plan/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "base/error.h"
#include "base/json.h"

namespace pare {
namespace {

constexpr int kMostLayers = 100'000;
constexpr int kVersion = 1;
constexpr size_t kLongestWeightName = 64;

/// "3, 5-7": runs of at least three are shortened.
std::string layer_list(const std::vector<int>& layers) {
  std::string text;
  for (size_t i = 0; i < layers.size();) {
    size_t last = i;
    while (last + 1 < layers.size() && layers[last + 1] == layers[last] + 1) ++last;
    if (last < i + 2) last = i;
    text += (text.empty() ? "" : ", ") + std::to_string(layers[i]);
    if (last > i) text += fmt::format("-{}", layers[last]);
    i = last + 1;
  }
  return text;
}

bool everywhere(const StoreRule& rule) { return rule.first_layer == 0 && rule.last_layer == -1; }

/// "ffn_down 0-3 q4_0"
std::string describe(const StoreRule& rule) {
  std::string text = rule.tensor == "*" ? "" : rule.tensor + " ";
  if (!everywhere(rule)) {
    const std::string last = rule.last_layer == -1 ? "" : std::to_string(rule.last_layer);
    text += fmt::format("{}layers {}-{} ", rule.tensor == "*" ? "all " : "", rule.first_layer, last);
  }
  return text + info(rule.type).name;
}

std::string describe(const std::vector<StoreRule>& rules) {
  std::string text;
  for (const StoreRule& rule : rules) text += (text.empty() ? "" : ", ") + describe(rule);
  return text;
}

/// Whether `later` decides every weight that `earlier` matches.
bool overrides(const StoreRule& later, const StoreRule& earlier) {
  const bool same_weights = later.tensor == "*" || later.tensor == earlier.tensor;
  const bool to_the_end =
      later.last_layer == -1 || (earlier.last_layer != -1 && later.last_layer >= earlier.last_layer);
  return same_weights && later.first_layer <= earlier.first_layer && to_the_end;
}

std::vector<int> united(const std::vector<int>& a, const std::vector<int>& b) {
  std::vector<int> result;
  std::set_union(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(result));
  return result;
}

/// Reads the parts of a plan; `where_` names the file in errors.
class PlanReader {
 public:
  explicit PlanReader(std::string_view where) : where_(where) {}

  Plan read(const Json& json) {
    check_members(json, "the plan", {"version", "drop", "store"});
    const auto version = json.find("version");
    if (version == json.end()) fail("{}: \"version\" is missing, expected {}", where_, kVersion);
    if (!version->is_number_integer() || *version != kVersion) {
      fail("{}: \"version\" is {}, expected {}", where_, shown(*version), kVersion);
    }
    Plan plan;
    if (const auto drop = json.find("drop"); drop != json.end()) {
      check_members(*drop, "\"drop\"", {"attention", "mlp"});
      plan.drop_attention = read_layers(*drop, "attention");
      plan.drop_mlp = read_layers(*drop, "mlp");
    }
    if (const auto store = json.find("store"); store != json.end()) {
      if (!store->is_array()) fail("{}: \"store\" is {}, expected an array of rules", where_, shown(*store));
      for (const Json& rule : *store) plan.store.push_back(read_rule(rule, plan.store.size()));
    }
    return plan;
  }

 private:
  /// What stands there instead of what was expected, on one short line.
  static std::string shown(const Json& json) {
    if (json.is_object()) return "an object";
    if (json.is_array()) return "an array";
    const std::string text = json.dump(-1, ' ', true, Json::error_handler_t::replace);
    return text.size() <= 40 ? text : text.substr(0, 40) + "...";
  }

  void check_members(const Json& json, std::string_view what, std::initializer_list<std::string_view> known) const {
    if (!json.is_object()) fail("{}: {} is {}, expected an object", where_, what, shown(json));
    for (const auto& [key, value] : json.items()) {
      if (std::find(known.begin(), known.end(), key) == known.end()) {
        fail("{}: {} has the unknown member {}, expected {}", where_, what, shown(Json(key)), fmt::join(known, ", "));
      }
    }
  }

  int read_layer(const Json& json, const std::string& what, int least) const {
    const bool in_range = json.is_number_unsigned() ? json.get<uint64_t>() <= kMostLayers
                                                    : json.is_number_integer() && json.get<int64_t>() >= least &&
                                                          json.get<int64_t>() <= kMostLayers;
    if (!in_range) fail("{}: {} is {}, expected a layer from {} to {}", where_, what, shown(json), least, kMostLayers);
    return json.get<int>();
  }

  std::vector<int> read_layers(const Json& drop, const char* module) const {
    const auto json = drop.find(module);
    if (json == drop.end()) return {};
    if (!json->is_array()) fail("{}: drop.{} is {}, expected an array of layers", where_, module, shown(*json));
    std::vector<int> layers;
    for (const Json& layer : *json) layers.push_back(read_layer(layer, fmt::format("an entry of drop.{}", module), 0));
    std::sort(layers.begin(), layers.end());
    const auto twice = std::adjacent_find(layers.begin(), layers.end());
    if (twice != layers.end()) fail("{}: drop.{} names layer {} twice", where_, module, *twice);
    return layers;
  }

  StoreRule read_rule(const Json& json, size_t index) const {
    const std::string what = fmt::format("store[{}]", index);
    check_members(json, what, {"tensor", "layers", "type"});
    StoreRule rule;
    if (const auto tensor = json.find("tensor"); tensor != json.end()) rule.tensor = read_weight(*tensor, what);
    if (const auto layers = json.find("layers"); layers != json.end()) {
      if (!layers->is_array() || layers->size() != 2) {
        fail("{}: {}.layers is {}, expected [first, last]", where_, what, shown(*layers));
      }
      rule.first_layer = read_layer((*layers)[0], what + ".layers[0]", 0);
      rule.last_layer = read_layer((*layers)[1], what + ".layers[1]", -1);
      if (rule.last_layer != -1 && rule.last_layer < rule.first_layer) {
        fail("{}: {}.layers ends at {}, before it starts at {}", where_, what, rule.last_layer, rule.first_layer);
      }
    }
    const auto type = json.find("type");
    if (type == json.end()) fail("{}: {}.type is missing, expected one of {}", where_, what, dtype_names());
    const DTypeInfo* row = type->is_string() ? find_dtype(type->get_ref<const std::string&>()) : nullptr;
    if (!row) fail("{}: {}.type is {}, expected one of {}", where_, what, shown(*type), dtype_names());
    rule.type = row->type;
    return rule;
  }

  std::string read_weight(const Json& json, const std::string& what) const {
    const auto allowed = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; };
    if (json.is_string()) {
      const auto& name = json.get_ref<const std::string&>();
      const bool is_name =
          !name.empty() && name.size() <= kLongestWeightName && std::all_of(name.begin(), name.end(), allowed);
      if (name == "*" || is_name) return name;
    }
    fail("{}: {}.tensor is {}, expected a weight's name or \"*\"", where_, what, shown(json));
  }

  std::string_view where_;
};

void compare_layers(const char* module, const std::vector<int>& a, const std::vector<int>& b,
                    std::vector<std::string>& lines) {
  const auto add = [&](const std::vector<int>& from, const std::vector<int>& without, const char* which) {
    std::vector<int> only;
    std::set_difference(from.begin(), from.end(), without.begin(), without.end(), std::back_inserter(only));
    if (only.empty()) return;
    lines.push_back(fmt::format("only the {} plan drops {} of layer{} {}", which, module, only.size() == 1 ? "" : "s",
                                layer_list(only)));
  };
  add(a, b, "first");
  add(b, a, "second");
}

}  // namespace

bool Plan::drops_attention(int layer) const {
  return std::binary_search(drop_attention.begin(), drop_attention.end(), layer);
}

bool Plan::drops_mlp(int layer) const { return std::binary_search(drop_mlp.begin(), drop_mlp.end(), layer); }

std::optional<DType> Plan::type_of(std::string_view tensor, int layer) const {
  const auto matches = [&](const StoreRule& rule) {
    if (rule.tensor != "*" && rule.tensor != tensor) return false;
    return layer == -1 || (layer >= rule.first_layer && (rule.last_layer == -1 || layer <= rule.last_layer));
  };
  const auto rule = std::find_if(store.rbegin(), store.rend(), matches);
  if (rule == store.rend()) return {};
  return rule->type;
}

std::string Plan::summary() const {
  std::string drops;
  if (!drop_attention.empty()) drops = fmt::format("drop {} attention", drop_attention.size());
  if (!drop_mlp.empty()) drops += fmt::format("{}{} MLP", drops.empty() ? "drop " : ", ", drop_mlp.size());
  const std::string types = describe(store);
  if (drops.empty() && types.empty()) return "unchanged";
  return drops + (drops.empty() || types.empty() ? "" : "; ") + types;
}

Plan parse_plan(std::string_view json, std::string_view where) {
  return PlanReader(where).read(parse_json(json, where));
}

std::string to_json(const Plan& plan) {
  Json json{{"version", kVersion}};
  if (!plan.drop_attention.empty()) json["drop"]["attention"] = plan.drop_attention;
  if (!plan.drop_mlp.empty()) json["drop"]["mlp"] = plan.drop_mlp;
  for (const StoreRule& rule : plan.store) {
    Json member = Json::object();
    if (rule.tensor != "*") member["tensor"] = rule.tensor;
    if (!everywhere(rule)) member["layers"] = {rule.first_layer, rule.last_layer};
    member["type"] = info(rule.type).name;
    json["store"].push_back(std::move(member));
  }
  return json.dump();
}

Plan merge(const Plan& first, const Plan& second) {
  Plan merged;
  merged.drop_attention = united(first.drop_attention, second.drop_attention);
  merged.drop_mlp = united(first.drop_mlp, second.drop_mlp);
  for (const StoreRule& rule : first.store) {
    const bool decided = std::any_of(second.store.begin(), second.store.end(),
                                     [&](const StoreRule& later) { return overrides(later, rule); });
    if (!decided) merged.store.push_back(rule);
  }
  merged.store.insert(merged.store.end(), second.store.begin(), second.store.end());
  return merged;
}

std::vector<std::string> compare(const Plan& a, const Plan& b) {
  std::vector<std::string> lines;
  compare_layers("attention", a.drop_attention, b.drop_attention, lines);
  compare_layers("MLP", a.drop_mlp, b.drop_mlp, lines);
  if (a.store != b.store) {
    const auto types = [](const Plan& plan) {
      return plan.store.empty() ? std::string("every weight as it is") : describe(plan.store);
    };
    lines.push_back(fmt::format("the first plan stores {}, the second {}", types(a), types(b)));
  }
  return lines;
}

}  // namespace pare
