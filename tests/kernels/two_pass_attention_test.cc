// Attention in two passes: one softmax or the difference of two, with and without leaving values out.
#include <algorithm>
#include <cmath>
#include <limits>

#include "attention_testing.h"
#include "kernels/kv_pages.h"

namespace pare::kernels {
namespace {

struct Shape {
  int maps, parts, head_dim, value_dim;
};

struct Problem {
  Shape shape;
  float scale, threshold;
  std::vector<int64_t> visible;
  std::vector<float> queries[2], keys[2], values[2];  // [n, head_dim], [tokens, head_dim], [tokens, value_dim]
  std::vector<float> lambda;                          // [n]

  int count() const { return static_cast<int>(visible.size()); }
  int64_t tokens() const { return *std::max_element(visible.begin(), visible.end()); }
  int width() const { return shape.parts * shape.value_dim; }
};

Problem random_problem(Random& random, Shape shape, std::vector<int64_t> visible, float threshold = 0) {
  Problem p{shape, static_cast<float>(1 / std::sqrt(double(shape.head_dim))), threshold, std::move(visible), {}, {}, {},
            {}};
  for (int m = 0; m < shape.maps; ++m) {
    p.queries[m] = normal_values(random, p.count() * shape.head_dim, 2);
    p.keys[m] = normal_values(random, p.tokens() * shape.head_dim, 2);
  }
  for (int part = 0; part < shape.parts; ++part) p.values[part] = normal_values(random, p.tokens() * shape.value_dim);
  p.lambda = normal_values(random, p.count());
  return p;
}

/// A cache for each KV head: the first map's keys with the first part of values, and so on; what one lacks is zero.
std::vector<Cache> filled(const Problem& p, const KvFormat& format) {
  std::vector<Cache> caches;
  const std::vector<float> zeros(static_cast<size_t>(std::max(p.shape.head_dim, p.shape.value_dim)));
  for (int i = 0; i < 2; ++i) {
    Cache& cache = caches.emplace_back(format, p.shape.head_dim, p.shape.value_dim, p.tokens());
    for (int64_t t = 0; t < p.tokens(); ++t) {
      const float* key = i < p.shape.maps ? p.keys[i].data() + t * p.shape.head_dim : zeros.data();
      const float* value = i < p.shape.parts ? p.values[i].data() + t * p.shape.value_dim : zeros.data();
      cache.store(t, key, p.shape.head_dim, value, p.shape.value_dim);
    }
    cache.expect_intact();
  }
  return caches;
}

enum class Order { kAscending, kDescending };

struct Result {
  std::vector<float> outputs;  // [n, width]
  int64_t read = 0;
};

/// [whole pages, padded value_dim]
std::vector<float> page_means(const Problem& p, const Cache& cache, const KvFormat& format) {
  const int64_t width = padded_value_dim(p.shape.value_dim), pages = p.tokens() / kKvPageTokens;
  std::vector<float> means(static_cast<size_t>(pages * width));
  for (int64_t page = 0; page < pages; ++page)
    format.value_mean(cache.values[static_cast<size_t>(page)], p.shape.value_dim, means.data() + page * width);
  return means;
}

/// Queries [begin, end) of the problem.
Result run(const Problem& p, const std::vector<Cache>& caches, const KvFormat& format, int begin, int end,
           Order order = Order::kAscending) {
  const int n = end - begin, gap = 17;
  std::vector<float> output(static_cast<size_t>(n * (p.width() + gap)), -5.5f);
  std::vector<const float*> queries[2];
  std::vector<float*> outputs;
  for (int i = 0; i < n; ++i) {
    for (int m = 0; m < p.shape.maps; ++m) queries[m].push_back(p.queries[m].data() + (begin + i) * p.shape.head_dim);
    outputs.push_back(output.data() + i * (p.width() + gap));
  }
  const int64_t spans = kv_spans(*std::max_element(p.visible.begin() + begin, p.visible.begin() + end));
  const auto floats =
      static_cast<size_t>(spans * two_pass_span_floats(p.shape.maps, p.shape.parts, p.shape.value_dim, n));
  Buffer<float> scratch(floats + 16);
  std::memset(scratch.data(), 0xff, (floats + 16) * 4);
  Result result;
  std::vector<float> means[2];
  for (int i = 0; i < 2; ++i) means[i] = page_means(p, caches[i], format);
  const TwoPassArgs args{p.shape.maps,
                         p.shape.parts,
                         {caches[0].keys.data(), caches[1].keys.data()},
                         {caches[0].values.data(), caches[1].values.data()},
                         p.shape.head_dim,
                         p.shape.value_dim,
                         p.scale,
                         n,
                         {queries[0].data(), queries[1].data()},
                         p.lambda.data() + begin,
                         outputs.data(),
                         p.visible.data() + begin,
                         p.threshold,
                         {means[0].data(), means[1].data()},
                         scratch.data(),
                         &result.read};
  const auto each_span = [&](void (*step)(const TwoPassArgs&, int64_t)) {
    for (int64_t i = 0; i < spans; ++i) step(args, order == Order::kAscending ? i : spans - 1 - i);
  };
  each_span(format.two_pass.scores);
  format.two_pass.normalise(args);
  each_span(format.two_pass.weights);
  each_span(format.two_pass.values);
  format.two_pass.outputs(args);
  for (size_t i = 0; i < 16; ++i) EXPECT_TRUE(std::isnan(scratch[floats + i])) << "written past the scratch";
  for (const float* row : outputs) {
    result.outputs.insert(result.outputs.end(), row, row + p.width());
    EXPECT_EQ(std::count(row + p.width(), row + p.width() + gap, -5.5f), gap) << "written past an output";
  }
  return result;
}

/// softmax(q k) over the tokens that a query sees.
std::vector<double> softmax(const Problem& p, const std::vector<float>& keys, int map, int query) {
  const int dim = p.shape.head_dim;
  std::vector<double> weights;
  for (int64_t t = 0; t < p.visible[static_cast<size_t>(query)]; ++t) {
    double score = 0;
    for (int d = 0; d < dim; ++d)
      score += double(p.queries[map][static_cast<size_t>(query * dim + d)]) * keys[static_cast<size_t>(t * dim + d)];
    weights.push_back(score * p.scale);
  }
  const double largest = *std::max_element(weights.begin(), weights.end());
  double sum = 0;
  for (double& w : weights) sum += w = std::exp(w - largest);
  for (double& w : weights) w /= sum;
  return weights;
}

/// The formula in float64 on what the cache holds, means in place of what is left out. Weights within a millionth of
/// the threshold may fall either way: `doubtful` receives how many there are.
std::vector<double> reference(const Problem& p, DType type, int64_t& read, int64_t& doubtful) {
  std::vector<float> keys[2], values[2];
  for (int m = 0; m < p.shape.maps; ++m) keys[m] = stored(type, p.keys[m], p.shape.head_dim);
  for (int part = 0; part < p.shape.parts; ++part) values[part] = stored(type, p.values[part], p.shape.value_dim);
  std::vector<double> result;
  read = doubtful = 0;
  for (int q = 0; q < p.count(); ++q) {
    std::vector<double> weights = softmax(p, keys[0], 0, q);
    if (p.shape.maps == 2) {
      const std::vector<double> other = softmax(p, keys[1], 1, q);
      for (size_t t = 0; t < weights.size(); ++t) weights[t] -= p.lambda[static_cast<size_t>(q)] * other[t];
    }
    double limit = 0;
    for (const double w : weights) limit = std::max(limit, std::fabs(w));
    limit *= double{p.threshold};
    // Of each page that is seen whole: what is left out, and shared among its tokens.
    const auto whole = static_cast<size_t>(p.visible[static_cast<size_t>(q)] / kKvPageTokens * kKvPageTokens);
    std::vector<double> left_out(whole / kKvPageTokens);
    for (size_t t = 0; t < weights.size(); ++t) {
      double& w = weights[t];
      if (t < whole && p.threshold > 0 && std::fabs(std::fabs(w) - limit) < 1e-5 * limit + 1e-9) ++doubtful;
      if (t < whole && std::fabs(w) < limit) {
        left_out[t / kKvPageTokens] += w;
        w = 0;
      } else {
        ++read;
      }
    }
    for (size_t t = 0; t < whole; ++t) weights[t] += left_out[t / kKvPageTokens] / kKvPageTokens;
    for (int part = 0; part < p.shape.parts; ++part)
      for (int d = 0; d < p.shape.value_dim; ++d) {
        double out = 0;
        for (size_t t = 0; t < weights.size(); ++t)
          out += weights[t] * values[part][t * static_cast<size_t>(p.shape.value_dim) + static_cast<size_t>(d)];
        result.push_back(out);
      }
  }
  return result;
}

constexpr double kBudget = 6e-6;

/// Every path gives generic's bits; those are within budget of float64; queries give alone what they give together, and
/// spans in any order.
void check(const Problem& p) {
  SCOPED_TRACE("maps " + std::to_string(p.shape.maps) + ", parts " + std::to_string(p.shape.parts) + ", head_dim " +
               std::to_string(p.shape.head_dim) + ", value_dim " + std::to_string(p.shape.value_dim) + ", " +
               std::to_string(p.count()) + " queries, visible " + std::to_string(p.visible[0]) + "..");
  for (DType type : kv_types()) {
    const std::vector<Cache> caches = filled(p, kv_format(type, kCpuNone));
    const Result generic = run(p, caches, kv_format(type, kCpuNone), 0, p.count());
    int64_t read = 0, doubtful = 0;
    const std::vector<double> expected = reference(p, type, read, doubtful);
    if (doubtful == 0) {
      EXPECT_LE(relative_error(generic.outputs, expected), kBudget) << info(type).name;
      EXPECT_EQ(generic.read, p.threshold > 0 ? read : 0);
    }
    for (CpuFeatures path : paths_here()) {
      const KvFormat& format = kv_format(type, path);
      const std::string name = describe(path) + " " + info(type).name;
      const Result whole = run(p, caches, format, 0, p.count());
      expect_same(whole.outputs, generic.outputs, name);
      EXPECT_EQ(whole.read, generic.read) << name;
      expect_same(run(p, caches, format, 0, p.count(), Order::kDescending).outputs, generic.outputs,
                  name + ", spans backwards");
      std::vector<float> alone;
      for (int q = 0; q < p.count(); ++q) {
        const auto one = run(p, caches, format, q, q + 1).outputs;
        alone.insert(alone.end(), one.begin(), one.end());
      }
      expect_same(alone, generic.outputs, name + ", queries one by one");
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
}

constexpr Shape kSoftmax{1, 1, 32, 32}, kPaired{2, 2, 32, 32}, kShared{2, 1, 32, 48};
constexpr float kThresholds[] = {0, 1e-3f, 0.1f};

TEST(TwoPassAttention, VisibleAtPageAndSpanBorders) {
  Random random(fresh_seed());
  for (const Shape& shape : {kSoftmax, kPaired, kShared})
    for (int64_t visible :
         {1, 15, 16, 63, 64, 65, 129, kKvSpanTokens - 1, kKvSpanTokens + 0, kKvSpanTokens + 1, 2 * kKvSpanTokens + 7})
      check(random_problem(random, shape, {visible, 5, visible}, kThresholds[random.below(3)]));
}

TEST(TwoPassAttention, EveryHeadSize) {
  Random random(fresh_seed());
  for (int dim : {1, 2, 8, 16, 20, 31, 48, 64, 80, 128, 256})
    for (const float threshold : kThresholds)
      check(random_problem(random, {2, 2, dim, dim}, {1 + static_cast<int64_t>(random.below(200)), 70}, threshold));
  check(random_problem(random, {2, 2, 20, 72}, {100}));
}

TEST(TwoPassAttention, GroupsOfHeads) {
  Random random(fresh_seed());
  for (size_t group = 1; group <= 27; ++group)
    check(random_problem(random, kPaired, std::vector<int64_t>(group, 1 + static_cast<int64_t>(random.below(150)))));
}

TEST(TwoPassAttention, CausalChunks) {
  Random random(fresh_seed());
  for (const float threshold : kThresholds) {
    const int64_t before = static_cast<int64_t>(random.below(100));
    std::vector<int64_t> visible;
    for (int64_t t = 0; t < 75; ++t) visible.insert(visible.end(), 2, before + t + 1);
    check(random_problem(random, kPaired, visible, threshold));
  }
}

TEST(TwoPassAttention, UnseenTokensDoNotReachAQuery) {
  Random random(fresh_seed());
  for (const float threshold : kThresholds) {
    Problem p = random_problem(random, {2, 2, 16, 16}, {10, 70, 20, 90, 64, 65}, threshold);
    const Problem seen = p;
    for (int i = 0; i < 2; ++i)
      for (size_t d = 0; d < 16; ++d) {
        p.keys[i][80 * 16 + d] = std::numeric_limits<float>::quiet_NaN();
        p.values[i][80 * 16 + d] = std::numeric_limits<float>::infinity();
      }
    for (DType type : kv_types())
      for (CpuFeatures path : paths_here()) {
        const KvFormat& format = kv_format(type, path);
        const auto got = run(p, filled(p, format), format, 0, 6).outputs;
        const auto expected = run(seen, filled(seen, format), format, 0, 6).outputs;
        for (int q : {0, 1, 2, 4, 5})
          for (int d = 0; d < 32; ++d)
            EXPECT_TRUE(same_bits(got[static_cast<size_t>(q * 32 + d)], expected[static_cast<size_t>(q * 32 + d)]));
        EXPECT_TRUE(std::isnan(got[3 * 32]));
      }
  }
}

// One map far above the rest at one token: what is left out is everything else.
TEST(TwoPassAttention, PeakedScoresReadOneValue) {
  Random random(fresh_seed());
  for (size_t peak : {size_t{0}, size_t{64}, size_t{599}}) {
    Problem p = random_problem(random, kSoftmax, {600}, 1e-3f);
    for (size_t d = 0; d < 32; ++d) p.keys[0][peak * 32 + d] = 50 * p.queries[0][d];
    check(p);
    const KvFormat& format = kv_format(DType::kF32, kCpuNone);
    const Result result = run(p, filled(p, format), format, 0, 1);
    // The last page is not whole.
    EXPECT_EQ(result.read, peak < 576 ? 25 : 24);
    for (size_t d = 0; d < 32; ++d) EXPECT_NEAR(result.outputs[d], p.values[0][peak * 32 + d], 1e-5);
  }
}

TEST(TwoPassAttention, ScoresBeyondFloatAreTheSameOnEveryPath) {
  Random random(fresh_seed());
  for (const float threshold : kThresholds) {
    Problem p = random_problem(random, {2, 2, 8, 8}, {30, 100}, threshold);
    for (auto& queries : p.queries)
      for (float& q : queries) q *= 1e38f;
    for (DType type : kv_types()) {
      const std::vector<Cache> caches = filled(p, kv_format(type, kCpuNone));
      const auto generic = run(p, caches, kv_format(type, kCpuNone), 0, 2).outputs;
      for (CpuFeatures path : paths_here())
        expect_same(run(p, caches, kv_format(type, path), 0, 2).outputs, generic, describe(path));
    }
  }
}

}  // namespace
}  // namespace pare::kernels
