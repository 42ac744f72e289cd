#include "plan/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "refusal.h"

namespace pare {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

Plan parse(const std::string& json) { return parse_plan(json, "p.json"); }

std::string refusal(const std::string& json) {
  const std::string message = test::refusal_of_file("p.json", [&] { parse(json); });
  EXPECT_LT(message.size(), 300u) << message;
  return message;
}

Plan example() {
  Plan plan;
  plan.drop_attention = {3, 5};
  plan.drop_mlp = {7};
  plan.store = {{.type = DType::kQ8_0},
                {.tensor = "ffn_down", .first_layer = 0, .last_layer = 3, .type = DType::kQ4_0},
                {.tensor = "attn_q", .first_layer = 4, .last_layer = -1, .type = DType::kBF16}};
  return plan;
}

TEST(Plan, IsReadFromJson) {
  EXPECT_EQ(parse(R"({"version": 1, "drop": {"attention": [5, 3], "mlp": [7]}, "store": [{"type": "q8_0"},
                      {"tensor": "ffn_down", "layers": [0, 3], "type": "Q4_0"},
                      {"tensor": "attn_q", "layers": [4, -1], "type": "bf16"}]})"),
            example());
  EXPECT_EQ(parse(R"({"version": 1})"), Plan{});
  EXPECT_EQ(parse(R"({"version": 1, "drop": {}, "store": []})"), Plan{});
}

TEST(Plan, IsWrittenAsOneLineOfJson) {
  EXPECT_EQ(
      to_json(example()),
      R"({"version":1,"drop":{"attention":[3,5],"mlp":[7]},"store":[{"type":"q8_0"},)"
      R"({"tensor":"ffn_down","layers":[0,3],"type":"q4_0"},{"tensor":"attn_q","layers":[4,-1],"type":"bf16"}]})");
  EXPECT_EQ(to_json(Plan{}), R"({"version":1})");
}

TEST(Plan, ComesBackFromItsJson) {
  EXPECT_EQ(parse(to_json(example())), example());
  Plan plan;
  plan.drop_mlp = {0, 100'000};
  plan.store = {{.tensor = "*", .first_layer = 2, .last_layer = 2, .type = DType::kF32}};
  EXPECT_EQ(parse(to_json(plan)), plan);
}

TEST(Plan, TellsWhatItDrops) {
  EXPECT_TRUE(example().drops_attention(3));
  EXPECT_FALSE(example().drops_attention(4));
  EXPECT_FALSE(example().drops_attention(7));
  EXPECT_TRUE(example().drops_mlp(7));
  EXPECT_FALSE(example().drops_mlp(3));
}

TEST(Plan, LastMatchingRuleDecidesTheType) {
  const Plan plan = example();
  EXPECT_EQ(plan.type_of("ffn_up", 2), DType::kQ8_0);
  EXPECT_EQ(plan.type_of("ffn_down", 3), DType::kQ4_0);
  EXPECT_EQ(plan.type_of("ffn_down", 4), DType::kQ8_0);
  EXPECT_EQ(plan.type_of("attn_q", 3), DType::kQ8_0);
  EXPECT_EQ(plan.type_of("attn_q", 400), DType::kBF16);
  EXPECT_EQ(plan.type_of("embedding", -1), DType::kQ8_0);
  Plan only;
  only.store = {{.tensor = "output", .first_layer = 3, .last_layer = 5, .type = DType::kF16}};
  EXPECT_EQ(only.type_of("output", -1), DType::kF16);  // a rule's layers say nothing of weights outside layers
  EXPECT_FALSE(only.type_of("embedding", -1));
  EXPECT_FALSE(Plan{}.type_of("embedding", -1));
}

TEST(Plan, IsSummarised) {
  EXPECT_EQ(Plan{}.summary(), "unchanged");
  Plan plan;
  plan.drop_attention = {1, 2};
  EXPECT_EQ(plan.summary(), "drop 2 attention");
  plan.drop_mlp = {3};
  EXPECT_EQ(plan.summary(), "drop 2 attention, 1 MLP");
  plan.drop_attention.clear();
  plan.store = {{.type = DType::kQ8_0}, {.tensor = "ffn_down", .type = DType::kQ4_0}};
  EXPECT_EQ(plan.summary(), "drop 1 MLP; q8_0, ffn_down q4_0");
  EXPECT_EQ(example().summary(), "drop 2 attention, 1 MLP; q8_0, ffn_down layers 0-3 q4_0, attn_q layers 4- bf16");
}

TEST(Plan, MergesDropsAndLetsLaterRulesWin) {
  Plan second;
  second.drop_attention = {1, 5};
  second.store = {{.tensor = "ffn_down", .type = DType::kF16}};
  const Plan merged = merge(example(), second);
  EXPECT_THAT(merged.drop_attention, ElementsAre(1, 3, 5));
  EXPECT_THAT(merged.drop_mlp, ElementsAre(7));
  EXPECT_EQ(merged.type_of("ffn_down", 2), DType::kF16);
  EXPECT_EQ(merged.type_of("ffn_up", 2), DType::kQ8_0);
  EXPECT_EQ(merged.store.size(), 3u);  // the first plan's rule for ffn_down has no say any more
  EXPECT_EQ(merge(example(), Plan{}), example());
  EXPECT_EQ(merge(Plan{}, example()), example());
  EXPECT_EQ(merge(example(), example()), example());
}

TEST(Plan, MergeKeepsTheMeaningOfRulesItCannotDropWhole) {
  Plan first, second;
  first.store = {{.tensor = "attn_q", .first_layer = 0, .last_layer = 9, .type = DType::kQ8_0}};
  second.store = {{.tensor = "*", .first_layer = 5, .last_layer = 9, .type = DType::kQ4_0}};
  const Plan merged = merge(first, second);
  EXPECT_EQ(merged.type_of("attn_q", 4), DType::kQ8_0);
  EXPECT_EQ(merged.type_of("attn_q", 5), DType::kQ4_0);
  first.store[0].last_layer = -1;
  second.store[0].first_layer = 0;
  EXPECT_EQ(merge(first, second).type_of("attn_q", 10), DType::kQ8_0);
  second.store[0].last_layer = -1;
  EXPECT_EQ(merge(first, second).store, second.store);
}

TEST(Plan, ComparesInPlainWords) {
  EXPECT_THAT(compare(example(), example()), IsEmpty());
  Plan other = example();
  other.drop_attention = {5, 8, 9, 10, 12};
  other.drop_mlp = {};
  other.store = {};
  EXPECT_THAT(
      compare(example(), other),
      ElementsAre("only the first plan drops attention of layer 3",
                  "only the second plan drops attention of layers 8-10, 12", "only the first plan drops MLP of layer 7",
                  "the first plan stores q8_0, ffn_down layers 0-3 q4_0, attn_q layers 4- bf16, the second "
                  "every weight as it is"));
}

TEST(PlanMalformed, Document) {
  EXPECT_THAT(refusal(""), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal("[]"), HasSubstr("the plan is an array, expected an object"));
  EXPECT_THAT(refusal("{}"), HasSubstr("\"version\" is missing, expected 1"));
  for (const char* version : {"2", "0", "-1", "1.0", "\"1\"", "null", "[1]"}) {
    EXPECT_THAT(refusal("{\"version\":" + std::string(version) + "}"), HasSubstr("\"version\" is ")) << version;
  }
  EXPECT_THAT(refusal(R"({"version":1,"version":1})"), HasSubstr("key \"version\" stands twice"));
  EXPECT_THAT(refusal(R"({"version":1,"rotate":"hadamard"})"),
              HasSubstr("the plan has the unknown member \"rotate\", expected version, drop, store"));
  EXPECT_THAT(refusal("{\"version\":1,\"a\\nb" + std::string(10'000, 'x') + "\":1}"),
              HasSubstr("unknown member \"a\\nbxx"));
}

TEST(PlanMalformed, Drops) {
  const auto drop = [](const std::string& json) { return refusal(R"({"version":1,"drop":)" + json + "}"); };
  EXPECT_EQ(drop(R"({"attention":[0,100000]})"), "");
  EXPECT_THAT(drop("[1]"), HasSubstr("\"drop\" is an array, expected an object"));
  EXPECT_THAT(drop(R"({"block":[1]})"),
              HasSubstr("\"drop\" has the unknown member \"block\", expected attention, mlp"));
  EXPECT_THAT(drop(R"({"mlp":3})"), HasSubstr("drop.mlp is 3, expected an array of layers"));
  for (const char* layer : {"-1", "100001", "18446744073709551615", "1e30", "2.0", "\"2\"", "null", "[2]", "true"}) {
    EXPECT_THAT(drop("{\"attention\":[" + std::string(layer) + "]}"), HasSubstr("an entry of drop.attention is "))
        << layer;
  }
  EXPECT_THAT(drop(R"({"mlp":[-5]})"), HasSubstr("an entry of drop.mlp is -5, expected a layer from 0 to 100000"));
  EXPECT_THAT(drop(R"({"mlp":[4,2,4]})"), HasSubstr("drop.mlp names layer 4 twice"));
}

TEST(PlanMalformed, StoreRules) {
  const auto store = [](const std::string& json) { return refusal(R"({"version":1,"store":)" + json + "}"); };
  EXPECT_EQ(store(R"([{"tensor":"*","layers":[0,0],"type":"f16"}])"), "");
  EXPECT_THAT(store("{}"), HasSubstr("\"store\" is an object, expected an array of rules"));
  EXPECT_THAT(store(R"(["q8_0"])"), HasSubstr("store[0] is \"q8_0\", expected an object"));
  EXPECT_THAT(store(R"([{"type":"f16"},{"kind":"x"}])"), HasSubstr("store[1] has the unknown member \"kind\""));
  EXPECT_THAT(store("[{}]"), HasSubstr("store[0].type is missing, expected one of f32, f16, bf16, q8_0, q4_0"));
  EXPECT_THAT(store(R"([{"type":"q9"}])"), HasSubstr("store[0].type is \"q9\", expected one of f32"));
  EXPECT_THAT(store(R"([{"type":8}])"), HasSubstr("store[0].type is 8, expected one of f32"));
  for (const char* tensor : {"\"\"", "\"A\"", "\"attn q\"", "\"**\"", "\"\\u001b\"", "3", "null", "[]"}) {
    EXPECT_THAT(store("[{\"type\":\"f16\",\"tensor\":" + std::string(tensor) + "}]"),
                HasSubstr("expected a weight's name or \"*\""))
        << tensor;
  }
  EXPECT_THAT(store(R"([{"type":"f16","tensor":")" + std::string(65, 'a') + "\"}]"), HasSubstr("aaa..."));
}

TEST(PlanMalformed, StoreLayers) {
  const auto layers = [](const std::string& json) {
    return refusal(R"({"version":1,"store":[{"type":"f16","layers":)" + json + "}]}");
  };
  EXPECT_EQ(layers("[3,-1]"), "");
  for (const char* json : {"3", "[]", "[1]", "[1,2,3]", "{}"}) {
    EXPECT_THAT(layers(json), HasSubstr("expected [first, last]")) << json;
  }
  EXPECT_THAT(layers("[-1,2]"), HasSubstr("store[0].layers[0] is -1, expected a layer from 0 to 100000"));
  EXPECT_THAT(layers("[1,-2]"), HasSubstr("store[0].layers[1] is -2, expected a layer from -1 to 100000"));
  EXPECT_THAT(layers("[1,9223372036854775808]"), HasSubstr("store[0].layers[1] is 9223372036854775808"));
  EXPECT_THAT(layers("[5,4]"), HasSubstr("store[0].layers ends at 4, before it starts at 5"));
}

}  // namespace
}  // namespace pare
