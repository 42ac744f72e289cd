#pragma once
#include <algorithm>
#include <cstddef>
#include <vector>

namespace pare {

/// The middle of the samples, or the mean of the two in the middle; 0 of none.
inline double median(std::vector<double> samples) {
  if (samples.empty()) return 0;
  const auto middle = samples.begin() + static_cast<std::ptrdiff_t>(samples.size() / 2);
  std::nth_element(samples.begin(), middle, samples.end());
  if (samples.size() % 2) return *middle;
  return (*std::max_element(samples.begin(), middle) + *middle) / 2;
}

/// What the best of several alternatives gives, the more the better: [alternatives][samples], as many of each. For each
/// sample it is chosen by the others' medians: the largest median of many would be luck for the most part, above any of
/// them by as much as they vary. Of a single sample, that of the best.
inline double median_of_best(const std::vector<std::vector<double>>& samples) {
  const size_t count = samples.empty() ? 0 : samples[0].size();
  std::vector<double> found;
  for (size_t s = 0; s < count; ++s) {
    double best = -1;
    size_t chosen = 0;
    for (size_t a = 0; a < samples.size(); ++a) {
      std::vector<double> others = samples[a];
      if (count > 1) others.erase(others.begin() + static_cast<std::ptrdiff_t>(s));
      if (const double middle = median(std::move(others)); middle > best) best = middle, chosen = a;
    }
    found.push_back(samples[chosen][s]);
  }
  return median(std::move(found));
}

}  // namespace pare
