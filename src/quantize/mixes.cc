#include "quantize/mixes.h"

#include <algorithm>
#include <array>
#include <cctype>

namespace pare {
namespace {

/// Which layers of n a rule is for.
enum class Where : uint8_t { kEverywhere, kFirst2, kFirst4, kFirst16th, kFirst8th, kMoreBits };

/// llama.cpp's choice of layers that get more bits: the first and last eighth and every third between.
bool more_bits(int i, int n) { return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2; }

bool applies(Where where, int i, int n) {
  switch (where) {
    case Where::kEverywhere:
      return true;
    case Where::kFirst2:
      return i < 2;
    case Where::kFirst4:
      return i < 4;
    case Where::kFirst16th:
      return i < n / 16;
    case Where::kFirst8th:
      return i < n / 8;
    case Where::kMoreBits:
      return more_bits(i, n);
  }
  return false;
}

struct MixRule {
  std::string_view mix, tensor;
  Where where;
  DType type;
  int least_group = 0;  // only for at least so many heads a KV head
};

constexpr std::array kMixes = {
    Mix{"q2_k_s", 21, DType::kQ2_K}, Mix{"q3_k_s", 11, DType::kQ3_K}, Mix{"q3_k_m", 12, DType::kQ3_K},
    Mix{"q3_k_l", 13, DType::kQ3_K}, Mix{"q4_k_s", 14, DType::kQ4_K}, Mix{"q4_k_m", 15, DType::kQ4_K},
    Mix{"q5_k_s", 16, DType::kQ5_K}, Mix{"q5_k_m", 17, DType::kQ5_K},
};

// Later rules win. Attention values are few and read by every query, and the down projection adds to the residual
// stream: those get more.
constexpr MixRule kRules[] = {
    {"q2_k_s", "attn_v", Where::kEverywhere, DType::kQ4_K, 4},
    {"q2_k_s", "ffn_down", Where::kFirst8th, DType::kQ4_K},
    {"q3_k_m", "attn_v", Where::kEverywhere, DType::kQ4_K},
    {"q3_k_m", "attn_v", Where::kFirst2, DType::kQ5_K},
    {"q3_k_m", "ffn_down", Where::kEverywhere, DType::kQ4_K},
    {"q3_k_m", "ffn_down", Where::kFirst16th, DType::kQ5_K},
    {"q3_k_m", "attn_output", Where::kEverywhere, DType::kQ4_K},
    {"q3_k_l", "attn_v", Where::kEverywhere, DType::kQ5_K},
    {"q3_k_l", "ffn_down", Where::kEverywhere, DType::kQ5_K},
    {"q3_k_l", "attn_output", Where::kEverywhere, DType::kQ5_K},
    {"q4_k_s", "attn_v", Where::kFirst4, DType::kQ5_K},
    {"q4_k_s", "ffn_down", Where::kFirst8th, DType::kQ5_K},
    {"q4_k_m", "attn_v", Where::kMoreBits, DType::kQ6_K},
    {"q4_k_m", "ffn_down", Where::kMoreBits, DType::kQ6_K},
    {"q5_k_m", "attn_v", Where::kMoreBits, DType::kQ6_K},
    {"q5_k_m", "ffn_down", Where::kMoreBits, DType::kQ6_K},
};

StoreRule store(std::string_view tensor, int first, int last, DType type) {
  StoreRule rule;
  rule.tensor = tensor;
  rule.first_layer = first;
  rule.last_layer = last;
  rule.type = type;
  return rule;
}

/// One rule for each run of layers that get the type.
void add_rules(const MixRule& rule, const ModelConfig& config, Plan& plan) {
  const auto layers = static_cast<int>(config.layers.size());
  const bool value = rule.tensor == "attn_v";  // llama.cpp counts kept attentions here, layers elsewhere
  const int count = value ? config.attention_count() : layers;
  int number = 0;
  for (int layer = 0; layer < layers; ++layer) {
    const auto& attention = config.layers[static_cast<size_t>(layer)].attention;
    if (value && !attention) continue;
    const bool wanted = applies(rule.where, value ? number++ : layer, count) &&
                        (rule.least_group == 0 || attention->heads >= rule.least_group * attention->kv_heads);
    if (!wanted) continue;
    StoreRule* last = plan.store.empty() ? nullptr : &plan.store.back();
    if (last && last->tensor == rule.tensor && last->type == rule.type && last->last_layer == layer - 1)
      last->last_layer = layer;
    else
      plan.store.push_back(store(rule.tensor, layer, layer, rule.type));
  }
}

}  // namespace

std::span<const Mix> all_mixes() { return kMixes; }

const Mix* find_mix(std::string_view name) {
  const auto equal = [](char a, char b) { return std::tolower(static_cast<unsigned char>(a)) == b; };
  for (const Mix& mix : kMixes) {
    const std::string_view known = mix.name;
    if (std::equal(name.begin(), name.end(), known.begin(), known.end(), equal)) return &mix;
  }
  return nullptr;
}

Plan mix_plan(const Mix& mix, const ModelConfig& config) {
  Plan plan;
  plan.store.push_back(store("*", 0, -1, mix.type));
  for (const MixRule& rule : kRules) {
    if (rule.mix == mix.name) add_rules(rule, config, plan);
  }
  plan.store.push_back(store(config.tied_embedding ? "embedding" : "output", 0, -1, DType::kQ6_K));
  return plan;
}

}  // namespace pare
