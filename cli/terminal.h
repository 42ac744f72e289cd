#pragma once
#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/progress.h"

namespace pare::cli {

/// How text may look on one of the standard streams: colours on a terminal only (and never with NO_COLOR or TERM=dumb),
/// line-drawing characters unless the locale names another charset than UTF-8.
struct Style {
  bool colour = false, unicode = true;

  static Style of(int descriptor);
  std::string bold(std::string_view text) const { return paint("1", text); }
  std::string dim(std::string_view text) const { return paint("2", text); }
  std::string red(std::string_view text) const { return paint("31", text); }
  std::string green(std::string_view text) const { return paint("32", text); }
  std::string yellow(std::string_view text) const { return paint("33", text); }
  std::string cyan(std::string_view text) const { return paint("36", text); }
  /// A bar of at most `width` columns, `fraction` of it filled, in eighths of a column; no padding behind it.
  std::string bar(double fraction, int width) const;

 private:
  std::string paint(const char* code, std::string_view text) const;
};

/// Columns of the terminal behind a descriptor; `otherwise` if there is none.
int terminal_width(int descriptor, int otherwise = 100);

/// Columns of text, each as wide as its widest cell.
class Table {
 public:
  enum class Align : uint8_t { kLeft, kRight };
  explicit Table(int indent = 0) : indent_(indent) {}
  Table& column(std::string title, Align align = Align::kRight);
  /// One cell a column; missing ones are empty.
  void row(std::vector<std::string> cells);
  /// A thin line before the next row.
  void rule();
  /// Lines with their ends; the header is left out if no column has a title.
  std::string render(const Style& style) const;

 private:
  struct Column {
    std::string title;
    Align align;
  };
  int indent_;
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
  std::vector<size_t> rules_;  // row indices that a line stands before
};

/// Progress on standard error: a bar with rate and time left on a terminal; plain lines, seconds apart, elsewhere.
class TerminalProgress : public Progress {
 public:
  TerminalProgress();
  ~TerminalProgress() override;
  void start(std::string_view what, std::string_view unit, int64_t total) override;
  void update(int64_t done, std::string_view note = {}) override;
  void finish() override;
  /// Removes the bar from the screen so that something else can be printed; it comes back with the next update.
  void clear();

 private:
  using Clock = std::chrono::steady_clock;
  void draw(Clock::time_point now);
  void print_line(Clock::time_point now, bool last);
  std::string numbers(double seconds) const;

  std::mutex mutex_;
  bool terminal_;
  Style style_;
  bool active_ = false, drawn_ = false;
  std::string what_, unit_, note_;
  int64_t total_ = 0, done_ = 0;
  Clock::time_point begun_, shown_;
};

}  // namespace pare::cli
