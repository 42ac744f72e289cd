#include "shrink/shrink.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "refusal.h"
#include "shrink/evaluator.h"
#include "shrink/stories.h"
#include "temporary_folder.h"

namespace pare {
namespace {

using test::Stories;
using test::TemporaryFolder;
using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr int64_t kTokens = 2048;

ShrinkOptions small_search(int64_t trials) {
  ShrinkOptions options;
  options.budget.quality = 0.9;
  options.trials = trials;
  options.seed = 7;
  return options;
}

/// Sets the flag once the search has evaluated so many plans.
class StopAfter : public Progress {
 public:
  StopAfter(int64_t trials, CancelFlag& flag) : trials_(trials), flag_(flag) {}
  void start(std::string_view what, std::string_view, int64_t) override { searching_ = what == "searching"; }
  void update(int64_t done, std::string_view) override {
    if (searching_ && done >= trials_) flag_ = true;
  }

 private:
  int64_t trials_;
  CancelFlag& flag_;
  bool searching_ = false;
};

void expect_equal(const PlanResult& a, const PlanResult& b) {
  EXPECT_EQ(a.name, b.name);
  EXPECT_EQ(a.plan, b.plan);
  EXPECT_EQ(a.bytes, b.bytes);
  EXPECT_EQ(a.quality, b.quality);
  EXPECT_EQ(a.kl, b.kl);
  EXPECT_EQ(a.top1, b.top1);
}

TEST(Shrink, TheFileIsWhatTheTableSays) {
  Stories stories;
  const auto windows = stories.windows(kTokens);
  const ShrinkResult result = run_shrink(stories.variants, windows, small_search(60), no_progress(), nullptr);
  EXPECT_GE(result.chosen.quality, 0.9);
  EXPECT_LT(result.chosen.bytes, result.base.bytes);
  ASSERT_GE(result.steps.size(), 3u);
  EXPECT_EQ(result.steps.front().name, "as it is");

  const TemporaryFolder folder;
  const Reference reference = Reference::measure(stories.variants.base(), split_text(windows, result.scale).validation,
                                                 DType::kF16, no_progress(), nullptr);
  EXPECT_EQ(reference.windows().counted(), result.validation_tokens);
  std::vector<PlanResult> rows = result.steps;
  rows.push_back(result.chosen);
  for (const SizeComparison& comparison : result.comparisons) {
    for (const auto& plan : {comparison.with_drops, comparison.without_drops}) {
      if (plan) rows.push_back(*plan);
    }
  }
  EXPECT_GE(rows.size(), 6u);
  for (const PlanResult& row : rows) {
    const auto path = folder / "model.gguf";
    write_checkpoint_gguf(apply_plan(stories.checkpoint, row.plan), path);
    EXPECT_EQ(static_cast<int64_t>(std::filesystem::file_size(path)), row.bytes) << row.name;
    const Checkpoint written = open_checkpoint(path);
    EXPECT_EQ(written.plan, row.plan) << row.name;
    const auto model = Model::load(written, stories.pool);
    const DivergenceResult measured = divergence(*model, reference, DType::kF16, no_progress(), nullptr);
    EXPECT_NEAR(measured.mean_kl, row.kl, 1e-6) << row.name;  // a base shows 1e-7 against itself
    EXPECT_NEAR(measured.quality(), row.quality, 1e-9) << row.name;
    EXPECT_NEAR(measured.model.perplexity, row.perplexity, 1e-6 * row.perplexity) << row.name;
    if (!(row.plan == Plan{})) {
      EXPECT_EQ(measured.top1_agreement, row.top1) << row.name;
    }
  }
}

TEST(Shrink, GoesOnWhereItWasStopped) {
  Stories stories;
  const auto windows = stories.windows(kTokens);
  const TemporaryFolder folder;
  ShrinkOptions options = small_search(50);
  options.database = folder / "whole.db";
  const ShrinkResult whole = run_shrink(stories.variants, windows, options, no_progress(), nullptr);
  EXPECT_EQ(whole.scores_remembered, 0);

  options.database = folder / "stopped.db";
  CancelFlag cancel{false};
  StopAfter progress(20, cancel);
  EXPECT_THROW(run_shrink(stories.variants, windows, options, progress, &cancel), Interrupted);
  const ShrinkResult rest = run_shrink(stories.variants, windows, options, no_progress(), nullptr);
  EXPECT_GE(rest.scores_remembered, 20);
  EXPECT_EQ(rest.scores_remembered + rest.scores_evaluated, whole.scores_evaluated);
  EXPECT_EQ(rest.trials_evaluated, whole.trials_evaluated);
  expect_equal(rest.chosen, whole.chosen);
  ASSERT_EQ(rest.steps.size(), whole.steps.size());
  for (size_t i = 0; i < whole.steps.size(); ++i) expect_equal(rest.steps[i], whole.steps[i]);
  ASSERT_EQ(rest.trials.size(), whole.trials.size());
  for (size_t i = 0; i < whole.trials.size(); ++i) {
    EXPECT_EQ(rest.trials[i].plan, whole.trials[i].plan);
    EXPECT_EQ(rest.trials[i].kl, whole.trials[i].kl);
  }

  const ShrinkResult again = run_shrink(stories.variants, windows, options, no_progress(), nullptr);
  EXPECT_EQ(again.scores_evaluated, 0);
  expect_equal(again.chosen, whole.chosen);
  options.fresh = true;
  EXPECT_EQ(run_shrink(stories.variants, windows, options, no_progress(), nullptr).scores_remembered, 0);
}

TEST(Shrink, TrialsOfAnotherModelOrTextAreNotTaken) {
  Stories stories;
  const TemporaryFolder folder;
  ShrinkOptions options = small_search(12);
  options.database = folder / "trials.db";
  run_shrink(stories.variants, stories.windows(kTokens), options, no_progress(), nullptr);
  auto other_text = stories.windows(kTokens);
  for (auto& window : other_text) window[10] = window[10] == 300 ? 301 : 300;
  EXPECT_EQ(run_shrink(stories.variants, other_text, options, no_progress(), nullptr).scores_remembered, 0);
  Plan half;
  half.store.push_back({"ffn_up", 0, -1, DType::kF16});
  Variants other_model(apply_plan(stories.checkpoint, half), stories.pool);
  EXPECT_EQ(run_shrink(other_model, stories.windows(kTokens), options, no_progress(), nullptr).scores_remembered, 0);
}

TEST(Shrink, SizeBudgetGivesTheBestWithin) {
  Stories stories;
  ShrinkOptions options = small_search(50);
  options.budget = {.quality = {}, .bytes = 400'000, .speed = {}};
  const ShrinkResult result = run_shrink(stories.variants, stories.windows(kTokens), options, no_progress(), nullptr);
  EXPECT_LE(result.chosen.bytes, 400'000);
  EXPECT_GT(result.chosen.bytes, 320'000);
  for (const TrialPoint& trial : result.trials) {
    if (trial.bytes <= 400'000) {
      EXPECT_GE(trial.kl, result.chosen.kl * 0.2);
    }
  }
}

std::string refusal(Stories& stories, const ShrinkOptions& options) {
  return test::refusal_of(
      [&] { run_shrink(stories.variants, stories.windows(kTokens), options, no_progress(), nullptr); });
}

TEST(Shrink, SaysWhatCameClosestToABudgetThatCannotBeMet) {
  Stories stories;
  ShrinkOptions options = small_search(30);
  options.budget = {.quality = 0.9999, .bytes = 250'000, .speed = {}};
  const std::string line = refusal(stories, options);
  EXPECT_THAT(line, HasSubstr("stories260K.gguf: nothing was found within the budget (quality 99.99%, 0.25 MB)"));
  EXPECT_THAT(line, ::testing::ContainsRegex("what came closest has 0\\.[0-9]+ MB and quality [0-9]+\\.[0-9][0-9]%"));
  options.budget = {.quality = {}, .bytes = 1000, .speed = {}};
  EXPECT_THAT(refusal(stories, options), HasSubstr("0.001 MB"));
  options.budget = {.quality = {}, .bytes = {}, .speed = 1000};
  EXPECT_THAT(refusal(stories, options), HasSubstr("1e+03x as fast"));
}

TEST(Shrink, RefusesNonsense) {
  Stories stories;
  ShrinkOptions options = small_search(10);
  options.budget = {};
  EXPECT_THAT(refusal(stories, options), HasSubstr("no budget"));
  options.budget.quality = 1.5;
  EXPECT_THAT(refusal(stories, options), HasSubstr("150%"));
  options.budget = {.quality = {}, .bytes = 0, .speed = {}};
  EXPECT_THAT(refusal(stories, options), HasSubstr("0 bytes"));
  options = small_search(0);
  EXPECT_THAT(refusal(stories, options), HasSubstr("0 trials"));
  options = small_search(10);
  EXPECT_THROW(run_shrink(stories.variants, {{1, 2, 3}}, options, no_progress(), nullptr), Error);
}

TEST(Shrink, EndsSoonAfterItsTime) {
  Stories stories;
  ShrinkOptions options = small_search(100000);
  options.seconds = 1e-3;
  EXPECT_THAT(refusal(stories, options), HasSubstr("time was up before any plan was judged"));
  // Long enough for a plan within the budget wherever this runs.
  for (double seconds = 2;; seconds *= 4) {
    options.seconds = seconds;
    try {
      const ShrinkResult result =
          run_shrink(stories.variants, stories.windows(kTokens), options, no_progress(), nullptr);
      EXPECT_LT(result.seconds, 58 + seconds);  // generous: the machine may be busy
      EXPECT_LT(result.trials_evaluated, 100000);
      break;
    } catch (const Error& error) {
      ASSERT_THAT(error.what(), AnyOf(HasSubstr("time was up"), HasSubstr("nothing was found within the budget")));
      ASSERT_LT(seconds, 100);
    }
  }
}

}  // namespace
}  // namespace pare
