#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "model/batch.h"
#include "model/config.h"
#include "model/kv_cache.h"

namespace pare {

/// Query rows of a window that sparsity looks at: `count` of them, evenly spread, or all of a shorter window.
bool is_sampled_row(int64_t position, int64_t window, int64_t count = 64);

/// How much of the attention of one layer is next to nothing. Probabilities are never stored by the engine, so sampled
/// queries are kept when they pass and multiplied with the keys of the cache once those are stored.
class AttentionSparsity {
 public:
  static constexpr double kNegligible = 1e-3;  // of the row's largest weight

  /// queries: [rows, heads * head_dim] after rope. What was kept before is forgotten.
  void keep_queries(const Batch& batch, std::span<const float> queries, const AttentionConfig& config);
  /// lambda: [rows, outputs] of the same rows, for differential attention.
  void keep_lambda(const Batch& batch, std::span<const float> lambda, const AttentionConfig& config);
  /// Scores the kept queries against the layer's keys; they are forgotten.
  void score(const KvCache& cache, int layer, const AttentionConfig& config, ThreadPool& pool);
  /// Mean over heads and rows of the share of visible weights that are negligible (of
  /// differential attention: of the difference of its two maps); 0 if nothing was scored.
  double mean() const { return rows_ > 0 ? shares_ / static_cast<double>(rows_) : 0; }
  void clear_kept() { kept_.clear(), queries_.clear(), lambda_.clear(); }

 private:
  struct Row {
    int32_t sequence, position;
  };
  std::vector<Row> kept_;
  std::vector<float> queries_;  // [kept, heads * head_dim]
  std::vector<float> lambda_;   // [kept, outputs] or empty
  double shares_ = 0;
  int64_t rows_ = 0;  // (row, head) pairs scored
};

}  // namespace pare
