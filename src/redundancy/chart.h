#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pare {

// Pictures for reports: an SVG that stands in a page of its own, takes its colours from the page's style sheet (light
// or dark), and shows numbers when the mouse rests on them. No script, nothing from the network.

struct ChartPoint {
  double x = 0, y = 0;
  std::string title;  // shown on hover; "" = none
};

enum class ChartMark : uint8_t { kBars, kLine, kDots };

struct ChartSeries {
  std::string name;  // in the legend; "" = not listed
  ChartMark mark = ChartMark::kDots;
  int colour = 0;  // 0..5, the page's palette
  std::vector<ChartPoint> points;
};

struct ChartAxis {
  std::string label;
  bool log = false;      // values must be positive; others are left out
  bool whole = false;    // ticks at whole numbers only
  bool percent = false;  // 0.25 is written 25 %
  /// Extends the range to include zero (ignored if log).
  bool from_zero = false;
};

struct Chart {
  std::string title;  // for screen readers
  ChartAxis x, y;
  std::vector<ChartSeries> series;
  int width = 900, height = 320;  // of the view box; the page scales it
};

/// The chart as an <svg> element. Bars of several series stand side by side at whole x.
std::string render_svg(const Chart& chart);

/// Rows of coloured cells: one column a layer, say. Values in [0, 1] from pale to strong; NaN is an empty cell.
struct HeatRow {
  std::string name;
  std::vector<double> values;
  std::vector<std::string> titles;  // on hover, one a cell
  std::vector<std::string> texts;   // in the cells; may be empty
};
struct HeatStrip {
  std::string title, x_label;
  int colour = 0;
  std::vector<HeatRow> rows;
  int width = 900;
};
std::string render_svg(const HeatStrip& strip);

/// &, <, > and quotes made safe for HTML and SVG; control characters become spaces.
std::string html_escape(std::string_view text);

/// A whole page: style sheet, heading, and a body of HTML. Self-contained.
std::string html_page(std::string_view title, std::string_view body);

}  // namespace pare
