#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace pare::cli {

// Numbers and text as people read them. Sizes are decimal (1 MB = 1,000,000 bytes), as disks and model hubs count.

/// "512 B", "1.23 kB", "724 MB", "13.5 GB": three digits.
std::string human_bytes(int64_t bytes);
/// "512", "27.3 M", "6.74 B" (10^9): parameters, operations.
std::string human_count(double count);
/// "0.42 s", "12.3 s", "3 min 05 s", "2 h 10 min".
std::string human_seconds(double seconds);
/// Three significant digits without an exponent: "0.123", "12.3", "1234".
std::string three_digits(double value);
/// 12345678 -> "12,345,678".
std::string grouped(int64_t value);
/// "1 token", "2 tokens".
std::string plural(int64_t count, std::string_view singular);

/// Ascending numbers as ranges: "0-4, 7".
std::string ranges(std::span<const int> numbers);

/// "200MB", "1.5GB", "800k", "2GiB", "1234": a number and an optional decimal or binary unit, any case.
/// Throws UsageError naming `what` if it is something else.
int64_t parse_bytes(std::string_view text, std::string_view what);

/// Columns that UTF-8 text takes on a terminal; escape sequences take none.
int display_width(std::string_view text);
/// Text from a file made safe to print on one line: control characters and invalid UTF-8 are written as escapes.
std::string printable(std::string_view text);
/// The text with its middle or end cut to at most `width` columns ("a long na…").
std::string shorten(std::string_view text, int width);

/// Holds bytes back until they make whole UTF-8 characters, for text that arrives in pieces.
class Utf8Stream {
 public:
  /// What can be printed after these bytes arrived. Invalid bytes pass through as U+FFFD.
  std::string feed(std::string_view bytes);
  /// What was held back, at the end: U+FFFD for an incomplete character.
  std::string finish();

 private:
  std::string held_;
};

}  // namespace pare::cli
