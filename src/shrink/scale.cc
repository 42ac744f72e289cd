#include "shrink/scale.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <span>

#include "base/error.h"
#include "redundancy/calibration.h"

namespace pare {
namespace {

constexpr int64_t kLongestWindow = 512, kShortestWindow = 64;
// Shares of all tokens that time allows for: one complete trial, and one plan on the validation text.
constexpr double kTrialShare = 1.0 / 130, kValidationShare = 1.0 / 45;
constexpr double kProbeShare =
    0.3;  // of tokens, for measuring single changes on the small slice (a quarter of a trial)
constexpr double kProbeTrials = 0.4;  // of trials, the same
constexpr int kKinds = 7;             // matrices of a layer: q, k, v, output, gate, up, down

int64_t power_of_two(double value, int64_t least, int64_t most) {
  const auto whole = static_cast<uint64_t>(std::clamp(value, static_cast<double>(least), static_cast<double>(most)));
  return static_cast<int64_t>(std::bit_floor(whole));
}

}  // namespace

std::string to_string(const SearchScale& scale) {
  return fmt::format("{} {} {}", scale.depth_groups, scale.search_tokens, scale.validation_tokens);
}

std::optional<SearchScale> parse_scale(const std::string& text) {
  long long search = 0, validation = 0;
  int groups = 0;
  if (std::sscanf(text.c_str(), "%d %lld %lld", &groups, &search, &validation) != 3) return {};
  const SearchScale scale{groups, search, validation};
  const bool sane = groups >= 1 && groups <= 1024 && search >= 1 && search <= (1 << 24) && validation >= 1 &&
                    validation <= (1 << 24) && to_string(scale) == text;
  return sane ? std::optional(scale) : std::nullopt;
}

SearchScale choose_scale(const ModelConfig& config, std::optional<double> seconds, double tokens_per_second,
                         std::optional<int64_t> trials) {
  SearchScale scale;
  const auto layers = static_cast<int>(std::max<size_t>(1, config.layers.size()));
  const int parts = config.attention_count() + config.mlp_count();
  const double tokens = seconds ? *seconds * tokens_per_second : 0;
  if (seconds) {
    scale.search_tokens = power_of_two(tokens * kTrialShare, 256, 8192);
    scale.validation_tokens = power_of_two(tokens * kValidationShare, 512, 16384);
  }
  scale.depth_groups = std::min(layers, 8);
  const auto too_many = [&](int groups) {
    const double probes = groups * kKinds + 1 + parts / 2.0;
    const bool of_tokens = seconds && probes * static_cast<double>(scale.search_tokens) / 4 > kProbeShare * tokens;
    return of_tokens || (trials && probes > kProbeTrials * static_cast<double>(*trials));
  };
  while (scale.depth_groups > 1 && too_many(scale.depth_groups)) scale.depth_groups /= 2;
  return scale;
}

double default_seconds(int64_t parameters) {
  return std::clamp(300 * static_cast<double>(parameters) / 27.3e6, 60.0, 3600.0);
}

TextSplit split_text(const std::vector<std::vector<int32_t>>& windows, const SearchScale& scale) {
  int64_t total = 0;
  for (const auto& window : windows) total += static_cast<int64_t>(window.size());
  if (total < kLeastTextTokens) {
    fail("the calibration text is too short to search on: it has {} tokens, expected at least {}", total,
         kLeastTextTokens);
  }
  std::vector<std::vector<int32_t>> halves[2];
  if (windows.size() == 1) {
    const auto middle = windows[0].begin() + static_cast<std::ptrdiff_t>(windows[0].size() / 2);
    halves[0].emplace_back(windows[0].begin(), middle);
    halves[1].emplace_back(middle, windows[0].end());
  } else {
    const size_t middle = windows.size() / 2;
    halves[0].assign(windows.begin(), windows.begin() + static_cast<std::ptrdiff_t>(middle));
    halves[1].assign(windows.begin() + static_cast<std::ptrdiff_t>(middle), windows.end());
  }
  const int64_t longest = std::clamp(scale.search_tokens / 8, kShortestWindow, kLongestWindow);
  TextSplit split;
  TextWindows all = scoring_windows(halves[0], scale.search_tokens, longest);
  for (size_t i = 0; i < all.windows.size(); ++i) {
    split.slices[i % 4 == 0 ? 0 : 1].windows.push_back(std::move(all.windows[i]));
  }
  split.validation = scoring_windows(halves[1], scale.validation_tokens, kLongestWindow);
  return split;
}

}  // namespace pare
