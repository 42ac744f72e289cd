#include "model/candidates.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/packing.h"

namespace pare {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int64_t kRows = kernels::kInterleavedRows;  // of a group that is bounded and computed together

// Groups computed first, at least: enough to know a large logit, and for several threads. Matrices of not many times as
// many are not worth a search.
constexpr int64_t kFewestGroups = 16, kFewerGroups = 4;
// Then those whose bounds are above what is known, this times as many at most; and so on. Mostly that is all, and only
// where little is excluded do more logits exclude more.
constexpr int64_t kMoreGroups = 16;
constexpr int64_t kLongestPause = 64;

/// The `count` largest of values that come one after the other; NaN is none.
class Largest {
 public:
  explicit Largest(int64_t count) : count_(static_cast<size_t>(count)) { heap_.reserve(count_); }
  void add(float value) {
    if (heap_.size() == count_) {
      if (!(value > heap_.front())) return;
      std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
      heap_.back() = value;
    } else {
      if (std::isnan(value)) return;
      heap_.push_back(value);
    }
    std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
  }
  /// The least of them; minus infinity while there are fewer.
  float least() const { return heap_.size() == count_ ? heap_.front() : -kInfinity; }

 private:
  size_t count_;
  std::vector<float> heap_;
};

int64_t first_groups(int64_t count) { return std::max(kFewestGroups, count); }

void keep_nan(std::vector<TokenLogit>& candidates) {
  const auto nan = [](const TokenLogit& c) { return std::isnan(c.logit); };
  if (std::any_of(candidates.begin(), candidates.end(), nan)) {
    std::erase_if(candidates, [&](const TokenLogit& c) { return !nan(c); });
  }
}

}  // namespace

void pick_candidates(std::span<const float> logits, int64_t count, std::vector<TokenLogit>& candidates) {
  float least = -kInfinity;
  if (count > 0 && count < static_cast<int64_t>(logits.size())) {
    Largest largest(count);
    for (const float logit : logits) largest.add(logit);
    least = largest.least();
  }
  candidates.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] < least)) candidates.push_back({static_cast<int32_t>(i), logits[i]});
  }
  keep_nan(candidates);
}

/// What is known so far.
struct CandidateSearch::Found {
  explicit Found(int64_t count) : largest(count) {}
  Largest largest;
  std::vector<TokenLogit> candidates;
  bool nan = false;

  void add(const std::vector<float>& logits, const std::vector<int32_t>& groups) {
    for (const int32_t group : groups) {
      const auto end = std::min(logits.size(), static_cast<size_t>((group + 1) * kRows));
      for (auto row = static_cast<size_t>(group * kRows); row < end; ++row) {
        nan = nan || std::isnan(logits[row]);
        if (logits[row] < largest.least()) continue;
        candidates.push_back({static_cast<int32_t>(row), logits[row]});
        largest.add(logits[row]);
      }
    }
  }
};

bool CandidateSearch::worth_trying() {
  if (paused_ == 0) return true;
  --paused_;
  return false;
}

/// Outputs of groups of 16 rows, to logits_.
void CandidateSearch::compute(const PackedWeight& weight, const kernels::MultiplyArgs& args,
                              std::vector<int32_t>& groups) {
  std::sort(groups.begin(), groups.end());
  const auto address = [&](size_t i) { return weight.at(groups[i] * kRows); };
  pool_.parallel_for(static_cast<int64_t>(groups.size()), 1, [&](int64_t begin, int64_t end, int) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      kernels::MultiplyArgs mine = args;
      mine.row_begin = groups[i] * kRows;
      mine.row_end = std::min(mine.row_begin + kRows, weight.rows);
      mine.then = i + 1 < static_cast<size_t>(end) ? address(i + 1) : nullptr;
      mine.expected = i > static_cast<size_t>(begin);
      weight.kernel.multiply(mine);
    }
  });
  for (const int32_t group : groups) most_[static_cast<size_t>(group)] = -kInfinity;
  computed_ += static_cast<int64_t>(groups.size()) * kRows;
}

/// Groups whose bounds are not below `least`: of more than `count`, the highest, since what they are may exclude
/// others.
void CandidateSearch::choose(float least, int64_t count, std::vector<int32_t>& groups) {
  best_.clear();
  for (size_t group = 0; group < most_.size(); ++group) {
    if (most_[group] >= least && most_[group] > -kInfinity) best_.emplace_back(most_[group], group);
  }
  if (static_cast<int64_t>(best_.size()) > count) {
    std::nth_element(best_.begin(), best_.begin() + count, best_.end(), std::greater<>());
    best_.resize(static_cast<size_t>(count));
  }
  groups.clear();
  for (const auto& [most, group] : best_) groups.push_back(group);
}

void CandidateSearch::search(const PackedWeight& weight, const LinearInput::View& input, int64_t count,
                             std::vector<TokenLogit>& candidates) {
  const kernels::MultiplyArgs args{.weights = weight.data,
                                   .weight_rows = weight.rows,
                                   .columns = weight.columns,
                                   .input = input.data,
                                   .input_stride = input.stride,
                                   .input_rows = 1,
                                   .output = logits_.data(),
                                   .output_stride = weight.rows,
                                   .row_begin = 0,
                                   .row_end = 0};
  const int64_t first = first_groups(count);
  Largest highest(first);
  for (const float most : most_) highest.add(most);
  Found found(count);
  std::vector<int32_t> groups;
  choose(highest.least(), first, groups);
  for (int64_t more = first * kMoreGroups; !groups.empty(); more *= kMoreGroups) {
    compute(weight, args, groups);
    found.add(logits_, groups);
    if (found.nan) break;
    choose(found.largest.least(), more, groups);
  }
  candidates = std::move(found.candidates);
  std::erase_if(candidates, [&](const TokenLogit& c) { return c.logit < found.largest.least(); });
  std::sort(candidates.begin(), candidates.end(), [](const auto& a, const auto& b) { return a.token < b.token; });
  keep_nan(candidates);
}

void CandidateSearch::find(const LinearGroup& output, LinearInput& input, Multiplier& multiplier, int64_t count,
                           std::vector<TokenLogit>& candidates) {
  const Linear& linear = output.linears[0];
  const PackedWeight& weight = *linear.weight;
  const kernels::HeadBounds* bounds = weight.packing().bounds;
  logits_.resize(static_cast<size_t>(weight.rows));
  const int64_t groups = (weight.rows + kRows - 1) / kRows;
  const bool plain = weight.scale == 1 && linear.bias.empty();
  if (!bounds || !plain || count == 0 || kFewerGroups * first_groups(count) > groups || !worth_trying()) {
    float* const all[] = {logits_.data()};
    computed_ = weight.rows;
    multiplier.run(output, input, all);
    return pick_candidates(logits_, count, candidates);
  }
  const LinearInput::View prepared = input.prepared(weight.packing().input, pool_);
  units_.resize(static_cast<size_t>(weight.columns / kernels::kLeastUnit));
  bounds->prepare(prepared.data, weight.columns, units_.data());
  most_.resize(static_cast<size_t>(groups));
  multiplier.bound(output, input, units_.data(), most_.data());
  computed_ = 0;
  search(weight, prepared, count, candidates);
  const int64_t read =
      bounds->leading_bytes(weight.rows, weight.columns) + weight.packing().packed_bytes(computed_, weight.columns);
  pause_ = read < weight.bytes() ? 0 : std::clamp<int64_t>(2 * pause_, 1, kLongestPause);
  paused_ = pause_;
}

}  // namespace pare
