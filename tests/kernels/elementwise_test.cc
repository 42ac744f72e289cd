#include "kernels/elementwise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/error.h"
#include "kernels/packing.h"
#include "kernels_testing.h"

namespace pare::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

/// Distance in units of the last place of the float nearest `expected`.
double ulps(float got, double expected) {
  if (std::isnan(expected)) return std::isnan(got) ? 0 : 1e9;
  const auto nearest = static_cast<float>(expected);
  if (got == nearest) return 0;
  if (!std::isfinite(got) || !std::isfinite(nearest)) return 1e9;
  const double ulp = std::abs(static_cast<double>(std::nextafter(nearest, kInf)) - nearest);
  return std::abs(got - expected) / ulp;
}

/// Lengths with every remainder of a vector, and long ones.
std::vector<int64_t> lengths() {
  std::vector<int64_t> all;
  for (int64_t n = 1; n <= 50; ++n) all.push_back(n);
  all.insert(all.end(), {64, 172, 288, 2048, 8191});
  return all;
}

/// Runs op on a copy that ends in canaries, so that writing past n shows.
template <class Op>
std::vector<float> guarded(const std::vector<float>& x, Op op) {
  std::vector<float> padded = x;
  padded.resize(x.size() + 20, -7.25f);
  op(padded.data());
  for (size_t i = x.size(); i < padded.size(); ++i) EXPECT_EQ(padded[i], -7.25f) << "written past the end";
  padded.resize(x.size());
  return padded;
}

TEST(Elementwise, RmsNorm) {
  Random random(fresh_seed());
  for (int64_t n : lengths()) {
    const auto x = normal_values(random, n, 3), gain = normal_values(random, n);
    const float eps = 1e-5f;
    double squares = 0;
    for (float v : x) squares += static_cast<double>(v) * v;
    std::vector<double> expected;
    for (size_t i = 0; i < x.size(); ++i) expected.push_back(x[i] / std::sqrt(squares / double(n) + eps) * gain[i]);
    std::vector<float> generic;
    for (CpuFeatures path : paths_here()) {
      const auto in_place = guarded(x, [&](float* p) { elementwise(path).rms_norm(p, gain.data(), eps, p, n); });
      const auto apart = guarded(x, [&](float* p) { elementwise(path).rms_norm(x.data(), gain.data(), eps, p, n); });
      if (path == kCpuNone) generic = in_place;
      expect_same(in_place, generic, describe(path));
      expect_same(apart, generic, describe(path));
      EXPECT_LE(relative_error(in_place, expected), 1e-6) << n;
    }
  }
}

TEST(Elementwise, Add) {
  Random random(fresh_seed());
  for (int64_t n : lengths()) {
    const auto x = normal_values(random, n), y = normal_values(random, n);
    std::vector<float> expected = x;
    for (size_t i = 0; i < x.size(); ++i) expected[i] += y[i];
    for (CpuFeatures path : paths_here())
      expect_same(guarded(x, [&](float* p) { elementwise(path).add(p, y.data(), n); }), expected, describe(path));
  }
}

TEST(Elementwise, SiluMultiply) {
  Random random(fresh_seed());
  for (int64_t n : lengths()) {
    const auto gate = normal_values(random, n, 8), up = normal_values(random, n);
    std::vector<float> generic;
    for (CpuFeatures path : paths_here()) {
      const auto in_place = guarded(gate, [&](float* p) { elementwise(path).silu_multiply(p, up.data(), p, n); });
      const auto apart =
          guarded(gate, [&](float* p) { elementwise(path).silu_multiply(gate.data(), up.data(), p, n); });
      if (path == kCpuNone) generic = in_place;
      expect_same(in_place, generic, describe(path));
      expect_same(apart, generic, describe(path));
    }
    for (size_t i = 0; i < gate.size(); ++i)
      EXPECT_LE(ulps(generic[i], gate[i] / (1 + std::exp(-double(gate[i]))) * up[i]), 6) << gate[i];
  }
}

TEST(Elementwise, SiluOfExtremes) {
  const std::vector<float> gate = {0, -0.0f, 200, -200, 3e38f, -3e38f, kInf, 1e-45f, kNan, -87.5f, -88.5f};
  const std::vector<float> up(gate.size(), 1.0f);
  std::vector<float> generic;
  for (CpuFeatures path : paths_here()) {
    std::vector<float> out(gate.size());
    elementwise(path).silu_multiply(gate.data(), up.data(), out.data(), static_cast<int64_t>(gate.size()));
    if (path == kCpuNone) generic = out;
    expect_same(out, generic, describe(path));
    EXPECT_EQ(out[0], 0);
    EXPECT_EQ(out[2], 200);
    EXPECT_EQ(out[3], 0);
    EXPECT_EQ(out[4], 3e38f);
    EXPECT_EQ(out[6], kInf);
    EXPECT_TRUE(std::isnan(out[8]));
  }
}

TEST(Elementwise, ReluSquaredMultiply) {
  Random random(fresh_seed());
  for (int64_t n : lengths()) {
    auto gate = normal_values(random, n, 8);
    const auto up = normal_values(random, n);
    const float special[] = {0, -0.0f, kInf, -kInf, kNan, 1e-30f, 3e38f};
    for (size_t i = 0; i < std::size(special) && i + 20 < gate.size(); ++i) gate[i + 20] = special[i];
    std::vector<float> expected(gate.size());
    for (size_t i = 0; i < gate.size(); ++i) {
      const float positive = gate[i] < 0 ? 0 : gate[i];
      expected[i] = positive * positive * up[i];
    }
    for (CpuFeatures path : paths_here()) {
      const auto in_place =
          guarded(gate, [&](float* p) { elementwise(path).relu_squared_multiply(p, up.data(), p, n); });
      const auto apart =
          guarded(gate, [&](float* p) { elementwise(path).relu_squared_multiply(gate.data(), up.data(), p, n); });
      expect_same(in_place, expected, describe(path));
      expect_same(apart, expected, describe(path));
    }
    for (size_t i = 0; i < gate.size(); ++i) {
      if (gate[i] < 0) {
        EXPECT_EQ(expected[i], 0);
      }
      if (std::isnan(gate[i])) {
        EXPECT_TRUE(std::isnan(expected[i]));
      }
    }
  }
}

TEST(Elementwise, Rope) {
  Random random(fresh_seed());
  for (int head_dim : {2, 4, 20, 64, 80, 96, 128, 130})
    for (RopeLayout layout : {RopeLayout::kHalves, RopeLayout::kInterleaved})
      for (int dims : {head_dim, head_dim / 2 / 2 * 2}) {
        const int heads = 3, pairs = dims / 2;
        const auto x = normal_values(random, heads * head_dim);
        std::vector<float> cos, sin;
        for (int i = 0; i < pairs; ++i) {
          const double angle = random.uniform() * 6;
          cos.push_back(static_cast<float>(std::cos(angle)));
          sin.push_back(static_cast<float>(std::sin(angle)));
        }
        std::vector<double> expected(x.begin(), x.end());
        for (int h = 0; h < heads; ++h)
          for (int i = 0; i < pairs; ++i) {
            const auto a = static_cast<size_t>(h * head_dim + (layout == RopeLayout::kHalves ? i : 2 * i));
            const size_t b = a + static_cast<size_t>(layout == RopeLayout::kHalves ? pairs : 1),
                         p = static_cast<size_t>(i);
            expected[a] = double(x[a]) * cos[p] - double(x[b]) * sin[p];
            expected[b] = double(x[b]) * cos[p] + double(x[a]) * sin[p];
          }
        std::vector<float> generic;
        for (CpuFeatures path : paths_here()) {
          const auto out = guarded(
              x, [&](float* p) { elementwise(path).rope(p, heads, head_dim, dims, cos.data(), sin.data(), layout); });
          if (path == kCpuNone) generic = out;
          expect_same(out, generic, describe(path));
          EXPECT_LE(relative_error(out, expected), 2e-7);
        }
      }
}

// The exponential, over every exponent and at its ends.
TEST(Elementwise, ExpIsWithinTwoUlps) {
  Random random(fresh_seed());
  std::vector<float> x = {0,      -0.0f, 1,       -1,       88.72f, 88.73f, 89,     1000,  3e38f, kInf,   -87.3f,
                          -87.4f, -100,  -103.9f, -103.98f, -104,   -105,   -3e38f, -kInf, kNan,  1e-45f, -1e-10f};
  for (int i = 0; i < 200000; ++i) x.push_back(static_cast<float>(random.uniform() * 195 - 105));
  for (int i = 0; i < 50000; ++i) x.push_back(static_cast<float>(random.normal()));
  std::vector<float> generic;
  for (CpuFeatures path : paths_here()) {
    std::vector<float> out(x.size());
    elementwise(path).exp_shifted(x.data(), 0, out.data(), static_cast<int64_t>(x.size()));
    if (path == kCpuNone) generic = out;
    expect_same(out, generic, describe(path));
  }
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double error = ulps(generic[i], std::exp(static_cast<double>(x[i])));
    EXPECT_LE(error, 2) << "exp(" << x[i] << ") = " << generic[i];
    worst = std::max(worst, error);
  }
  std::cout << "worst error of exp: " << worst << " ulp" << std::endl;
}

TEST(Elementwise, ExpShiftedSums) {
  Random random(fresh_seed());
  for (int64_t n : lengths()) {
    const auto x = normal_values(random, n, 4);
    double sum = 0;
    for (float v : x) sum += std::exp(double(v) - 2.5);
    std::vector<float> generic;
    for (CpuFeatures path : paths_here()) {
      float total = 0;
      auto out = guarded(x, [&](float* p) { total = elementwise(path).exp_shifted(x.data(), 2.5f, p, n); });
      for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(out[i], std::exp(double(x[i]) - 2.5), 1e-6 * (1 + out[i]));
      out.push_back(total);
      if (path == kCpuNone) generic = out;
      expect_same(out, generic, describe(path));
      EXPECT_NEAR(total, sum, 3e-6 * sum);  // thousands of additions
    }
  }
}

TEST(Elementwise, LogSumExp) {
  Random random(fresh_seed());
  for (int64_t n : lengths()) {
    const double shift = random.normal() * 300;
    auto x = normal_values(random, n, 5);
    for (float& v : x) v = static_cast<float>(v + shift);
    double sum = 0, largest = *std::max_element(x.begin(), x.end());
    for (float v : x) sum += std::exp(v - largest);
    const double expected = largest + std::log(sum);
    const float generic = elementwise(kCpuNone).log_sum_exp(x.data(), n);
    EXPECT_NEAR(generic, expected, 3e-7 * (std::abs(expected) + 1));
    for (CpuFeatures path : paths_here())
      EXPECT_TRUE(same_bits(elementwise(path).log_sum_exp(x.data(), n), generic)) << describe(path);
  }
}

TEST(Elementwise, LogSumExpOfExtremes) {
  const auto of = [](CpuFeatures path, const std::vector<float>& x) {
    return elementwise(path).log_sum_exp(x.data(), static_cast<int64_t>(x.size()));
  };
  for (CpuFeatures path : paths_here()) {
    EXPECT_EQ(of(path, std::vector<float>(20, -kInf)), -kInf);
    EXPECT_EQ(of(path, {1, kInf, 3}), kInf);
    EXPECT_EQ(of(path, {1, -kInf}), 1);
    EXPECT_TRUE(std::isnan(of(path, {1, kNan, 2})));
    EXPECT_TRUE(std::isnan(of(path, {-kInf, kNan})));
    EXPECT_EQ(of(path, {3e38f, 3e38f}), 3e38f);
  }
}

TEST(Elementwise, Argmax) {
  Random random(fresh_seed());
  for (int64_t n : lengths()) {
    auto x = normal_values(random, n);
    const size_t first = random.below(static_cast<uint64_t>(n)), second = random.below(static_cast<uint64_t>(n));
    x[first] = x[second] = 9;
    for (CpuFeatures path : paths_here())
      EXPECT_EQ(elementwise(path).argmax(x.data(), n), static_cast<int64_t>(std::min(first, second))) << describe(path);
  }
  for (CpuFeatures path : paths_here()) {
    const float nans[] = {kNan, 1, kNan, 2, kNan}, only_nan[] = {kNan, kNan}, low[] = {kNan, -kInf},
                zeros[] = {-0.0f, 0.0f};
    EXPECT_EQ(elementwise(path).argmax(nans, 5), 3);
    EXPECT_EQ(elementwise(path).argmax(only_nan, 2), 0);
    EXPECT_EQ(elementwise(path).argmax(low, 2), 1);
    EXPECT_EQ(elementwise(path).argmax(zeros, 2), 0);
  }
}

TEST(PortableLog, IsWithinTwoUlps) {
  Random random(fresh_seed());
  const auto ulp_error = [](double x) {
    const double expected = std::log(x);
    return std::abs(portable_log(x) - expected) / std::abs(std::nextafter(expected, 1e9) - expected);
  };
  for (int i = 0; i < 100000; ++i) {
    EXPECT_LE(ulp_error(std::exp(random.normal() * 100)), 2);
    EXPECT_LE(ulp_error(1 + random.uniform() * 100), 2);
    EXPECT_LE(ulp_error(1 + random.normal() * 0.01), 2);
  }
  EXPECT_LE(ulp_error(5e-324), 2);
  EXPECT_LE(ulp_error(1e308), 2);
  EXPECT_EQ(portable_log(1), 0);
  EXPECT_EQ(portable_log(0), -std::numeric_limits<double>::infinity());
  EXPECT_EQ(portable_log(kInf), kInf);
  EXPECT_TRUE(std::isnan(portable_log(-1)));
  EXPECT_TRUE(std::isnan(portable_log(kNan)));
}

}  // namespace
}  // namespace pare::kernels
