#include "format.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "common.h"

namespace pare::cli {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

/// Bytes of the valid UTF-8 character at the front; 0 if it is invalid, -1 if more bytes could complete it.
int character_length(std::string_view text, int32_t* code = nullptr) {
  utf8proc_int32_t value = 0;
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  const auto got = utf8proc_iterate(bytes, static_cast<utf8proc_ssize_t>(std::min<size_t>(text.size(), 4)), &value);
  if (got > 0) {
    if (code) *code = value;
    return static_cast<int>(got);
  }
  const auto lead = static_cast<unsigned char>(text[0]);
  const size_t wanted = lead >= 0xF0 && lead <= 0xF4  ? 4
                        : lead >= 0xE0 && lead < 0xF0 ? 3
                        : lead >= 0xC2 && lead < 0xE0 ? 2
                                                      : 0;
  if (text.size() >= wanted) return 0;
  // Only what can still become valid is worth waiting for: the second byte's range excludes overlong forms, surrogates
  // and code points beyond U+10FFFF (Unicode, table 3-7).
  for (size_t i = 1; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    unsigned low = 0x80, high = 0xBF;
    if (i == 1 && lead == 0xE0) low = 0xA0;
    if (i == 1 && lead == 0xED) high = 0x9F;
    if (i == 1 && lead == 0xF0) low = 0x90;
    if (i == 1 && lead == 0xF4) high = 0x8F;
    if (byte < low || byte > high) return 0;
  }
  return -1;
}

/// Bytes of the terminal escape sequence at the front, 0 if there is none.
size_t escape_length(std::string_view text) {
  if (text.size() < 2 || text[0] != '\x1b' || text[1] != '[') return 0;
  const size_t end = text.find_first_not_of("0123456789;", 2);
  return end == std::string_view::npos ? text.size() : end + 1;
}

}  // namespace

std::string three_digits(double value) {
  if (!std::isfinite(value)) return value > 0 ? "inf" : value < 0 ? "-inf" : "nan";
  const double size = std::fabs(value);
  if (size >= 99.95) return fmt::format("{:.0f}", value);
  if (size >= 9.995) return fmt::format("{:.1f}", value);
  if (size >= 0.9995) return fmt::format("{:.2f}", value);
  return fmt::format("{:.3f}", value);
}

std::string human_bytes(int64_t bytes) {
  constexpr std::array units = {"kB", "MB", "GB", "TB", "PB"};
  if (bytes < 1000) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes) / 1000;
  size_t unit = 0;
  while (value >= 999.5 && unit + 1 < units.size()) value /= 1000, ++unit;
  return fmt::format("{} {}", three_digits(value), units[unit]);
}

std::string human_count(double count) {
  constexpr std::array units = {"", " k", " M", " B", " T"};
  size_t unit = 0;
  while (std::fabs(count) >= 999.5 && unit + 1 < units.size()) count /= 1000, ++unit;
  return unit == 0 ? fmt::format("{:.0f}", count) : three_digits(count) + units[unit];
}

std::string human_seconds(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "?";
  if (seconds < 9.995) return fmt::format("{:.2f} s", seconds);
  if (seconds < 99.95) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<int64_t>(std::llround(std::min(seconds, 1e15)));
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  if (whole < 48 * 3600) return fmt::format("{} h {:02} min", whole / 3600, whole % 3600 / 60);
  return fmt::format("{} days", whole / 86400);
}

std::string grouped(int64_t value) {
  std::string text = std::to_string(value);
  for (auto i = static_cast<int>(text.size()) - 3; i > (value < 0 ? 1 : 0); i -= 3)
    text.insert(static_cast<size_t>(i), ",");
  return text;
}

std::string plural(int64_t count, std::string_view singular) {
  return fmt::format("{} {}{}", grouped(count), singular, count == 1 ? "" : "s");
}

std::string ranges(std::span<const int> numbers) {
  std::string out;
  for (size_t i = 0; i < numbers.size();) {
    size_t last = i;
    while (last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1) ++last;
    if (!out.empty()) out += ", ";
    out += last == i ? fmt::format("{}", numbers[i]) : fmt::format("{}-{}", numbers[i], numbers[last]);
    i = last + 1;
  }
  return out;
}

int64_t parse_bytes(std::string_view text, std::string_view what) {
  struct Unit {
    const char* name;
    double bytes;
  };
  constexpr std::array<Unit, 12> units = {{{"", 1},
                                           {"b", 1},
                                           {"k", 1e3},
                                           {"kb", 1e3},
                                           {"m", 1e6},
                                           {"mb", 1e6},
                                           {"g", 1e9},
                                           {"gb", 1e9},
                                           {"tb", 1e12},
                                           {"kib", 0x1p10},
                                           {"mib", 0x1p20},
                                           {"gib", 0x1p30}}};
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
  std::string unit(end, text.data() + text.size());
  std::erase(unit, ' ');
  std::transform(unit.begin(), unit.end(), unit.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? char(c + 32) : c; });
  const auto* known = std::find_if(units.begin(), units.end(), [&](const Unit& u) { return unit == u.name; });
  if (error != std::errc() || known == units.end() || !(value > 0) || value * known->bytes > 9e18) {
    throw UsageError(
        fmt::format("{}: '{}' is not a size; expected something like 200MB or 1.5GB", what, printable(text)));
  }
  return static_cast<int64_t>(std::llround(value * known->bytes));
}

int display_width(std::string_view text) {
  int width = 0;
  while (!text.empty()) {
    if (const size_t escape = escape_length(text)) {
      text.remove_prefix(escape);
      continue;
    }
    int32_t code = 0;
    const int length = character_length(text, &code);
    width += length > 0 ? utf8proc_charwidth(code) : 1;
    text.remove_prefix(static_cast<size_t>(std::max(length, 1)));
  }
  return width;
}

std::string printable(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    int32_t code = 0;
    const int length = character_length(text, &code);
    const auto byte = static_cast<unsigned char>(text[0]);
    if (length <= 0) {
      out += fmt::format("\\x{:02x}", byte);
    } else if (code == '\n') {
      out += "\\n";
    } else if (code == '\t') {
      out += "\\t";
    } else if (code == '\r') {
      out += "\\r";
    } else if (code < 0x20 || (code >= 0x7f && code < 0xa0) || utf8proc_category(code) == UTF8PROC_CATEGORY_CF) {
      out += code < 0x80 ? fmt::format("\\x{:02x}", code) : fmt::format("\\u{:04x}", code);
    } else {
      out += text.substr(0, static_cast<size_t>(length));
    }
    text.remove_prefix(static_cast<size_t>(std::max(length, 1)));
  }
  return out;
}

std::string shorten(std::string_view text, int width) {
  if (display_width(text) <= width) return std::string(text);
  std::string out;
  int used = 0;
  while (!text.empty()) {
    int32_t code = 0;
    const auto length = static_cast<size_t>(std::max(character_length(text, &code), 1));
    const int columns = display_width(text.substr(0, length));
    if (used + columns > width - 1) break;
    out += text.substr(0, length);
    used += columns;
    text.remove_prefix(length);
  }
  return out + "…";
}

std::string Utf8Stream::feed(std::string_view bytes) {
  held_ += bytes;
  std::string out;
  std::string_view rest = held_;
  while (!rest.empty()) {
    const int length = character_length(rest);
    if (length < 0) break;
    out += length == 0 ? kReplacement : rest.substr(0, static_cast<size_t>(length));
    rest.remove_prefix(static_cast<size_t>(std::max(length, 1)));
  }
  held_ = std::string(rest);
  return out;
}

std::string Utf8Stream::finish() {
  const bool incomplete = !held_.empty();
  held_.clear();
  return incomplete ? std::string(kReplacement) : std::string();
}

}  // namespace pare::cli
