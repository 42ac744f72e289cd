#include "terminal.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "format.h"

namespace pare::cli {
namespace {

using namespace std::chrono_literals;

// A bar that appears for a blink is noise: work shorter than this shows nothing.
constexpr auto kQuiet = 300ms;
constexpr auto kRedraw = 100ms;
constexpr auto kPlainLines = 5s;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

bool unicode_locale() {
  if (environment("TERM") == "dumb") return false;
  std::string locale;
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    if (locale.empty()) locale = environment(name);
  }
  std::transform(locale.begin(), locale.end(), locale.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? char(c + 32) : c; });
  // "C" and an unset locale say nothing about the terminal, and terminals have been UTF-8 for long.
  return locale.find('.') == std::string::npos || locale.find("utf") != std::string::npos;
}

/// Time left is a guess: whole seconds.
std::string time_left(double seconds) {
  return seconds < 99.5 ? fmt::format("{:.0f} s left", seconds) : human_seconds(seconds) + " left";
}

std::string per_second(double rate) { return (rate < 99.5 ? three_digits(rate) : human_count(rate)) + "/s"; }

double seconds_between(std::chrono::steady_clock::time_point a, std::chrono::steady_clock::time_point b) {
  return std::chrono::duration<double>(b - a).count();
}

}  // namespace

Style Style::of(int descriptor) {
  Style style;
  style.unicode = unicode_locale();
  style.colour = isatty(descriptor) && environment("NO_COLOR").empty() && environment("TERM") != "dumb";
  return style;
}

std::string Style::paint(const char* code, std::string_view text) const {
  return colour && !text.empty() ? fmt::format("\x1b[{}m{}\x1b[0m", code, text) : std::string(text);
}

std::string Style::bar(double fraction, int width) const {
  static constexpr const char* kEighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  fraction = std::isfinite(fraction) ? std::clamp(fraction, 0.0, 1.0) : 0.0;
  const auto eighths = static_cast<int>(std::lround(fraction * width * 8));
  std::string out;
  for (int i = 0; i < eighths / 8; ++i) out += unicode ? "█" : "#";
  if (unicode) out += kEighths[eighths % 8];
  return out;
}

int terminal_width(int descriptor, int otherwise) {
  winsize size{};
  if (ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return otherwise;
}

Table& Table::column(std::string title, Align align) {
  columns_.push_back({std::move(title), align});
  return *this;
}

void Table::row(std::vector<std::string> cells) {
  cells.resize(columns_.size());
  rows_.push_back(std::move(cells));
}

void Table::rule() { rules_.push_back(rows_.size()); }

std::string Table::render(const Style& style) const {
  std::vector<int> widths;
  bool titled = false;
  for (size_t c = 0; c < columns_.size(); ++c) {
    int width = display_width(columns_[c].title);
    titled |= width > 0;
    for (const auto& cells : rows_) width = std::max(width, display_width(cells[c]));
    widths.push_back(width);
  }
  int total = 2 * (static_cast<int>(columns_.size()) - 1);
  for (const int width : widths) total += width;

  const std::string margin(static_cast<size_t>(indent_), ' ');
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string out = margin;
    for (size_t c = 0; c < cells.size(); ++c) {
      const std::string pad(static_cast<size_t>(widths[c] - display_width(cells[c])), ' ');
      if (c > 0) out += "  ";
      out += columns_[c].align == Align::kRight ? pad + cells[c] : cells[c] + pad;
    }
    out.erase(out.find_last_not_of(' ') + 1);
    return out + "\n";
  };
  std::string thin;
  for (int i = 0; i < total; ++i) thin += style.unicode ? "─" : "-";
  thin = margin + style.dim(thin) + "\n";

  std::string out;
  if (titled) {
    std::vector<std::string> titles;
    for (const auto& column : columns_) titles.push_back(style.bold(column.title));
    out += line(titles) + thin;
  }
  for (size_t r = 0; r < rows_.size(); ++r) {
    if (std::find(rules_.begin(), rules_.end(), r) != rules_.end()) out += thin;
    out += line(rows_[r]);
  }
  return out;
}

TerminalProgress::TerminalProgress() : terminal_(isatty(STDERR_FILENO)), style_(Style::of(STDERR_FILENO)) {}

TerminalProgress::~TerminalProgress() { clear(); }

void TerminalProgress::start(std::string_view what, std::string_view unit, int64_t total) {
  const std::scoped_lock lock(mutex_);
  what_ = printable(what);
  unit_ = unit;
  note_.clear();
  total_ = total;
  done_ = 0;
  active_ = true;
  begun_ = Clock::now();
  shown_ = begun_;
}

void TerminalProgress::update(int64_t done, std::string_view note) {
  const std::scoped_lock lock(mutex_);
  if (!active_) return;
  done_ = done;
  if (!note.empty()) note_ = printable(note);
  const auto now = Clock::now();
  if (terminal_) {
    if (now - begun_ >= kQuiet && (!drawn_ || now - shown_ >= kRedraw)) draw(now);
  } else if (now - shown_ >= kPlainLines) {
    print_line(now, false);
  }
}

void TerminalProgress::finish() {
  {
    const std::scoped_lock lock(mutex_);
    if (!active_) return;
    active_ = false;
    const auto now = Clock::now();
    if (!terminal_ && now - begun_ >= 1s) print_line(now, true);
  }
  clear();
}

void TerminalProgress::clear() {
  const std::scoped_lock lock(mutex_);
  if (!drawn_) return;
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
  drawn_ = false;
}

std::string TerminalProgress::numbers(double seconds) const {
  std::string out = total_ > 0 ? fmt::format("{}/{} {}", grouped(done_), grouped(total_), unit_)
                               : fmt::format("{} {}", grouped(done_), unit_);
  if (done_ > 0 && seconds > 0) out += "  " + per_second(static_cast<double>(done_) / seconds);
  return out;
}

void TerminalProgress::draw(Clock::time_point now) {
  shown_ = now;
  drawn_ = true;
  const int columns = terminal_width(STDERR_FILENO, 80);
  const double seconds = seconds_between(begun_, now);
  std::string tail = numbers(seconds);
  if (total_ > 0 && done_ > 0 && done_ <= total_) {
    tail += "  " + time_left(seconds * static_cast<double>(total_ - done_) / static_cast<double>(done_));
  }
  if (!note_.empty()) tail += "  " + note_;
  std::string line = style_.bold(what_) + "  ";
  if (total_ > 0) {
    constexpr int kWidth = 24;
    const double fraction = std::clamp(static_cast<double>(done_) / static_cast<double>(total_), 0.0, 1.0);
    const std::string filled = style_.bar(fraction, kWidth);
    std::string rest;
    for (int i = display_width(filled); i < kWidth; ++i) rest += style_.unicode ? "░" : ".";
    // What is left to do goes first when the line is too narrow for all.
    if (display_width(line) + kWidth + 7 + display_width(tail) < columns)
      line += style_.cyan(filled) + style_.dim(rest) + " ";
    line += fmt::format("{:3.0f}%  ", std::floor(100 * fraction));
  }
  const int room = columns - 1 - display_width(line);
  if (room > 1) line += shorten(tail, room);
  fmt::print(stderr, "\r{}\x1b[K", line);
  std::fflush(stderr);
}

void TerminalProgress::print_line(Clock::time_point now, bool last) {
  shown_ = now;
  const double seconds = seconds_between(begun_, now);
  std::string line = what_ + ": " + numbers(seconds);
  if (last) {
    line += fmt::format("  in {}", human_seconds(seconds));
  } else if (total_ > 0 && done_ > 0 && done_ <= total_) {
    line += "  " + time_left(seconds * static_cast<double>(total_ - done_) / static_cast<double>(done_));
  }
  if (!note_.empty()) line += "  " + note_;
  fmt::print(stderr, "{}\n", line);
}

}  // namespace pare::cli
