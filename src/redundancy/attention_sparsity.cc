#include "redundancy/attention_sparsity.h"

#include <algorithm>
#include <cmath>

#include "base/buffer.h"

namespace pare {
namespace {

using kernels::kKvPageTokens;

/// Scores of one query against tokens [0, visible): q . k * scale. Keys lie [head_dim, kKvPageTokens] in each page.
void score_row(const float* query, std::span<const std::byte* const> pages, const DTypeInfo& type, int head_dim,
               float scale, int64_t visible, float* page, float* scores) {
  for (int64_t begin = 0; begin < visible; begin += kKvPageTokens) {
    const std::byte* stored = pages[static_cast<size_t>(begin / kKvPageTokens)];
    const float* keys = page;
    if (type.type == DType::kF32) {
      keys = reinterpret_cast<const float*>(stored);
    } else {
      type.decode(stored, page, int64_t{head_dim} * kKvPageTokens);
    }
    float sums[kKvPageTokens] = {};
    for (int d = 0; d < head_dim; ++d) {
      for (int t = 0; t < kKvPageTokens; ++t) sums[t] += query[d] * keys[d * kKvPageTokens + t];
    }
    const int64_t count = std::min<int64_t>(kKvPageTokens, visible - begin);
    for (int64_t t = 0; t < count; ++t) scores[begin + t] = sums[t] * scale;
  }
}

/// exp(s) < limit * exp(largest) exactly where s < largest + log(limit).
double negligible_share(const float* scores, int64_t count) {
  const double limit = double{*std::max_element(scores, scores + count)} + std::log(AttentionSparsity::kNegligible);
  const auto negligible = std::count_if(scores, scores + count, [&](float s) { return double{s} < limit; });
  return static_cast<double>(negligible) / static_cast<double>(count);
}

}  // namespace

bool is_sampled_row(int64_t position, int64_t window, int64_t count) {
  count = std::min(count, window);
  return (position + 1) * count / window != position * count / window;
}

void AttentionSparsity::keep_queries(const Batch& batch, std::span<const float> queries,
                                     const AttentionConfig& config) {
  clear_kept();
  const auto width = static_cast<size_t>(config.heads * config.head_dim);
  for (size_t i = 0; i < batch.tokens.size(); ++i) {
    if (!is_sampled_row(batch.position[i], batch.sequence_length[i])) continue;
    kept_.push_back({batch.sequence[i], batch.position[i]});
    queries_.insert(queries_.end(), queries.begin() + static_cast<std::ptrdiff_t>(i * width),
                    queries.begin() + static_cast<std::ptrdiff_t>((i + 1) * width));
  }
}

void AttentionSparsity::score(const KvCache& cache, int layer, const AttentionConfig& config, ThreadPool& pool) {
  if (kept_.empty()) return;
  int64_t longest = 0;
  for (const Row& row : kept_) longest = std::max<int64_t>(longest, row.position + 1);
  const DTypeInfo& type = info(cache.format().type);
  const int group = config.heads / config.kv_heads;
  const int64_t page_floats = int64_t{config.head_dim} * kKvPageTokens;
  Buffer<float> scratch(static_cast<size_t>((longest + page_floats) * pool.size()));
  const auto pairs = static_cast<int64_t>(kept_.size()) * config.heads;
  std::vector<double> shares(static_cast<size_t>(pairs));
  pool.parallel_for(pairs, 4, [&](int64_t begin, int64_t end, int worker) {
    float* scores = scratch.data() + worker * (longest + page_floats);
    for (int64_t i = begin; i < end; ++i) {
      const Row& row = kept_[static_cast<size_t>(i / config.heads)];
      const int head = static_cast<int>(i % config.heads);
      score_row(queries_.data() + i * config.head_dim, cache.key_pages(row.sequence, layer, head / group), type,
                config.head_dim, config.scale, row.position + 1, scores + longest, scores);
      shares[static_cast<size_t>(i)] = negligible_share(scores, row.position + 1);
    }
  });
  for (const double share : shares) shares_ += share;
  rows_ += pairs;
  clear_kept();
}

}  // namespace pare
