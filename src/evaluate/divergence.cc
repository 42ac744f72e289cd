#include "evaluate/divergence.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "base/cpu.h"
#include "base/error.h"
#include "base/half.h"
#include "kernels/elementwise.h"

namespace pare {
namespace {

constexpr int kInfinityCode = 0x7c00;  // f16's infinity: a token that cannot come

// Codes are f16 of (largest logit - logit) >= 0, so there are few enough to look up what each one weighs. f16 errs
// relative to the distance from the top by at most 2^-12, and far tokens weigh next to nothing: a model compared with
// itself shows a KL of about 1e-7.
struct CodeTable {
  std::array<float, kInfinityCode + 1> distance, weight;
  CodeTable() {
    for (size_t i = 0; i < kInfinityCode; ++i) {
      distance[i] = f16_to_float(static_cast<uint16_t>(i));
      weight[i] = static_cast<float>(std::exp(-double{distance[i]}));
    }
    distance[kInfinityCode] = 0;  // weighs nothing, and 0 * infinity would be NaN
    weight[kInfinityCode] = 0;
  }
};

const CodeTable& code_table() {
  static const CodeTable table;
  return table;
}

struct Softmax {
  double sum;   // of exp(logit - largest)
  int64_t top;  // the first largest
};

Softmax softmax(const float* logits, int64_t count, float* weights, int64_t position) {
  const kernels::Elementwise& ops = kernels::elementwise();
  const int64_t top = ops.argmax(logits, count);
  const double sum = ops.exp_shifted(logits, logits[top], weights, count);
  if (!std::isfinite(sum) || !std::isfinite(logits[top])) {
    fail("prediction {} of the text is not a finite number", position);
  }
  return {sum, top};
}

double times_log(double x) { return x > 0 ? x * std::log(x) : 0; }

}  // namespace

DistributionStore::DistributionStore(int64_t positions, int64_t vocabulary, int64_t max_bytes)
    : positions_(positions), vocabulary_(vocabulary), kept_(vocabulary) {
  constexpr auto kCode = static_cast<int64_t>(sizeof(uint16_t)), kId = static_cast<int64_t>(sizeof(int32_t));
  const int64_t each = max_bytes / std::max<int64_t>(1, positions) - static_cast<int64_t>(sizeof(Position));
  if (each / kCode < vocabulary) {
    kept_ = std::min(vocabulary - 1, each / (kCode + kId));
    if (kept_ < kLeastEntries) {
      fail("{} bytes cannot hold what the base model predicts at {} positions: use fewer tokens", max_bytes, positions);
    }
    ids_ = Buffer<int32_t>(static_cast<size_t>(positions * kept_));
  }
  codes_ = Buffer<uint16_t>(static_cast<size_t>(positions * kept_));
  summary_.resize(static_cast<size_t>(positions));
}

int64_t DistributionStore::bytes() const {
  return static_cast<int64_t>(codes_.size() * sizeof(uint16_t) + ids_.size() * sizeof(int32_t) +
                              summary_.size() * sizeof(Position));
}

double DistributionStore::put(int64_t position, const float* logits, float* scratch) {
  const CodeTable& table = code_table();
  const auto [sum, top] = softmax(logits, vocabulary_, scratch, position);
  uint16_t* codes = codes_.data() + position * kept_;
  const float largest = logits[top];
  const auto encode = [&](int64_t token) { return float_to_f16(std::max(0.0f, largest - logits[token])); };
  Position& summary = summary_[static_cast<size_t>(position)];
  summary = {static_cast<int32_t>(top), 0, 0, 0};
  if (complete()) {
    for (int64_t i = 0; i < vocabulary_; ++i) codes[i] = encode(i);
  } else {
    std::vector<int32_t> order(static_cast<size_t>(vocabulary_));
    std::iota(order.begin(), order.end(), 0);
    const auto likelier = [&](int32_t a, int32_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; };
    std::nth_element(order.begin(), order.begin() + kept_, order.end(), likelier);
    std::sort(order.begin(), order.begin() + kept_);  // ascending ids read the other model's logits in order
    for (int64_t i = 0; i < kept_; ++i) codes[i] = encode(order[static_cast<size_t>(i)]);
    std::copy_n(order.begin(), kept_, ids_.data() + position * kept_);
    double remaining = 0;
    for (auto it = order.begin() + kept_; it != order.end(); ++it) remaining += double{scratch[*it]};
    summary.remaining = static_cast<float>(remaining);
  }
  for (int64_t i = 0; i < kept_; ++i) {
    summary.weight_sum += double{table.weight[codes[i]]};
    summary.log_weights -= double{table.weight[codes[i]]} * double{table.distance[codes[i]]};
  }
  summary.weight_sum += double{summary.remaining};
  summary.log_weights += times_log(summary.remaining);
  return double{largest} + std::log(sum);
}

// With base weights w_i (sum W) and the model's e_i = exp(z_i - z_max) (sum S), p_i = w_i / W and q_i = e_i / S:
//   KL = sum p_i log p_i - sum p_i log q_i = sum(w_i log w_i)/W - log W - sum(w_i (z_i - z_max))/W + log S.
// The first sum was made once; the inner loop is one table look-up and one product in double.
DistributionStore::Comparison DistributionStore::compare(int64_t position, const float* logits, float* scratch) const {
  const CodeTable& table = code_table();
  const Position& base = summary_[static_cast<size_t>(position)];
  const uint16_t* codes = codes_.data() + position * kept_;
  const auto [sum, top] = softmax(logits, vocabulary_, scratch, position);
  const double largest = logits[top];
  double cross = 0;
  if (complete()) {
    // Four sums hide the latency of adding.
    double part[4] = {0, 0, 0, 0};
    int64_t i = 0;
    for (; i + 4 <= vocabulary_; i += 4) {
      for (int k = 0; k < 4; ++k) part[k] += double{table.weight[codes[i + k]]} * (double{logits[i + k]} - largest);
    }
    for (; i < vocabulary_; ++i) part[0] += double{table.weight[codes[i]]} * (double{logits[i]} - largest);
    cross = (part[0] + part[1]) + (part[2] + part[3]);
  } else {
    const int32_t* ids = ids_.data() + position * kept_;
    for (int64_t i = 0; i < kept_; ++i) {
      cross += double{table.weight[codes[i]]} * (double{logits[ids[i]]} - largest);
      scratch[ids[i]] = 0;
    }
    if (base.remaining > 0) {
      double rest = 0;
      for (int64_t i = 0; i < vocabulary_; ++i) rest += double{scratch[i]};
      cross += double{base.remaining} * std::log(std::max(rest, 1e-300));
    }
  }
  const double log_sum = std::log(sum);
  const double kl = (base.log_weights - cross) / base.weight_sum - std::log(base.weight_sum) + log_sum;
  // Rounding may leave a hair below zero, which no divergence is.
  return {std::max(0.0, kl), largest + log_sum, top == base.top};
}

struct Reference::Impl {
  TextWindows windows;
  PerplexityResult base;
  DistributionStore store;
};

Reference::Reference() = default;
Reference::~Reference() = default;
Reference::Reference(Reference&&) noexcept = default;
Reference& Reference::operator=(Reference&&) noexcept = default;
const TextWindows& Reference::windows() const { return impl_->windows; }
const PerplexityResult& Reference::base() const { return impl_->base; }

namespace {

/// Calls see(index, token, logits, scratch [vocabulary]) for every counted prediction, on all threads of the model.
void score_in_parallel(Model& model, const TextWindows& windows, DType kv, Progress& progress, const CancelFlag* cancel,
                       FunctionRef<void(int64_t, int32_t, const float*, float*)> see) {
  const int64_t vocabulary = model.config().vocabulary;
  Buffer<float> scratch(static_cast<size_t>(vocabulary * model.pool().size()));
  score_rows(
      model, windows, kv,
      [&](const ScoredRows& rows) {
        const auto count = static_cast<int64_t>(rows.tokens.size());
        model.pool().parallel_for(count, 4, [&](int64_t begin, int64_t end, int worker) {
          for (int64_t i = begin; i < end; ++i) {
            see(rows.first + i, rows.tokens[static_cast<size_t>(i)], rows.logits.data() + i * vocabulary,
                scratch.data() + worker * vocabulary);
          }
        });
      },
      progress, cancel);
}

}  // namespace

Reference Reference::measure(Model& base, const TextWindows& windows, DType kv, Progress& progress,
                             const CancelFlag* cancel, int64_t max_bytes) {
  const int64_t counted = windows.counted();
  Reference result;
  result.impl_ =
      std::make_unique<Impl>(Impl{windows, {}, DistributionStore(counted, base.config().vocabulary, max_bytes)});
  std::vector<double> nats(static_cast<size_t>(counted));
  score_in_parallel(base, windows, kv, progress, cancel,
                    [&](int64_t index, int32_t token, const float* logits, float* scratch) {
                      const double log_sum = result.impl_->store.put(index, logits, scratch);
                      nats[static_cast<size_t>(index)] = log_sum - double{logits[token]};
                    });
  result.impl_->base = summarize(windows, nats);
  return result;
}

DivergenceResult divergence(Model& model, const Reference& reference, DType kv, Progress& progress,
                            const CancelFlag* cancel) {
  const DistributionStore& store = reference.impl().store;
  if (model.config().vocabulary != store.vocabulary()) {
    fail("the models have different vocabularies ({} and {} tokens), so their predictions cannot be compared",
         model.config().vocabulary, store.vocabulary());
  }
  const auto counted = static_cast<size_t>(store.positions());
  std::vector<double> nats(counted), kl(counted);
  std::vector<uint8_t> same(counted);
  score_in_parallel(model, reference.windows(), kv, progress, cancel,
                    [&](int64_t index, int32_t token, const float* logits, float* scratch) {
                      const auto i = static_cast<size_t>(index);
                      const DistributionStore::Comparison comparison = store.compare(index, logits, scratch);
                      nats[i] = comparison.log_sum - double{logits[token]};
                      kl[i] = comparison.kl;
                      same[i] = comparison.same_top;
                    });
  DivergenceResult result;
  result.model = summarize(reference.windows(), nats);
  result.base = reference.base();
  const auto count = static_cast<double>(counted);
  result.mean_kl = std::accumulate(kl.begin(), kl.end(), 0.0) / count;
  result.top1_agreement = std::accumulate(same.begin(), same.end(), 0.0) / count;
  const size_t rank = (counted * 99 + 99) / 100 - 1;  // nearest rank: the smallest value that 99 % do not exceed
  std::nth_element(kl.begin(), kl.begin() + static_cast<std::ptrdiff_t>(rank), kl.end());
  result.p99_kl = kl[rank];
  return result;
}

}  // namespace pare
