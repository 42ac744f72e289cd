#include "shrink/pareto.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace pare {
namespace {

bool beats(const ParetoPoint& a, const ParetoPoint& b) {
  const bool as_good = a.bytes <= b.bytes && a.kl <= b.kl && a.seconds <= b.seconds;
  return as_good && (a.bytes < b.bytes || a.kl < b.kl || a.seconds < b.seconds);
}

TEST(Pareto, IsWhatTheDefinitionSays) {
  Random random(3);
  std::vector<ParetoPoint> points;
  for (int i = 0; i < 400; ++i) {
    // Few values, so that ties come up in every measure.
    points.push_back({static_cast<double>(random.below(12)), static_cast<double>(random.below(12)),
                      static_cast<double>(random.below(4))});
  }
  const std::vector<size_t> front = pareto_front(points);
  std::vector<uint8_t> on_front(points.size(), 0);
  for (const size_t i : front) on_front[i] = 1;
  for (size_t i = 0; i < points.size(); ++i) {
    bool beaten = false, repeated = false;
    for (size_t k = 0; k < points.size(); ++k) {
      beaten = beaten || beats(points[k], points[i]);
      const bool equal =
          points[k].bytes == points[i].bytes && points[k].kl == points[i].kl && points[k].seconds == points[i].seconds;
      repeated = repeated || (equal && k < i);
    }
    EXPECT_EQ(on_front[i], !beaten && !repeated) << i;
  }
  for (size_t i = 1; i < front.size(); ++i) EXPECT_LE(points[front[i - 1]].bytes, points[front[i]].bytes);
}

TEST(Pareto, OfNothingIsNothing) { EXPECT_TRUE(pareto_front({}).empty()); }

}  // namespace
}  // namespace pare
