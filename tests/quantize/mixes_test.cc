#include "quantize/mixes.h"

#include <gtest/gtest.h>

namespace pare {
namespace {

ModelConfig llama(int layers, int heads, int kv_heads, bool tied) {
  ModelConfig config;
  config.tied_embedding = tied;
  config.layers.resize(static_cast<size_t>(layers));
  for (LayerConfig& layer : config.layers) {
    layer.attention.emplace();
    layer.attention->heads = heads, layer.attention->kv_heads = kv_heads;
    layer.mlp.emplace();
  }
  return config;
}

std::string layers_with(const Plan& plan, const char* tensor, DType type, int layers) {
  std::string found;
  for (int i = 0; i < layers; ++i) {
    if (plan.type_of(tensor, i) == type) found += (found.empty() ? "" : " ") + std::to_string(i);
  }
  return found;
}

// Of a 16-layer model, as llama.cpp's quantizer prints them.
TEST(Mixes, GiveMoreBitsToTheSameLayersAsLlamaCpp) {
  const ModelConfig config = llama(16, 32, 8, true);
  const Plan medium = mix_plan(*find_mix("Q4_K_M"), config);
  EXPECT_EQ(layers_with(medium, "attn_v", DType::kQ6_K, 16), "0 1 4 7 10 13 14 15");
  EXPECT_EQ(layers_with(medium, "ffn_down", DType::kQ6_K, 16), "0 1 4 7 10 13 14 15");
  EXPECT_EQ(medium.type_of("attn_q", 3), DType::kQ4_K);
  EXPECT_EQ(medium.type_of("embedding", -1), DType::kQ6_K);
  const Plan small = mix_plan(*find_mix("q4_k_s"), config);
  EXPECT_EQ(layers_with(small, "attn_v", DType::kQ5_K, 16), "0 1 2 3");
  EXPECT_EQ(layers_with(small, "ffn_down", DType::kQ5_K, 16), "0 1");
  const Plan three = mix_plan(*find_mix("q3_k_m"), config);
  EXPECT_EQ(layers_with(three, "attn_v", DType::kQ5_K, 16), "0 1");
  EXPECT_EQ(layers_with(three, "ffn_down", DType::kQ5_K, 16), "0");
  EXPECT_EQ(three.type_of("ffn_down", 1), DType::kQ4_K);
  EXPECT_EQ(three.type_of("attn_output", 9), DType::kQ4_K);
  EXPECT_EQ(mix_plan(*find_mix("q2_k_s"), config).type_of("attn_v", 9), DType::kQ4_K);
  EXPECT_EQ(mix_plan(*find_mix("q2_k_s"), llama(16, 8, 8, true)).type_of("attn_v", 9), DType::kQ2_K);
}

TEST(Mixes, AnOwnOutputMatrixGetsTheBitsInTheEmbeddingsPlace) {
  const Plan plan = mix_plan(*find_mix("q4_k_m"), llama(4, 4, 4, false));
  EXPECT_EQ(plan.type_of("output", -1), DType::kQ6_K);
  EXPECT_EQ(plan.type_of("embedding", -1), DType::kQ4_K);
}

TEST(Mixes, CountKeptAttentions) {
  ModelConfig config = llama(16, 32, 8, true);
  config.layers[0].attention.reset();
  config.layers[5].attention.reset();
  const Plan plan = mix_plan(*find_mix("q4_k_s"), config);
  EXPECT_EQ(layers_with(plan, "attn_v", DType::kQ5_K, 16), "1 2 3 4");
}

TEST(Mixes, AreFoundByName) {
  EXPECT_EQ(find_mix("q4_k"), nullptr);
  EXPECT_EQ(find_mix(""), nullptr);
  for (const Mix& mix : all_mixes()) EXPECT_EQ(find_mix(mix.name), &mix);
}

}  // namespace
}  // namespace pare
