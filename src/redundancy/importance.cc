#include "redundancy/importance.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>

#include "base/buffer.h"
#include "base/error.h"
#include "evaluate/run_windows.h"
#include "redundancy/attention_sparsity.h"

namespace pare {
namespace {

constexpr size_t kOutliers = 10;

/// cos(a, b) as PyTorch's cosine_similarity defines it: a . b / max(|a| |b|, 1e-8).
double cosine(const float* a, const float* b, int64_t n) {
  constexpr int kLanes = 4;  // independent sums, so that additions overlap
  double ab[kLanes] = {}, aa[kLanes] = {}, bb[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int k = 0; k < kLanes; ++k) {
      const double x = a[i + k], y = b[i + k];
      ab[k] += x * y, aa[k] += x * x, bb[k] += y * y;
    }
  }
  for (; i < n; ++i) {
    const double x = a[i], y = b[i];
    ab[0] += x * y, aa[0] += x * x, bb[0] += y * y;
  }
  const auto total = [](const double* s) { return (s[0] + s[1]) + (s[2] + s[3]); };
  return total(ab) / std::max(std::sqrt(total(aa)) * std::sqrt(total(bb)), 1e-8);
}

/// Bits of the largest absolute value: ordered as the values are, and above infinity's for NaN.
uint32_t largest_bits(const float* x, int64_t n) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu);
  return largest;
}

/// Looks at the residual stream before and after every part; sums run over rows in order, whatever the threads do.
class ImportanceObserver : public Observer {
 public:
  ImportanceObserver(Model& model, const KvCache& cache)
      : model_(model), cache_(cache), layers_(model.config().layers.size()) {}

  bool wants(ActivationSite site, int /*layer*/) const override {
    switch (site) {
      case ActivationSite::kAttentionStreamIn:
      case ActivationSite::kAttentionStreamOut:
      case ActivationSite::kMlpStreamIn:
      case ActivationSite::kMlpStreamOut:
      case ActivationSite::kBlockIn:
      case ActivationSite::kBlockOut:
      case ActivationSite::kQuery:
      case ActivationSite::kLambda:
        return true;
      default:
        return false;
    }
  }

  void observe(ActivationSite site, int layer, const Batch& batch, std::span<const float> values,
               int64_t width) override {
    Layer& sums = layers_[static_cast<size_t>(layer)];
    switch (site) {
      case ActivationSite::kBlockIn:
        block_in_.assign(values.begin(), values.end());
        break;
      case ActivationSite::kAttentionStreamIn:
        attention_in_.assign(values.begin(), values.end());
        break;
      case ActivationSite::kMlpStreamIn:
        mlp_in_.assign(values.begin(), values.end());
        break;
      case ActivationSite::kQuery:
        sums.sparsity.keep_queries(batch, values, attention(layer));
        break;
      case ActivationSite::kLambda:
        sums.sparsity.keep_lambda(batch, values, attention(layer));
        break;
      case ActivationSite::kAttentionStreamOut:
        sums.attention += similarity(attention_in_, values, width);
        sums.sparsity.score(cache_, layer, attention(layer), model_.pool());
        break;
      case ActivationSite::kMlpStreamOut:
        sums.mlp += similarity(mlp_in_, values, width);
        break;
      case ActivationSite::kBlockOut:
        sums.block += similarity(block_in_, values, width);
        sums.rows += batch.rows();
        note_outliers(sums, layer, values, width);
        break;
      default:
        break;
    }
  }

  Redundancy result() const {
    Redundancy redundancy;
    for (size_t i = 0; i < layers_.size(); ++i) {
      const Layer& sums = layers_[i];
      const LayerConfig& config = model_.config().layers[i];
      const auto rows = static_cast<double>(sums.rows);
      LayerImportance importance;
      importance.block = 1 - sums.block / rows;
      if (config.attention) {
        importance.attention = 1 - sums.attention / rows;
        importance.attention_sparsity = sums.sparsity.mean();
      }
      if (config.mlp) importance.mlp = 1 - sums.mlp / rows;
      if (!sums.outliers.empty()) {
        importance.top1_activation = *std::max_element(sums.outliers.begin(), sums.outliers.end());
        importance.top10_activation = sums.outliers.front();
      }
      redundancy.layers.push_back(importance);
      redundancy.tokens = sums.rows;
    }
    return redundancy;
  }

 private:
  struct Layer {
    double block = 0, attention = 0, mlp = 0;  // sums of cosines
    int64_t rows = 0;
    AttentionSparsity sparsity;
    std::vector<float> outliers;  // a heap whose front is the smallest kept
  };

  const AttentionConfig& attention(int layer) const {
    return *model_.config().layers[static_cast<size_t>(layer)].attention;
  }

  /// Sum over rows of the cosine of what was kept and what is there now.
  double similarity(const std::vector<float>& before, std::span<const float> after, int64_t width) {
    const int64_t rows = static_cast<int64_t>(after.size()) / width;
    rows_.resize(static_cast<size_t>(rows));
    model_.pool().parallel_for(rows, 16, [&](int64_t begin, int64_t end, int /*worker*/) {
      for (int64_t i = begin; i < end; ++i) {
        rows_[static_cast<size_t>(i)] = cosine(before.data() + i * width, after.data() + i * width, width);
      }
    });
    double sum = 0;
    for (const double row : rows_) sum += row;
    return sum;
  }

  static void note_outliers(Layer& sums, int layer, std::span<const float> values, int64_t width) {
    std::vector<float>& heap = sums.outliers;
    for (size_t begin = 0; begin < values.size(); begin += static_cast<size_t>(width)) {
      const float* row = values.data() + begin;
      const auto largest = std::bit_cast<float>(largest_bits(row, width));
      if (!std::isfinite(largest)) fail("layer {}: its output holds values that are not finite numbers", layer);
      if (heap.size() == kOutliers && largest <= heap.front()) continue;
      for (int64_t i = 0; i < width; ++i) {
        const float value = std::fabs(row[i]);
        if (heap.size() == kOutliers) {
          if (value <= heap.front()) continue;
          std::pop_heap(heap.begin(), heap.end(), std::greater<>());
          heap.pop_back();
        }
        heap.push_back(value);
        std::push_heap(heap.begin(), heap.end(), std::greater<>());
      }
    }
  }

  Model& model_;
  const KvCache& cache_;
  std::vector<Layer> layers_;
  std::vector<float> block_in_, attention_in_, mlp_in_;  // [rows, hidden] of the batch in hand
  std::vector<double> rows_;
};

}  // namespace

Redundancy measure_redundancy(Model& model, std::span<const std::vector<int32_t>> windows, Progress& progress,
                              const CancelFlag* cancel) {
  std::vector<WindowRun> runs;
  int64_t tokens = 0;
  for (const std::vector<int32_t>& window : windows) {
    runs.push_back({window});
    tokens += static_cast<int64_t>(window.size());
  }
  if (tokens == 0) fail("there is no calibration text to score layers on");
  KvCache cache = make_window_cache(model, runs, DType::kF32);
  ImportanceObserver observer(model, cache);
  progress.start("scoring layers", "tokens", tokens);
  run_windows(
      model, cache, runs, &observer, [](const WindowLogits&) {}, progress, cancel);
  progress.finish();
  return observer.result();
}

}  // namespace pare
