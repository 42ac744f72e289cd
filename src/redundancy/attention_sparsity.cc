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

/// Scores to weights that sum to 1.
void softmax(float* scores, int64_t count) {
  const float largest = *std::max_element(scores, scores + count);
  double sum = 0;
  for (int64_t t = 0; t < count; ++t) sum += scores[t] = std::exp(scores[t] - largest);
  for (int64_t t = 0; t < count; ++t) scores[t] = static_cast<float>(scores[t] / sum);
}

/// The same of softmax(first) - lambda softmax(second); both are overwritten.
double negligible_share(float* first, float* second, float lambda, int64_t count) {
  softmax(first, count);
  softmax(second, count);
  float largest = 0;
  for (int64_t t = 0; t < count; ++t) largest = std::max(largest, std::fabs(first[t] -= lambda * second[t]));
  const double limit = AttentionSparsity::kNegligible * double{largest};
  const auto negligible = std::count_if(first, first + count, [&](float w) { return std::fabs(w) < limit; });
  return static_cast<double>(negligible) / static_cast<double>(count);
}

/// Appends the sampled rows of a batch to `kept`.
void keep_rows(const Batch& batch, std::span<const float> rows, size_t width, std::vector<float>& kept) {
  for (size_t i = 0; i < batch.tokens.size(); ++i) {
    if (!is_sampled_row(batch.position[i], batch.sequence_length[i])) continue;
    kept.insert(kept.end(), rows.begin() + static_cast<std::ptrdiff_t>(i * width),
                rows.begin() + static_cast<std::ptrdiff_t>((i + 1) * width));
  }
}

}  // namespace

bool is_sampled_row(int64_t position, int64_t window, int64_t count) {
  count = std::min(count, window);
  return (position + 1) * count / window != position * count / window;
}

void AttentionSparsity::keep_queries(const Batch& batch, std::span<const float> queries,
                                     const AttentionConfig& config) {
  clear_kept();
  for (size_t i = 0; i < batch.tokens.size(); ++i) {
    if (is_sampled_row(batch.position[i], batch.sequence_length[i]))
      kept_.push_back({batch.sequence[i], batch.position[i]});
  }
  keep_rows(batch, queries, static_cast<size_t>(config.heads * config.head_dim), queries_);
}

void AttentionSparsity::keep_lambda(const Batch& batch, std::span<const float> lambda, const AttentionConfig& config) {
  keep_rows(batch, lambda, static_cast<size_t>(config.outputs()), lambda_);
}

void AttentionSparsity::score(const KvCache& cache, int layer, const AttentionConfig& config, ThreadPool& pool) {
  if (kept_.empty()) return;
  int64_t longest = 0;
  for (const Row& row : kept_) longest = std::max<int64_t>(longest, row.position + 1);
  const DTypeInfo& type = info(cache.format().type);
  const int64_t page_floats = int64_t{config.head_dim} * kKvPageTokens, worker_floats = 2 * longest + page_floats;
  Buffer<float> scratch(static_cast<size_t>(worker_floats * pool.size()));
  const int outputs = config.outputs();
  const auto pairs = static_cast<int64_t>(kept_.size()) * outputs;
  std::vector<double> shares(static_cast<size_t>(pairs));
  pool.parallel_for(pairs, 4, [&](int64_t begin, int64_t end, int worker) {
    float* scores[] = {scratch.data() + worker * worker_floats, scratch.data() + worker * worker_floats + longest};
    float* page = scores[1] + longest;
    for (int64_t i = begin; i < end; ++i) {
      const Row& row = kept_[static_cast<size_t>(i / outputs)];
      const int output = static_cast<int>(i % outputs);
      const int64_t visible = row.position + 1;
      const HeadGroup group = config.group(output / config.group(0).count);
      for (int map = 0; map < group.maps; ++map) {
        const int64_t head = int64_t{output} * group.output_stride + map * group.map_stride;
        score_row(queries_.data() + (i / outputs * config.heads + head) * config.head_dim,
                  cache.key_pages(row.sequence, layer, group.key_heads[map]), type, config.head_dim, config.scale,
                  visible, page, scores[map]);
      }
      shares[static_cast<size_t>(i)] =
          group.maps == 1 ? negligible_share(scores[0], visible)
                          : negligible_share(scores[0], scores[1], lambda_[static_cast<size_t>(i)], visible);
    }
  });
  for (const double share : shares) shares_ += share;
  rows_ += pairs;
  clear_kept();
}

}  // namespace pare
