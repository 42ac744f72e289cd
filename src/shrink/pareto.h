#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace pare {

/// What a plan is judged by: less is better in each.
struct ParetoPoint {
  double bytes = 0, kl = 0, seconds = 0;
};

/// Indices of the points that no other point is at least as good as in everything and better in something, by ascending
/// bytes. Of equal points the first stays.
std::vector<size_t> pareto_front(std::span<const ParetoPoint> points);

}  // namespace pare
