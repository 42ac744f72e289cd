#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/progress.h"
#include "redundancy/greedy.h"
#include "redundancy/importance.h"
#include "shrink/scale.h"
#include "shrink/search.h"

namespace pare {

struct ShrinkOptions {
  ShrinkBudget budget;            // quality alone: the smallest file that keeps it; else the best file within
  std::optional<double> seconds;  // for everything; nothing: no limit
  double seconds_used = 0;        // of them, before the call
  std::optional<int64_t> trials;  // plans evaluated at most; nothing: as many as time allows, up to kMostTrials
  uint64_t seed = 0;
  DType kv = DType::kF16;
  GgufReader reader = GgufReader::kPare;  // of the file, whose size depends on it a little
  std::filesystem::path database;         // of trials; empty: kept in memory only
  bool fresh = false;                     // forgets trials of this model and text
  bool against_random = false;            // afterwards as many plans drawn at random, to compare
};
inline constexpr int64_t kMostTrials = 1500;

/// A plan and what was measured of it on the validation text, which the search never saw.
struct PlanResult {
  std::string name;  // "drops alone"
  Plan plan;
  int64_t bytes = 0;  // of the GGUF file
  double perplexity = 0;
  double quality = 1;                       // base perplexity / this one
  double kl = 0;                            // nats a token
  double top1 = 1;                          // share of positions where both would choose the same token
  double tokens_per_second = 0, speed = 1;  // decoding, and over the base's, measured in turns; 0 if not measured
};

/// The best plan with drops and the best without, at most `bytes` large.
struct SizeComparison {
  int64_t bytes = 0;
  std::optional<PlanResult> with_drops, without_drops;
};

/// A plan that the search evaluated on all of its text.
struct TrialPoint {
  Plan plan;
  int64_t bytes = 0;
  double kl = 0, quality = 1, top1 = 1;  // on the search's text
  double speed = 0;                      // over the base's, predicted; 0 if unknown
  int drops = 0;
  bool on_front = false;  // nothing is as good in size, KL and speed, and better in one
  std::string origin;
};

/// What one change alone costs, in nats a token on a small part of the text.
struct ChangeCost {
  std::string tensor;  // of a type change; "attention" or "mlp" for a drop
  int first_layer = -1, last_layer = -1;
  std::string type;  // empty for a drop
  double kl = 0;
};

/// Bytes of a kind of weight in a type.
struct SizeEntry {
  std::string tensor;
  DType type = DType::kF32;
  int64_t bytes = 0, values = 0;
};

/// What became of a matrix.
struct MatrixChange {
  std::string tensor;
  int layer = -1;
  DType before = DType::kF32;
  std::optional<DType> after;  // nothing: dropped
  int64_t bytes_before = 0, bytes_after = 0;
};

/// What the search found beside as many plans drawn at random: the least KL divergence on the search's text of any plan
/// at most `bytes` large; nothing if none is as small.
struct RandomComparison {
  int64_t bytes = 0;
  std::optional<double> searched_kl, random_kl;
};

struct ShrinkResult {
  PlanResult base, chosen;
  /// The base, drops alone, types alone, both together: of the chosen plan if it drops something, else of the best plan
  /// with drops at its size.
  std::vector<PlanResult> steps;
  bool drops_taken = false;
  std::vector<SizeComparison> comparisons;
  std::vector<RandomComparison> random;
  std::vector<TrialPoint> trials;
  std::vector<ChangeCost> changes;
  Redundancy redundancy;
  std::vector<SizeEntry> base_sizes, chosen_sizes;
  std::vector<MatrixChange> matrices;
  SearchScale scale;
  ShrinkBudget budget;
  int64_t search_tokens = 0, validation_tokens = 0;     // predictions counted
  int64_t trials_evaluated = 0;                         // plans that the search tried
  int64_t scores_evaluated = 0, scores_remembered = 0;  // plans on slices of text: run now, and read from the database
  double seconds = 0;
};

/// Searches for the best plan within the budget. windows: calibration text (see redundancy/calibration.h). What was
/// evaluated is kept in the database as it comes, so that a call that was interrupted and is made again goes on where
/// it was. Throws Error if nothing is within the budget (saying what came closest), for an unusable database or text;
/// Interrupted.
ShrinkResult run_shrink(Variants& variants, const std::vector<std::vector<int32_t>>& windows,
                        const ShrinkOptions& options, Progress& progress, const CancelFlag* cancel);

}  // namespace pare
