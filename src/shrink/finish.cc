#include "shrink/finish.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace pare {
namespace {

constexpr int kMostChoices = 5;  // plans held against the budget on the validation text
constexpr double kRoom = 0.85;   // of the divergence allowed: below it a smaller plan is worth a look

double excess(double value, double limit) { return std::max(0.0, std::log(value / limit)); }

Plan only_drops(const Plan& plan) {
  Plan result = plan;
  result.store.clear();
  return result;
}

Plan only_types(const Plan& plan) {
  Plan result = plan;
  result.drop_attention.clear();
  result.drop_mlp.clear();
  return result;
}

bool drops(const Plan& plan) { return !plan.drop_attention.empty() || !plan.drop_mlp.empty(); }

std::string wanted(const ShrinkBudget& budget) {
  std::string text;
  const auto add = [&](const std::string& part) { text += (text.empty() ? "" : ", ") + part; };
  if (budget.quality) add(fmt::format("quality {:.4g}%", 100 * *budget.quality));
  if (budget.bytes) add(fmt::format("{:.4g} MB", static_cast<double>(*budget.bytes) / 1e6));
  if (budget.speed) add(fmt::format("{:.3g}x as fast", *budget.speed));
  return text;
}

}  // namespace

Finisher::Finisher(PlanEvaluator& evaluator, const PlanSearch& search, const ShrinkOptions& options, Text text,
                   DecodeOptions decode, std::function<bool()> hurry, Progress& progress, const CancelFlag* cancel)
    : evaluator_(evaluator),
      search_(search),
      options_(options),
      text_(std::move(text)),
      decode_(decode),
      hurry_(std::move(hurry)),
      progress_(progress),
      cancel_(cancel) {}

/// Measures a plan once, however often it is asked for.
PlanResult Finisher::measure(const Plan& plan, const std::string& name) {
  for (PlanResult& known : measured_) {
    if (!(known.plan == plan)) continue;
    PlanResult result = known;
    result.name = name;
    return result;
  }
  PlanResult result;
  result.name = name;
  result.plan = plan;
  result.bytes = evaluator_.file_bytes(plan);
  result.perplexity = evaluator_.base(text_.validation).perplexity;
  if (!(plan == Plan{})) {
    const SliceScore score = evaluator_.evaluate(plan, text_.validation);
    result.quality = score.quality();
    result.kl = score.kl;
    result.top1 = score.top1;
    result.perplexity *= std::exp(score.nats);
  }
  measured_.push_back(result);
  progress_.update(++done_, name);
  return result;
}

PlanResult& Finisher::with_speed(PlanResult& plan) {
  if (plan.tokens_per_second > 0 || hurry_()) return plan;
  for (const PlanResult& known : measured_) {
    if (known.plan == plan.plan && known.tokens_per_second > 0) {
      plan.tokens_per_second = known.tokens_per_second, plan.speed = known.speed;
      return plan;
    }
  }
  const std::unique_ptr<Model> model = evaluator_.make(plan.plan);
  const DecodeComparison decode = compare_decode(evaluator_.variants().base(), *model, text_.prompt, decode_, cancel_);
  plan.tokens_per_second = 1 / decode.seconds;
  plan.speed = plan.plan == Plan{} ? 1 : decode.ratio;
  for (PlanResult& known : measured_) {
    if (known.plan == plan.plan) known.tokens_per_second = plan.tokens_per_second, known.speed = plan.speed;
  }
  return plan;
}

bool Finisher::within(const PlanResult& plan) const {
  const ShrinkBudget& budget = options_.budget;
  if (budget.quality && plan.quality < *budget.quality) return false;
  if (budget.bytes && plan.bytes > *budget.bytes) return false;
  return !budget.speed || plan.speed >= *budget.speed;
}

void Finisher::refuse(const std::vector<PlanResult>& tried) {
  const ShrinkBudget& budget = options_.budget;
  const auto far = [&](const PlanResult& plan) {
    double total = budget.quality ? 5 * excess(*budget.quality, std::max(plan.quality, 1e-9)) : 0;
    if (budget.bytes) total += excess(static_cast<double>(plan.bytes), static_cast<double>(*budget.bytes));
    return total + (budget.speed ? excess(*budget.speed, std::max(plan.speed, 1e-9)) : 0);
  };
  const PlanResult& closest = *std::min_element(
      tried.begin(), tried.end(), [&](const PlanResult& a, const PlanResult& b) { return far(a) < far(b); });
  const std::string speed = closest.tokens_per_second > 0 ? fmt::format(", {:.2f}x as fast", closest.speed) : "";
  fail("{}: nothing was found within the budget ({}); what came closest has {:.4g} MB and quality {:.2f}%{}",
       evaluator_.variants().checkpoint().path.string(), wanted(budget), static_cast<double>(closest.bytes) / 1e6,
       100 * closest.quality, speed);
}

// The search judged plans by their divergence on its own text; the budget is judged on text it never saw. Where the two
// disagree, the limit on divergence moves by as much, and the next best plan has its turn.
void Finisher::choose(ShrinkResult& result) {
  progress_.start("measuring the best plans", "plans", 0);
  result.base = measure({}, "as it is");
  const std::optional<double> quality = options_.budget.quality;
  const double wanted_nats = quality ? std::max(1e-6, -std::log(*quality)) : 0;
  double kl_limit = quality ? search_.kl_for_quality(*quality) : 0;
  std::vector<size_t> except;
  std::vector<PlanResult> tried;
  std::optional<PlanResult> chosen;
  for (int i = 0; i < kMostChoices; ++i) {
    const auto index = search_.best(kl_limit, except);
    if (!index) break;
    PlanResult plan = measure(search_.trials()[*index].plan, "the result");
    if (options_.budget.speed) with_speed(plan);
    const bool good = within(plan) && (!chosen || plan.bytes < chosen->bytes);
    tried.push_back(plan);
    except.push_back(*index);
    if (good) chosen = plan;
    if (!quality) {
      if (chosen) break;
      continue;  // too slow in truth: the next best by KL
    }
    const double nats = std::max(-std::log(plan.quality), wanted_nats / 4);
    const bool by_size = !options_.budget.bytes && !options_.budget.speed;
    if (chosen && (!by_size || nats > kRoom * wanted_nats)) break;
    kl_limit *= std::clamp(wanted_nats / nats, 0.4, 1.5);
    if (!good && !chosen) kl_limit *= 0.98;
  }
  if (!chosen) {
    if (tried.empty()) {
      const size_t nearest = search_.nearest();
      if (nearest == 0) {
        fail("{}: time was up before any plan was judged; allow more of it",
             evaluator_.variants().checkpoint().path.string());
      }
      tried.push_back(measure(search_.trials()[nearest].plan, "the nearest"));
    }
    if (options_.budget.speed) with_speed(tried.front());
    refuse(tried);
  }
  result.chosen = *chosen;
}

void Finisher::compare(ShrinkResult& result) {
  for (const SizeContest& contest : search_.contests()) {
    SizeComparison comparison;
    comparison.bytes = contest.bytes;
    const auto add = [&](const std::optional<size_t>& index, const char* name, std::optional<PlanResult>& to) {
      if (index && !hurry_()) to = measure(search_.trials()[*index].plan, name);
    };
    add(contest.with, "best with drops", comparison.with_drops);
    add(contest.without, "best without drops", comparison.without_drops);
    result.comparisons.push_back(std::move(comparison));
  }
  result.drops_taken = drops(result.chosen.plan);
  Plan both = result.chosen.plan;
  if (!result.drops_taken) {
    for (const SizeComparison& comparison : result.comparisons) {
      if (!comparison.with_drops) continue;
      both = comparison.with_drops->plan;
      break;
    }
  }
  result.steps = {result.base};
  if (drops(both) && !hurry_()) result.steps.push_back(measure(only_drops(both), "drops alone"));
  if (!both.store.empty() && !hurry_()) result.steps.push_back(measure(only_types(both), "types alone"));
  if (drops(both) && !both.store.empty()) result.steps.push_back(measure(both, "drops and types"));
  // Speeds last: the plans compared lie close in time.
  with_speed(result.base);
  with_speed(result.chosen);
  for (PlanResult& step : result.steps) with_speed(step);
  for (SizeComparison& comparison : result.comparisons) {
    if (comparison.with_drops) with_speed(*comparison.with_drops);
    if (comparison.without_drops) with_speed(*comparison.without_drops);
  }
  progress_.finish();
}

}  // namespace pare
