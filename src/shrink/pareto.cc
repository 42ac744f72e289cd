#include "shrink/pareto.h"

#include <algorithm>
#include <numeric>
#include <tuple>

namespace pare {
namespace {

bool at_least_as_good(const ParetoPoint& a, const ParetoPoint& b) {
  return a.bytes <= b.bytes && a.kl <= b.kl && a.seconds <= b.seconds;
}

}  // namespace

std::vector<size_t> pareto_front(std::span<const ParetoPoint> points) {
  std::vector<size_t> order(points.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto key = [&](size_t i) { return std::tuple(points[i].bytes, points[i].kl, points[i].seconds, i); };
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return key(a) < key(b); });
  // In this order a point can only be beaten by one before it.
  std::vector<size_t> front;
  for (const size_t i : order) {
    const bool beaten =
        std::any_of(front.begin(), front.end(), [&](size_t kept) { return at_least_as_good(points[kept], points[i]); });
    if (!beaten) front.push_back(i);
  }
  return front;
}

}  // namespace pare
