#include "kernels/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "attention_testing.h"
#include "base/error.h"
#include "base/half.h"
#include "kernels/kv_pages.h"

namespace pare::kernels {
namespace {

struct Problem {
  int head_dim, value_dim;
  float scale;
  std::vector<int64_t> visible;
  std::vector<float> queries, keys, values;  // [n, head_dim], [tokens, head_dim], [tokens, value_dim]

  int count() const { return static_cast<int>(visible.size()); }
  int64_t tokens() const { return *std::max_element(visible.begin(), visible.end()); }
};

Problem random_problem(Random& random, int head_dim, int value_dim, std::vector<int64_t> visible) {
  Problem p{head_dim, value_dim, static_cast<float>(1 / std::sqrt(double(head_dim))), std::move(visible), {}, {}, {}};
  p.queries = normal_values(random, p.count() * head_dim, 2);
  p.keys = normal_values(random, p.tokens() * head_dim, 2);
  p.values = normal_values(random, p.tokens() * value_dim);
  return p;
}

Cache filled(const Problem& p, const KvFormat& format) {
  Cache cache(format, p.head_dim, p.value_dim, p.tokens());
  for (int64_t t = 0; t < p.tokens(); ++t)
    cache.store(t, p.keys.data() + t * p.head_dim, p.head_dim, p.values.data() + t * p.value_dim, p.value_dim);
  cache.expect_intact();
  return cache;
}

enum class Way { kWhole, kSpans };

/// Queries [begin, end) of the problem: [end - begin, value_dim].
std::vector<float> run(const Problem& p, const Cache& cache, const KvFormat& format, int begin, int end,
                       Way way = Way::kWhole) {
  const int n = end - begin, gap = 17;
  std::vector<float> output(static_cast<size_t>(n * (p.value_dim + gap)), -5.5f);
  std::vector<const float*> queries;
  std::vector<float*> outputs;
  for (int i = 0; i < n; ++i) {
    queries.push_back(p.queries.data() + (begin + i) * p.head_dim);
    outputs.push_back(output.data() + i * (p.value_dim + gap));
  }
  const int64_t spans = kv_spans(*std::max_element(p.visible.begin() + begin, p.visible.begin() + end));
  const auto scratch_floats =
      static_cast<size_t>(way == Way::kWhole ? attend_scratch(n, p.value_dim) : attend_scratch(n, p.value_dim, spans));
  Buffer<float> scratch(scratch_floats + 16);
  std::memset(scratch.data(), 0xff, (scratch_floats + 16) * 4);
  const AttendArgs args{
      cache.keys.data(), cache.values.data(),      p.head_dim,    p.value_dim, p.scale, n, queries.data(),
      outputs.data(),    p.visible.data() + begin, scratch.data()};
  if (way == Way::kWhole) {
    format.attend(args);
  } else {
    for (int64_t span = spans - 1; span >= 0; --span) format.attend_span(args, span);
    format.merge_spans(args);
  }
  for (size_t i = 0; i < 16; ++i) EXPECT_TRUE(std::isnan(scratch[scratch_floats + i])) << "written past the scratch";
  std::vector<float> result;
  for (int i = 0; i < n; ++i) {
    const float* row = outputs[static_cast<size_t>(i)];
    result.insert(result.end(), row, row + p.value_dim);
    EXPECT_EQ(std::count(row + p.value_dim, row + p.value_dim + gap, -5.5f), gap) << "written past an output";
  }
  return result;
}

std::vector<float> run(const Problem& p, const KvFormat& format, int begin, int end) {
  return run(p, filled(p, format), format, begin, end);
}

std::vector<double> reference(const Problem& p, DType type) {
  const auto keys = stored(type, p.keys, p.head_dim), values = stored(type, p.values, p.value_dim);
  std::vector<double> result;
  for (int q = 0; q < p.count(); ++q) {
    std::vector<double> weights;
    double largest = -std::numeric_limits<double>::infinity(), sum = 0;
    for (int64_t t = 0; t < p.visible[static_cast<size_t>(q)]; ++t) {
      double score = 0;
      for (int64_t d = 0; d < p.head_dim; ++d)
        score +=
            double(p.queries[static_cast<size_t>(q * p.head_dim + d)]) * keys[static_cast<size_t>(t * p.head_dim + d)];
      weights.push_back(score * p.scale);
      largest = std::max(largest, weights.back());
    }
    for (double& w : weights) sum += w = std::exp(w - largest);
    for (int64_t d = 0; d < p.value_dim; ++d) {
      double out = 0;
      for (size_t t = 0; t < weights.size(); ++t)
        out += weights[t] / sum * values[t * static_cast<size_t>(p.value_dim) + static_cast<size_t>(d)];
      result.push_back(out);
    }
  }
  return result;
}

/// Error budget of attention against float64 on the stored keys and values: exponentials magnify what rounding did to
/// scores, which are sums of up to 256 products.
constexpr double kBudget = 8e-6;

/// Every path gives generic's bits; those are within budget; queries together give what they give alone.
void check(const Problem& p) {
  SCOPED_TRACE("head_dim " + std::to_string(p.head_dim) + ", value_dim " + std::to_string(p.value_dim) + ", " +
               std::to_string(p.count()) + " queries, visible " + std::to_string(p.visible[0]) + "..");
  for (DType type : kv_types()) {
    const Cache cache = filled(p, kv_format(type, kCpuNone));
    const auto generic = run(p, cache, kv_format(type, kCpuNone), 0, p.count());
    EXPECT_LE(relative_error(generic, reference(p, type)), kBudget);
    for (CpuFeatures path : paths_here()) {
      const KvFormat& format = kv_format(type, path);
      expect_same(run(p, cache, format, 0, p.count()), generic, describe(path) + " " + info(type).name);
      std::vector<float> alone;
      for (int q = 0; q < p.count(); ++q) {
        const auto one = run(p, cache, format, q, q + 1);
        alone.insert(alone.end(), one.begin(), one.end());
      }
      expect_same(alone, generic, describe(path) + ", queries one by one");
      expect_same(run(p, cache, format, 0, p.count(), Way::kSpans), generic, describe(path) + ", spans apart");
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(Attention, VisibleAtPageBorders) {
  Random random(fresh_seed());
  for (int64_t visible : {1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 200, 500})
    check(random_problem(random, 64, 64, {visible}));
}

TEST(Attention, SpanBorders) {
  Random random(fresh_seed());
  for (int64_t visible :
       {kKvSpanTokens - 1, kKvSpanTokens, kKvSpanTokens + 1, 2 * kKvSpanTokens, 3 * kKvSpanTokens + 7})
    check(random_problem(random, 48, 32, {visible, visible, 5, kKvSpanTokens}));
}

TEST(Attention, EveryHeadSize) {
  Random random(fresh_seed());
  for (int dim : {1, 2, 8, 16, 20, 31, 48, 64, 80, 96, 128, 192, 256})
    check(random_problem(random, dim, dim, {1 + static_cast<int64_t>(random.below(200))}));
  check(random_problem(random, 192, 128, {100}));
  check(random_problem(random, 20, 72, {100}));
}

TEST(Attention, GroupsOfHeads) {
  Random random(fresh_seed());
  for (size_t group = 1; group <= 40; ++group)
    check(random_problem(random, 32, 48, std::vector<int64_t>(group, 1 + static_cast<int64_t>(random.below(150)))));
}

TEST(Attention, CausalChunks) {
  Random random(fresh_seed());
  for (int group : {1, 3, 4}) {
    const int64_t before = static_cast<int64_t>(random.below(100));
    std::vector<int64_t> visible;
    for (int64_t t = 0; t < 75; ++t) visible.insert(visible.end(), static_cast<size_t>(group), before + t + 1);
    check(random_problem(random, 24, 40, visible));
  }
}

TEST(Attention, AnyOrderOfQueries) {
  Random random(fresh_seed());
  std::vector<int64_t> visible;
  for (int i = 0; i < 50; ++i) visible.push_back(1 + static_cast<int64_t>(random.below(300)));
  check(random_problem(random, 20, 20, visible));
}

// What a query does not see may be anything: not yet written (NaN), or infinite.
TEST(Attention, UnseenTokensDoNotReachAQuery) {
  Random random(fresh_seed());
  Problem p = random_problem(random, 16, 16, {10, 70, 20, 90, 64, 65});
  const Problem seen = p;
  for (int64_t d = 0; d < 16; ++d) {
    p.keys[static_cast<size_t>(80 * 16 + d)] = std::numeric_limits<float>::quiet_NaN();
    p.values[static_cast<size_t>(80 * 16 + d)] = std::numeric_limits<float>::infinity();
  }
  for (DType type : kv_types())
    for (CpuFeatures path : paths_here()) {
      const auto got = run(p, kv_format(type, path), 0, 6), expected = run(seen, kv_format(type, path), 0, 6);
      for (int q : {0, 1, 2, 4, 5})
        for (int d = 0; d < 16; ++d)
          EXPECT_TRUE(same_bits(got[static_cast<size_t>(q * 16 + d)], expected[static_cast<size_t>(q * 16 + d)]));
      EXPECT_TRUE(std::isnan(got[3 * 16]));
    }
}

// One key far above the rest, first or last: its value comes out, and nothing overflows.
TEST(Attention, PeakedScores) {
  Random random(fresh_seed());
  for (int64_t peak : {0, 63, 64, 149}) {
    Problem p = random_problem(random, 16, 16, {150, 150, 150});
    for (int64_t d = 0; d < 16; ++d)
      p.keys[static_cast<size_t>(peak * 16 + d)] = 500 * p.queries[static_cast<size_t>(d)];
    check(p);
    const auto out = run(p, kv_format(DType::kF32, kCpuNone), 0, 1);
    for (int64_t d = 0; d < 16; ++d)
      EXPECT_NEAR(out[static_cast<size_t>(d)], p.values[static_cast<size_t>(peak * 16 + d)], 1e-5);
  }
}

TEST(Attention, ScoresBeyondFloatAreNanOnEveryPath) {
  Random random(fresh_seed());
  Problem p = random_problem(random, 8, 8, {30, 100});
  for (float& q : p.queries) q *= 1e38f;
  for (DType type : kv_types())
    for (CpuFeatures path : paths_here())
      expect_same(run(p, kv_format(type, path), 0, 2), run(p, kv_format(type, kCpuNone), 0, 2), describe(path));
}

TEST(KvFormat, UnknownTypesAreRefused) {
  for (CpuFeatures path : paths_here()) {
    try {
      kv_format(DType::kQ4_0, path);
      FAIL();
    } catch (const Error& e) {
      EXPECT_STREQ(e.what(), "the KV cache cannot hold q4_0; it can hold f16, f32, q8_0");
    }
  }
}

TEST(Attention, HalvesAreStoredRoundedToEven) {
  Random random(fresh_seed());
  for (const int dim : {1, 20, 128}) {
    std::vector<float> row = normal_values(random, dim);
    // Ties both ways, the ends of what halves hold, and what becomes a subnormal or nothing.
    const float special[] = {1 + 0x1p-11f, 1 + 0x3p-11f, 65519.0f,  65520.0f,    -1e30f,     0x1.8p-15f,
                             0x3p-25f,     0x1p-25f,     -0x5p-25f, 0x1.2p-126f, -HUGE_VALF, -0.0f};
    for (size_t i = 0; i < row.size() && i < std::size(special); ++i) row[row.size() - 1 - i] = special[i];
    const int64_t padded = padded_value_dim(dim);
    for (const CpuFeatures path : paths_here()) {
      const int slot = static_cast<int>(random.below(kKvPageTokens));
      SCOPED_TRACE(describe(path));
      Cache cache(kv_format(DType::kF16, path), dim, dim, kKvPageTokens);
      cache.store(slot, row.data(), dim, row.data(), dim);
      cache.expect_intact();
      const auto half_at = [](const std::byte* page, int64_t at) {
        uint16_t half;
        std::memcpy(&half, page + at * 2, 2);
        return half;
      };
      for (int64_t d = 0; d < padded; ++d) {
        const uint16_t expected = d < dim ? float_to_f16(row[static_cast<size_t>(d)]) : uint16_t{0};
        EXPECT_EQ(half_at(cache.values[0], slot * padded + d), expected) << row[static_cast<size_t>(d)];
        if (d < dim) {
          EXPECT_EQ(half_at(cache.keys[0], d * kKvPageTokens + slot), expected);
        }
      }
      int64_t stored = 0;  // nothing else was touched
      for (int64_t at = 0; at < int64_t{dim} * kKvPageTokens; ++at) stored += half_at(cache.keys[0], at) != 0xffff;
      for (int64_t at = 0; at < padded * kKvPageTokens; ++at) stored += half_at(cache.values[0], at) != 0xffff;
      EXPECT_EQ(stored, dim + padded);
    }
  }
}

}  // namespace
}  // namespace pare::kernels
