#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "evaluate/perplexity.h"
#include "model/config.h"

namespace pare {

/// How finely a search looks, made to fit what time allows.
struct SearchScale {
  int depth_groups = 8;              // ranges of layers that take types together
  int64_t search_tokens = 4096;      // both slices
  int64_t validation_tokens = 8192;  // that the search never sees
  bool operator==(const SearchScale&) const = default;
};
std::string to_string(const SearchScale& scale);
/// Nothing if the text is not one that to_string wrote.
std::optional<SearchScale> parse_scale(const std::string& text);

/// A scale for a search of so many seconds at so many tokens evaluated a second; deterministic when only trials are
/// limited (then seconds is nothing).
SearchScale choose_scale(const ModelConfig& config, std::optional<double> seconds, double tokens_per_second,
                         std::optional<int64_t> trials);

/// Seconds to give a search when nobody says: five minutes for 27 million parameters, in proportion for others, at
/// least one and at most sixty.
double default_seconds(int64_t parameters);

/// Calibration text cut up: the first half of it for the search, in a small slice and the rest, spread over that half
/// alike; the second half for validation. slices[1] may be empty for very short texts.
struct TextSplit {
  TextWindows slices[2];
  TextWindows validation;
};
/// Throws Error if there are fewer than kLeastTextTokens tokens.
TextSplit split_text(const std::vector<std::vector<int32_t>>& windows, const SearchScale& scale);
inline constexpr int64_t kLeastTextTokens = 128;

}  // namespace pare
