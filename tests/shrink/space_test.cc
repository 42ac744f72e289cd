#include "shrink/space.h"

#include <gtest/gtest.h>

#include "base/random.h"
#include "shrink/stories.h"
#include "shrink/synthetic.h"
#include "temporary_folder.h"

namespace pare {
namespace {

using test::make_synthetic;
using test::Stories;
using test::Synthetic;

Candidate drawn(const SearchSpace& space, Random& random) {
  Candidate candidate = space.unchanged();
  for (size_t u = 0; u < space.units.size(); ++u) {
    candidate.option[u] = static_cast<uint8_t>(random.below(space.units[u].options.size()));
  }
  for (uint8_t& dropped : candidate.dropped) dropped = random.below(4) == 0;
  return space.canonical(candidate);
}

TEST(SearchSpace, PlansSayWhatCandidatesMean) {
  const Synthetic model = make_synthetic(16, 4, 1);
  Random random(1);
  for (int i = 0; i < 200; ++i) {
    const Candidate candidate = drawn(model.space, random);
    const Plan plan = model.space.to_plan(candidate);
    EXPECT_EQ(model.candidate_of(plan), candidate);
    EXPECT_EQ(parse_plan(to_json(plan), "a test"), plan);
  }
}

TEST(SearchSpace, PlansAreShort) {
  const Synthetic model = make_synthetic(16, 4, 1);
  EXPECT_EQ(model.space.to_plan(model.space.unchanged()), Plan{});
  EXPECT_EQ(to_json(model.space.to_plan(model.space.uniform(DType::kQ8_0))),
            R"({"version":1,"store":[{"type":"q8_0"}]})");
  Candidate candidate = model.space.uniform(DType::kQ4_0);
  for (size_t u = 0; u < model.space.units.size(); ++u) {
    if (model.space.units[u].tensor == "ffn_down" && model.space.units[u].first_layer >= 8) candidate.option[u] = 1;
  }
  EXPECT_EQ(
      to_json(model.space.to_plan(candidate)),
      R"({"version":1,"store":[{"tensor":"attn_q","type":"q4_0"},{"tensor":"attn_k","type":"q4_0"},)"
      R"({"tensor":"attn_output","type":"q4_0"},{"tensor":"ffn_up","type":"q4_0"},)"
      R"({"tensor":"ffn_down","layers":[0,7],"type":"q4_0"},{"tensor":"ffn_down","layers":[8,15],"type":"q8_0"}]})");
}

TEST(SearchSpace, OneModelIsOneCandidate) {
  const Synthetic model = make_synthetic(4, 4, 1);
  Candidate candidate = model.space.uniform(DType::kQ8_0);
  candidate.dropped[1] = 1;  // the MLP of layer 0: its units hold nothing else
  Candidate other = candidate;
  for (size_t u = 0; u < model.space.units.size(); ++u) {
    if (model.space.units[u].tensor.starts_with("ffn") && model.space.units[u].first_layer == 0) other.option[u] = 2;
  }
  EXPECT_NE(candidate, other);
  EXPECT_EQ(model.space.canonical(candidate), model.space.canonical(other));
  EXPECT_EQ(model.space.bytes(candidate), model.space.bytes(other));
}

TEST(SearchSpace, OffersWhatFitsOfTheTypeTable) {
  Stories stories;
  Redundancy redundancy;
  redundancy.layers.assign(5, LayerImportance{0.1, 0.1, 0.1, {}, 1, 1});
  const SearchSpace space = make_space(stories.checkpoint, redundancy, 2, stories.pool);
  EXPECT_EQ(space.parts.size(), 10u);
  for (const SearchSpace::Unit& unit : space.units) {
    // Stored as f32. bf16 is as large as f16 and rounds worse. Rows of 172 take no blocks; rows of 64 none of 256, and
    // of those of 32 and 64 here a front from Q8_0 to Q2_0: each smaller than the one before.
    ASSERT_GE(unit.options.size(), 2u) << unit.tensor;
    EXPECT_EQ(unit.options[0], std::nullopt);
    EXPECT_EQ(unit.options[1], DType::kF16);
    if (unit.tensor == "ffn_down") {
      EXPECT_EQ(unit.options.size(), 2u);
    } else {
      ASSERT_GE(unit.options.size(), 5u) << unit.tensor;
      EXPECT_EQ(unit.options[2], DType::kQ8_0) << unit.tensor;
      EXPECT_EQ(unit.options.back(), DType::kQ2_0) << unit.tensor;
    }
    for (size_t o = 2; o < unit.options.size(); ++o) {
      EXPECT_LT(info(*unit.options[o]).bits_per_value(), info(*unit.options[o - 1]).bits_per_value()) << unit.tensor;
      EXPECT_LE(info(*unit.options[o]).block_size, 64) << unit.tensor;
    }
    for (size_t o = 1; o < unit.error.size(); ++o) EXPECT_GT(unit.error[o], unit.error[o - 1]);
  }
}

TEST(SearchSpace, KnowsTheSizeOfTheFile) {
  Stories stories;
  Redundancy redundancy;
  redundancy.layers.assign(5, LayerImportance{0.1, 0.1, 0.1, {}, 1, 1});
  const SearchSpace space = make_space(stories.checkpoint, redundancy, 2, stories.pool);
  const test::TemporaryFolder folder;
  Random random(2);
  for (int i = 0; i < 6; ++i) {
    const Candidate candidate = i == 0 ? space.unchanged() : drawn(space, random);
    const Checkpoint changed = apply_plan(stories.checkpoint, space.to_plan(candidate));
    const auto path = folder / "model.gguf";
    write_checkpoint_gguf(changed, path);
    const auto written = static_cast<int64_t>(std::filesystem::file_size(path));
    EXPECT_EQ(gguf_file_bytes(changed), written);
    // The sum leaves out what the plan's own text takes in the file, and padding.
    EXPECT_NEAR(static_cast<double>(space.bytes(candidate)), static_cast<double>(written), 3000);
  }
}

}  // namespace
}  // namespace pare
