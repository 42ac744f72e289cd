#include "shrink/result_json.h"

#include <fmt/format.h>

#include <map>

#include "base/json.h"

namespace pare {
namespace {

Json sizes_json(const std::vector<SizeEntry>& sizes) {
  Json rows = Json::array();
  for (const SizeEntry& entry : sizes) {
    rows.push_back(
        {{"tensor", entry.tensor}, {"type", info(entry.type).name}, {"bytes", entry.bytes}, {"values", entry.values}});
  }
  return rows;
}

Json optional_plan(const std::optional<PlanResult>& plan) { return plan ? to_json(*plan) : Json(nullptr); }

Json trial_json(const TrialPoint& trial) {
  return {{"plan", Json::parse(to_json(trial.plan))},
          {"bytes", trial.bytes},
          {"kl", trial.kl},
          {"quality", trial.quality},
          {"top1", trial.top1},
          {"speed", trial.speed > 0 ? Json(trial.speed) : Json(nullptr)},
          {"drops", trial.drops},
          {"on_front", trial.on_front},
          {"origin", trial.origin}};
}

Json change_json(const ChangeCost& change) {
  return {{"tensor", change.tensor},
          {"layers", {change.first_layer, change.last_layer}},
          {"type", change.type.empty() ? Json(nullptr) : Json(change.type)},
          {"kl", change.kl}};
}

/// "3, 5 to 7 and 12"
std::string layer_list(const std::vector<int>& layers) {
  std::vector<std::string> runs;
  for (size_t i = 0; i < layers.size();) {
    size_t last = i;
    while (last + 1 < layers.size() && layers[last + 1] == layers[last] + 1) ++last;
    if (last < i + 2) last = i;
    runs.push_back(last == i ? std::to_string(layers[i]) : fmt::format("{} to {}", layers[i], layers[last]));
    i = last + 1;
  }
  std::string text;
  for (size_t i = 0; i < runs.size(); ++i) {
    text += (i == 0 ? "" : i + 1 == runs.size() ? " and " : ", ") + runs[i];
  }
  return text;
}

std::string kind_in_words(const std::string& tensor) {
  static const std::map<std::string, std::string> words = {
      {"*", "all matrices"},
      {"embedding", "the token embedding"},
      {"output", "the output matrix"},
      {"attn_q", "attention queries"},
      {"attn_k", "attention keys"},
      {"attn_v", "attention values"},
      {"attn_output", "attention outputs"},
      {"ffn_gate", "MLP gates"},
      {"ffn_up", "MLP up"},
      {"ffn_down", "MLP down"},
  };
  const auto found = words.find(tensor);
  return found == words.end() ? tensor : found->second;
}

}  // namespace

Json to_json(const PlanResult& plan) {
  return {{"name", plan.name},
          {"plan", Json::parse(to_json(plan.plan))},
          {"bytes", plan.bytes},
          {"perplexity", plan.perplexity},
          {"quality", plan.quality},
          {"kl", plan.kl},
          {"top1", plan.top1},
          {"decode_tokens_per_second", plan.tokens_per_second > 0 ? Json(plan.tokens_per_second) : Json(nullptr)},
          {"decode_speed", plan.tokens_per_second > 0 ? Json(plan.speed) : Json(nullptr)}};
}

Json to_json(const ShrinkResult& result) {
  const auto optional = [](const auto& value) { return value ? Json(*value) : Json(nullptr); };
  Json steps = Json::array(), comparisons = Json::array(), trials = Json::array(), changes = Json::array();
  for (const PlanResult& step : result.steps) steps.push_back(to_json(step));
  for (const SizeComparison& comparison : result.comparisons) {
    comparisons.push_back({{"bytes", comparison.bytes},
                           {"with_drops", optional_plan(comparison.with_drops)},
                           {"without_drops", optional_plan(comparison.without_drops)}});
  }
  Json random = Json::array();
  for (const RandomComparison& at : result.random) {
    random.push_back(
        {{"bytes", at.bytes}, {"searched_kl", optional(at.searched_kl)}, {"random_kl", optional(at.random_kl)}});
  }
  for (const TrialPoint& trial : result.trials) trials.push_back(trial_json(trial));
  for (const ChangeCost& change : result.changes) changes.push_back(change_json(change));
  return {{"budget",
           {{"quality", optional(result.budget.quality)},
            {"bytes", optional(result.budget.bytes)},
            {"speed", optional(result.budget.speed)}}},
          {"result", to_json(result.chosen)},
          {"base", to_json(result.base)},
          {"smaller", static_cast<double>(result.base.bytes) / static_cast<double>(result.chosen.bytes)},
          {"drops_taken", result.drops_taken},
          {"steps", steps},
          {"comparisons", comparisons},
          {"random", random},
          {"search",
           {{"trials", result.trials_evaluated},
            {"scores_evaluated", result.scores_evaluated},
            {"scores_remembered", result.scores_remembered},
            {"seconds", result.seconds},
            {"depth_groups", result.scale.depth_groups},
            {"search_tokens", result.search_tokens},
            {"validation_tokens", result.validation_tokens}}},
          {"trials", trials},
          {"changes", changes},
          {"sizes", {{"base", sizes_json(result.base_sizes)}, {"result", sizes_json(result.chosen_sizes)}}}};
}

const char* in_words(double kl) {
  if (kl < 1e-4) return "no difference worth the name";
  if (kl < 0.005) return "hardly any difference";
  if (kl < 0.03) return "a small difference";
  if (kl < 0.1) return "a noticeable difference";
  if (kl < 0.5) return "a large difference";
  return "hardly the same model";
}

std::vector<std::string> in_words(const Plan& plan) {
  std::vector<std::string> lines;
  const auto drop = [&](const std::vector<int>& layers, const char* what) {
    if (layers.empty()) return;
    lines.push_back(fmt::format("Drop the {} of layer{} {}.", what, layers.size() == 1 ? "" : "s", layer_list(layers)));
  };
  drop(plan.drop_attention, "attention");
  drop(plan.drop_mlp, "MLP");
  // One sentence a type, in the order in which types first come up.
  std::vector<DType> types;
  std::map<DType, std::vector<std::string>> where;
  for (const StoreRule& rule : plan.store) {
    if (!where.contains(rule.type)) types.push_back(rule.type);
    std::string text = kind_in_words(rule.tensor);
    if (rule.last_layer != -1) {
      text += rule.first_layer == rule.last_layer
                  ? fmt::format(" of layer {}", rule.first_layer)
                  : fmt::format(" of layers {} to {}", rule.first_layer, rule.last_layer);
    }
    where[rule.type].push_back(std::move(text));
  }
  for (const DType type : types) {
    lines.push_back(fmt::format("Store as {} ({:.3g} bits a weight): {}.", info(type).name, info(type).bits_per_value(),
                                fmt::join(where[type], ", ")));
  }
  if (lines.empty()) lines.emplace_back("Change nothing.");
  return lines;
}

}  // namespace pare
