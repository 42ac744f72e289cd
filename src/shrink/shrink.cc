#include "shrink/shrink.h"

#include <algorithm>
#include <chrono>
#include <map>

#include "base/error.h"
#include "redundancy/calibration.h"
#include "shrink/finish.h"
#include "shrink/pareto.h"
#include "shrink/random_search.h"

namespace pare {
namespace {

constexpr int64_t kRedundancyTokens = 8192;
constexpr double kSpeedShare = 0.06;  // of the time, for measuring decode speed, at the beginning and the end each
constexpr double kMostReserve = 0.4;  // of the time, kept for the end
constexpr int kFinalPlans = 9;        // measured at the end, about
constexpr double kWriteBytesPerSecond = 5e7;  // encoding included
constexpr int64_t kPromptTokens = 16;
constexpr double kRateSeconds = 0.1;  // a run this long tells the machine's speed well enough

class Stopwatch {
 public:
  Stopwatch(std::optional<double> limit, double used) : limit_(limit), used_(used) {}
  double elapsed() const { return used_ + std::chrono::duration<double>(Clock::now() - start_).count(); }
  std::optional<double> limit() const { return limit_; }
  bool over() const { return limit_ && elapsed() >= *limit_; }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
  std::optional<double> limit_;
  double used_;
};

void check(const ShrinkOptions& options) {
  const ShrinkBudget& budget = options.budget;
  if (budget.quality && !(*budget.quality > 0 && *budget.quality <= 1)) {
    fail("a quality of {:.4g}% cannot be asked for: expected more than 0% and at most 100%", 100 * *budget.quality);
  }
  if (budget.bytes && *budget.bytes <= 0) fail("a size of {} bytes cannot be asked for", *budget.bytes);
  if (budget.speed && !(*budget.speed > 0)) fail("a speed of {}x cannot be asked for", *budget.speed);
  if (!budget.quality && !budget.bytes && !budget.speed) fail("no budget: expected a quality, a size or a speed");
  if (options.seconds && !(*options.seconds > 0)) fail("a time of {} seconds is no time", *options.seconds);
  if (options.trials && *options.trials < 1) fail("{} trials are too few: expected at least 1", *options.trials);
}

/// One search from its beginning to its end: what run_shrink does, step by step.
class ShrinkRun {
 public:
  ShrinkRun(Variants& variants, const ShrinkOptions& options, Progress& progress, const CancelFlag* cancel)
      : variants_(variants),
        options_(options),
        progress_(progress),
        cancel_(cancel),
        watch_(options.seconds, options.seconds_used),
        store_(open_store()),
        evaluator_(variants, store_, options.kv, options.reader, cancel) {}

  ShrinkResult run(const std::vector<std::vector<int32_t>>& windows);

 private:
  TrialStore open_store();
  double measure_rate(const std::vector<std::vector<int32_t>>& windows);
  void settle_scale(const std::vector<std::vector<int32_t>>& windows);
  void measure_importance(const std::vector<std::vector<int32_t>>& windows);
  void settle_speed();
  TrialEvaluator make_evaluator();
  PlanSearch make_search();
  void compare_with_random(const PlanSearch& search);
  DecodeOptions decode_options(int rounds, int plans) const;
  double reserve() const;
  void report_search(const PlanSearch& search);
  void report_sizes();

  Variants& variants_;
  const ShrinkOptions& options_;
  Progress& progress_;
  const CancelFlag* cancel_;
  Stopwatch watch_;
  TrialStore store_;
  PlanEvaluator evaluator_;
  std::string settings_;  // names notes that depend on the text and the limits
  int slices_ = 0, validation_ = 0;
  std::vector<int32_t> prompt_;
  SearchSpace space_;
  SpeedModel speed_;
  double base_decode_seconds_ = 0;
  ShrinkResult result_;
};

TrialStore ShrinkRun::open_store() {
  if (options_.database.empty()) return {};
  const Checkpoint& base = variants_.checkpoint();
  return {options_.database, model_fingerprint(base, variants_.base(), options_.kv), base.name, options_.fresh};
}

/// Tokens a second of the base: a short run tells, on more text the faster the machine is.
double ShrinkRun::measure_rate(const std::vector<std::vector<int32_t>>& windows) {
  double rate = 0;
  for (const int64_t tokens : {256, 2048}) {
    const TextSplit sample = split_text(windows, {1, tokens, 512});
    const double start = watch_.elapsed();
    Reference::measure(variants_.base(), sample.slices[0], options_.kv, no_progress(), cancel_);
    const double seconds = watch_.elapsed() - start;
    int64_t run = 0;
    for (const auto& window : sample.slices[0].windows) run += static_cast<int64_t>(window.tokens.size());
    rate = static_cast<double>(run) / std::max(1e-6, seconds);
    if (seconds > kRateSeconds) break;
  }
  return rate;
}

/// How much text and how many groups: from the time there is and the speed of this machine, once; a search that goes on
/// takes what it took before, or its trials would not serve it.
void ShrinkRun::settle_scale(const std::vector<std::vector<int32_t>>& windows) {
  int64_t tokens = 0, sum = 0;
  for (const auto& window : windows) {
    for (const int32_t token : window) sum = (sum * 31 + token) % 1'000'000'007;
    tokens += static_cast<int64_t>(window.size());
  }
  settings_ = fmt::format("{}/{}/{}/{}", tokens, sum, options_.seconds ? fmt::format("{:g}", *options_.seconds) : "-",
                          options_.trials ? fmt::format("{}", *options_.trials) : "-");
  const ModelConfig& config = variants_.checkpoint().config;
  std::optional<SearchScale> scale;
  if (const auto note = store_.note("scale " + settings_)) scale = parse_scale(*note);
  if (!scale) {
    const double rate = options_.seconds ? measure_rate(windows) : 0;
    scale = choose_scale(config, options_.seconds, rate, options_.trials);
    store_.set_note("scale " + settings_, to_string(*scale));
  }
  const TextSplit split = split_text(windows, *scale);
  for (const TextWindows& slice : split.slices) {
    if (slice.windows.empty()) continue;
    evaluator_.add_slice(slice);
    result_.search_tokens += slice.counted();
    ++slices_;
  }
  validation_ = evaluator_.add_slice(split.validation);
  result_.validation_tokens = split.validation.counted();
  result_.scale = *scale;
  const std::vector<int32_t>& text = split.validation.windows.front().tokens;
  const auto context = static_cast<size_t>(std::max<int64_t>(1, config.context / 2));
  prompt_.assign(text.begin(),
                 text.begin() + static_cast<std::ptrdiff_t>(std::min({text.size(), size_t{kPromptTokens}, context})));
}

void ShrinkRun::measure_importance(const std::vector<std::vector<int32_t>>& windows) {
  // Only text of the search; validation must stay unseen.
  const int64_t most = std::min(kRedundancyTokens, 2 * result_.scale.search_tokens);
  std::vector<std::vector<int32_t>> some;
  const TextSplit split = split_text(windows, {1, most, 512});
  for (const TextWindows& slice : split.slices) {
    for (const TextWindows::Window& window : slice.windows) some.push_back(window.tokens);
  }
  result_.redundancy = measure_redundancy(variants_.base(), some, progress_, cancel_);
}

DecodeOptions ShrinkRun::decode_options(int rounds, int plans) const {
  DecodeOptions decode{.tokens = 32, .rounds = rounds, .kv = options_.kv};
  if (options_.seconds && base_decode_seconds_ > 0) {
    const double tokens = kSpeedShare * *options_.seconds / (2.0 * (rounds + 1) * plans * base_decode_seconds_);
    decode.tokens = std::clamp<int64_t>(static_cast<int64_t>(tokens), 1, 32);
  }
  return decode;
}

/// Decode speed of a few plans, from which that of all others follows. Kept with the trials, so that a search that goes
/// on, and may depend on speeds, takes the same turns.
void ShrinkRun::settle_speed() {
  Model& base = variants_.base();
  base_decode_seconds_ =
      compare_decode(base, base, prompt_, {.tokens = 2, .rounds = 0, .kv = options_.kv}, cancel_).seconds;
  const std::string name = fmt::format("speed {} {}", base.pool().size(), settings_);
  if (const auto note = store_.note(name)) speed_ = parse_speed_model(*note, space_);
  if (speed_.known()) return;
  const auto plans = static_cast<int>(space_.types().size()) + 2;
  const DecodeOptions decode = decode_options(3, plans);
  progress_.start("measuring decode speed", "plans", plans);
  int64_t done = 0;
  speed_ = fit_speed(space_, variants_.checkpoint().config.tied_embedding, [&](const Plan& plan) {
    const std::unique_ptr<Model> model = variants_.make(plan);
    const DecodeComparison result = compare_decode(base, *model, prompt_, decode, cancel_);
    progress_.update(++done);
    return result;
  });
  progress_.finish();
  if (speed_.known()) store_.set_note(name, to_string(speed_));
}

/// Seconds kept for measuring the best plans and writing the file.
double ShrinkRun::reserve() const {
  const double rate = std::max(1.0, evaluator_.tokens_per_second());
  const double validation = kFinalPlans * static_cast<double>(result_.validation_tokens) / rate;
  const double write = static_cast<double>(variants_.checkpoint().bytes()) / 2 / kWriteBytesPerSecond;
  return std::min(validation + write + kSpeedShare * *options_.seconds, kMostReserve * *options_.seconds);
}

TrialEvaluator ShrinkRun::make_evaluator() {
  TrialEvaluator evaluator;
  evaluator.slices = slices_;
  evaluator.evaluate = [this](const Plan& plan, int slice) { return evaluator_.evaluate(plan, slice); };
  evaluator.bytes = [this](const Plan& plan) { return evaluator_.file_bytes(plan); };
  return evaluator;
}

PlanSearch ShrinkRun::make_search() {
  SearchOptions search;
  search.budget = options_.budget;
  search.trials = options_.trials.value_or(kMostTrials);
  search.seed = options_.seed;
  search.base_seconds = 1;  // speeds are relative to the base
  if (options_.seconds) {
    const double begin = watch_.elapsed(), end = *options_.seconds - reserve();
    search.time_used = [this, begin, end] { return end > begin ? (watch_.elapsed() - begin) / (end - begin) : 1; };
  }
  return {space_, speed_, make_evaluator(), std::move(search), progress_};
}

void ShrinkRun::report_search(const PlanSearch& search) {
  std::vector<ParetoPoint> points;
  for (const SearchTrial& trial : search.trials()) {
    const DropPart* dropped = nullptr;
    for (size_t p = 0; p < space_.parts.size(); ++p) {
      if (trial.candidate.dropped[p]) dropped = &space_.parts[p].part;
    }
    if (trial.origin == "one drop alone") {
      const char* kind = dropped->kind == DropPart::Kind::kAttention ? "attention" : "mlp";
      result_.changes.push_back({kind, dropped->layer, dropped->layer, "", trial.slice.kl});
    } else if (trial.origin == "one change alone") {
      for (size_t u = 0; u < space_.units.size(); ++u) {
        const SearchSpace::Unit& unit = space_.units[u];
        if (trial.candidate.option[u] == 0) continue;
        result_.changes.push_back({unit.tensor, unit.first_layer, unit.last_layer,
                                   info(*unit.options[trial.candidate.option[u]]).name, trial.slice.kl});
      }
    }
    if (!trial.complete) continue;
    points.push_back({static_cast<double>(trial.bytes), trial.score.kl, trial.seconds});
    TrialPoint point;
    point.plan = trial.plan;
    point.bytes = trial.bytes;
    point.kl = trial.score.kl, point.quality = trial.score.quality(), point.top1 = trial.score.top1;
    point.speed = trial.seconds > 0 ? 1 / trial.seconds : 0;
    point.drops = trial.drops;
    point.origin = trial.origin;
    result_.trials.push_back(std::move(point));
  }
  for (const size_t i : pareto_front(points)) result_.trials[i].on_front = true;
}

/// At the sizes of the comparisons and of the result.
void ShrinkRun::compare_with_random(const PlanSearch& search) {
  progress_.start("drawing plans at random", "plans", search.used());
  int64_t done = 0;
  TrialEvaluator evaluator = make_evaluator();
  evaluator.evaluate = [this, &done](const Plan& plan, int slice) {
    if (slice == 0) progress_.update(done++);
    return evaluator_.evaluate(plan, slice);
  };
  const auto drawn = random_search(space_, speed_, evaluator, search.used(), options_.seed);
  progress_.finish();
  std::vector<int64_t> sizes{result_.chosen.bytes};
  for (const SizeComparison& comparison : result_.comparisons) sizes.push_back(comparison.bytes);
  std::sort(sizes.begin(), sizes.end());
  sizes.erase(std::unique(sizes.begin(), sizes.end()), sizes.end());
  for (const int64_t bytes : sizes) {
    result_.random.push_back({bytes, best_kl_at(search.trials(), bytes), best_kl_at(drawn, bytes)});
  }
}

std::vector<SizeEntry> sizes_of(const Checkpoint& checkpoint) {
  std::map<std::pair<WeightKind, DType>, SizeEntry> entries;
  for (const WeightTensor& weight : checkpoint.weights) {
    // Norms and biases together: a hair, and float32 in the file.
    const bool matrix = info(weight.id.kind).matrix;
    const WeightKind kind = matrix ? weight.id.kind : WeightKind::kOutputNorm;
    const DType type = matrix ? weight.type : DType::kF32;
    SizeEntry& entry = entries[{kind, type}];
    entry.tensor = matrix ? info(kind).name : "norms";
    entry.type = type;
    entry.values += weight.shape.count();
    entry.bytes += info(type).bytes(weight.shape.count());
  }
  std::vector<SizeEntry> sizes;
  for (auto& [key, entry] : entries) sizes.push_back(std::move(entry));
  return sizes;
}

void ShrinkRun::report_sizes() {
  const Checkpoint& before = variants_.checkpoint();
  const Checkpoint after = apply_plan(before, result_.chosen.plan);
  result_.base_sizes = sizes_of(before);
  result_.chosen_sizes = sizes_of(after);
  for (const WeightTensor& weight : before.weights) {
    if (!info(weight.id.kind).matrix) continue;
    MatrixChange change{info(weight.id.kind).name, weight.id.layer, weight.type, {}, weight.bytes(), 0};
    if (const WeightTensor* kept = after.find(weight.id)) change.after = kept->type, change.bytes_after = kept->bytes();
    result_.matrices.push_back(std::move(change));
  }
}

ShrinkResult ShrinkRun::run(const std::vector<std::vector<int32_t>>& windows) {
  result_.budget = options_.budget;
  settle_scale(windows);
  measure_importance(windows);
  space_ = make_space(variants_.checkpoint(), result_.redundancy, result_.scale.depth_groups, variants_.base().pool(),
                      options_.reader);
  settle_speed();
  for (const DType type : space_.types()) evaluator_.keep(space_.to_plan(space_.uniform(type)));
  evaluator_.base(0);  // so that the rate is known before time is shared out
  PlanSearch search = make_search();
  search.run();
  Finisher finisher(
      evaluator_, search, options_, {validation_, prompt_}, decode_options(5, kFinalPlans),
      [this] { return watch_.over(); }, progress_, cancel_);
  finisher.choose(result_);
  finisher.compare(result_);
  report_search(search);
  report_sizes();
  result_.trials_evaluated = search.used();
  result_.scores_evaluated = evaluator_.evaluated();
  result_.scores_remembered = evaluator_.remembered();
  if (options_.against_random) compare_with_random(search);
  result_.seconds = watch_.elapsed();
  return std::move(result_);
}

}  // namespace

ShrinkResult run_shrink(Variants& variants, const std::vector<std::vector<int32_t>>& windows,
                        const ShrinkOptions& options, Progress& progress, const CancelFlag* cancel) {
  check(options);
  return ShrinkRun(variants, options, progress, cancel).run(windows);
}

}  // namespace pare
