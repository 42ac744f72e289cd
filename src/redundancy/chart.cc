#include "redundancy/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <optional>

namespace pare {
namespace {

constexpr double kLeft = 64, kRight = 12, kTop = 30, kBottom = 44;

/// Maps values to pixels along one axis, and knows where ticks belong.
class Scale {
 public:
  Scale(const ChartAxis& axis, double low, double high, double from, double to)
      : axis_(axis), low_(low), high_(high), from_(from), to_(to) {
    if (axis_.log) {
      low_ = std::log10(low_), high_ = std::log10(high_);
    } else if (axis_.from_zero) {
      low_ = std::min(0.0, low_), high_ = std::max(0.0, high_);
    }
    if (!(high_ > low_)) {
      const double pad = axis_.log ? 0.5 : std::max(0.5, std::fabs(low_) * 0.1);
      low_ -= pad, high_ += pad;
    }
  }
  /// Opens the range by a share of itself on both sides; what starts at zero keeps its zero.
  void pad(double share) {
    const double by = (high_ - low_) * share;
    if (axis_.log || !axis_.from_zero || low_ < 0) low_ -= by;
    high_ += by;
  }
  bool takes(double value) const { return std::isfinite(value) && (!axis_.log || value > 0); }
  double at(double value) const {
    const double v = axis_.log ? std::log10(value) : value;
    return from_ + (v - low_) / (high_ - low_) * (to_ - from_);
  }
  double start() const { return from_; }
  std::vector<double> ticks() const { return axis_.log ? log_ticks() : linear_ticks(); }
  std::string text(double value) const {
    return axis_.percent ? fmt::format("{:.6g}%", 100 * value) : fmt::format("{:.6g}", value);
  }

 private:
  std::vector<double> linear_ticks() const {
    const double raw = (high_ - low_) / (axis_.whole ? 12 : 6);
    const double power = std::pow(10, std::floor(std::log10(raw)));
    double step = 10 * power;
    for (const double nice : {1.0, 2.0, 5.0}) {
      if (nice * power >= raw) {
        step = nice * power;
        break;
      }
    }
    if (axis_.whole) step = std::max(1.0, std::round(step));
    std::vector<double> ticks;
    for (double i = std::ceil(low_ / step - 1e-9); i * step <= high_ + step * 1e-9; ++i)
      ticks.push_back(i * step + 0.0);  // never -0
    return ticks;
  }
  /// Powers of ten, with 2 and 5 between them if there are few.
  std::vector<double> log_ticks() const {
    std::vector<double> ticks;
    const bool few = high_ - low_ < 3;
    for (double exponent = std::floor(low_); exponent <= high_; ++exponent) {
      for (const double factor : {1.0, 2.0, 5.0}) {
        const double place = exponent + std::log10(factor);
        if ((few || factor == 1.0) && place >= low_ - 1e-9 && place <= high_ + 1e-9) {
          ticks.push_back(factor * std::pow(10, exponent));
        }
      }
    }
    return ticks;
  }
  ChartAxis axis_;
  double low_, high_, from_, to_;
};

std::string title_element(const std::string& title) {
  return title.empty() ? "" : fmt::format("<title>{}</title>", html_escape(title));
}

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -std::numeric_limits<double>::infinity();
  void see(double value, bool log) {
    if (!std::isfinite(value) || (log && value <= 0)) return;
    low = std::min(low, value), high = std::max(high, value);
  }
  bool empty() const { return low > high; }
};

std::string open_svg(const std::string& title, int width, double height) {
  return fmt::format("<svg viewBox=\"0 0 {} {:.0f}\" role=\"img\" aria-label=\"{}\">\n", width, height,
                     html_escape(title));
}

void draw_axes(std::string& out, const Chart& chart, const Scale& x, const Scale& y) {
  const double bottom = chart.height - kBottom, right = chart.width - kRight;
  const auto add = std::back_inserter(out);
  for (const double tick : y.ticks()) {
    const double at = y.at(tick);
    fmt::format_to(add, "<line class=\"grid\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"/>\n", kLeft, at,
                   right, at);
    fmt::format_to(add, "<text class=\"tick\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>\n", kLeft - 7,
                   at + 4, y.text(tick));
  }
  for (const double tick : x.ticks()) {
    const double at = x.at(tick);
    fmt::format_to(add, "<line class=\"axis\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"/>\n", at, bottom,
                   at, bottom + 4);
    fmt::format_to(add, "<text class=\"tick\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>\n", at,
                   bottom + 18, x.text(tick));
  }
  fmt::format_to(add, "<line class=\"axis\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"/>\n", kLeft, bottom,
                 right, bottom);
  fmt::format_to(add, "<text class=\"label\" x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
                 (kLeft + right) / 2, chart.height - 8, html_escape(chart.x.label));
  const double middle = (kTop + bottom) / 2;
  fmt::format_to(add,
                 "<text class=\"label\" x=\"14\" y=\"{:.1f}\" text-anchor=\"middle\" transform=\"rotate(-90 14 "
                 "{:.1f})\">{}</text>\n",
                 middle, middle, html_escape(chart.y.label));
}

void draw_legend(std::string& out, const Chart& chart) {
  double x = kLeft;
  const auto add = std::back_inserter(out);
  for (const ChartSeries& series : chart.series) {
    if (series.name.empty()) continue;
    if (series.mark == ChartMark::kLine) {
      fmt::format_to(add, "<line class=\"line c{}\" x1=\"{:.1f}\" y1=\"13\" x2=\"{:.1f}\" y2=\"13\"/>\n", series.colour,
                     x, x + 14);
    } else if (series.mark == ChartMark::kDots) {
      fmt::format_to(add, "<circle class=\"dot c{}\" cx=\"{:.1f}\" cy=\"13\" r=\"4.5\"/>\n", series.colour, x + 7);
    } else {
      fmt::format_to(add, "<rect class=\"bar c{}\" x=\"{:.1f}\" y=\"7\" width=\"12\" height=\"12\" rx=\"2\"/>\n",
                     series.colour, x);
    }
    fmt::format_to(add, "<text class=\"legend\" x=\"{:.1f}\" y=\"17\">{}</text>\n", x + 19, html_escape(series.name));
    x += 40 + 7.2 * static_cast<double>(series.name.size());
  }
}

void draw_bars(std::string& out, const Chart& chart, const ChartSeries& series, int index, int count, const Scale& x,
               const Scale& y) {
  const double slot = std::fabs(x.at(1) - x.at(0)) * 0.8;
  const double each = slot / count, bar = std::max(0.8, std::min(each * 0.9, 40.0));
  const double bottom = chart.height - kBottom;
  const double base = chart.y.log ? bottom : std::clamp(y.at(0), kTop, bottom);
  for (const ChartPoint& point : series.points) {
    if (!x.takes(point.x) || !y.takes(point.y)) continue;
    const double left = x.at(point.x) - slot / 2 + each * index + (each - bar) / 2;
    const double top = std::min(y.at(point.y), base), height = std::fabs(base - y.at(point.y));
    fmt::format_to(std::back_inserter(out),
                   "<rect class=\"bar c{}\" x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" height=\"{:.2f}\">{}</rect>\n",
                   series.colour, left, top, bar, std::max(height, 0.5), title_element(point.title));
  }
}

void draw_points(std::string& out, const ChartSeries& series, const Scale& x, const Scale& y) {
  const auto add = std::back_inserter(out);
  std::string path;
  for (const ChartPoint& point : series.points) {
    if (!x.takes(point.x) || !y.takes(point.y)) continue;
    fmt::format_to(std::back_inserter(path), "{}{:.2f} {:.2f}", path.empty() ? "M" : "L", x.at(point.x), y.at(point.y));
  }
  const bool line = series.mark == ChartMark::kLine;
  if (line && !path.empty()) fmt::format_to(add, "<path class=\"line c{}\" d=\"{}\"/>\n", series.colour, path);
  for (const ChartPoint& point : series.points) {
    if (!x.takes(point.x) || !y.takes(point.y)) continue;
    fmt::format_to(add, "<circle class=\"dot c{}\" cx=\"{:.2f}\" cy=\"{:.2f}\" r=\"{}\">{}</circle>\n", series.colour,
                   x.at(point.x), y.at(point.y), line ? 2.6 : 4.5, title_element(point.title));
  }
}

constexpr std::string_view kStyle = R"css(
:root { color-scheme: light dark; --back: #fcfcfb; --ink: #1f2328; --faint: #66707b; --grid: #e4e7ea;
  --c0: #2f6fb0; --c1: #d9822b; --c2: #3f8f6b; --c3: #b04a6f; --c4: #7a5ea8; --c5: #7d8590; }
@media (prefers-color-scheme: dark) { :root { --back: #15181c; --ink: #e4e7ea; --faint: #949da7; --grid: #2b3036;
  --c0: #6aa9e6; --c1: #f0a55a; --c2: #6fc29b; --c3: #e285a6; --c4: #b79ae0; --c5: #8b949e; } }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1.2rem 3rem; background: var(--back); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .3rem; }
p { margin: .3rem 0 .8rem; max-width: 46rem; }
.faint { color: var(--faint); }
svg { display: block; width: 100%; height: auto; margin: .4rem 0; }
svg text { font: 12px system-ui, sans-serif; fill: var(--faint); }
svg .legend, svg .name { font-size: 13px; fill: var(--ink); }
svg .cell { font-size: 10px; fill: var(--ink); }
.grid { stroke: var(--grid); } .axis { stroke: var(--faint); } .line { fill: none; stroke-width: 2; }
.bar.c0, .dot.c0 { fill: var(--c0); } .line.c0 { stroke: var(--c0); }
.bar.c1, .dot.c1 { fill: var(--c1); } .line.c1 { stroke: var(--c1); }
.bar.c2, .dot.c2 { fill: var(--c2); } .line.c2 { stroke: var(--c2); }
.bar.c3, .dot.c3 { fill: var(--c3); } .line.c3 { stroke: var(--c3); }
.bar.c4, .dot.c4 { fill: var(--c4); } .line.c4 { stroke: var(--c4); }
.bar.c5, .dot.c5 { fill: var(--c5); } .line.c5 { stroke: var(--c5); }
.bar:hover, .dot:hover { filter: brightness(1.25); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: .22rem .8rem .22rem 0; text-align: right; border-bottom: 1px solid var(--grid); white-space: nowrap; }
th { font-weight: 600; color: var(--faint); }
th:first-child, td:first-child { text-align: left; }
)css";

}  // namespace

std::string render_svg(const Chart& chart) {
  Range x_range, y_range;
  int bar_series = 0;
  for (const ChartSeries& series : chart.series) {
    bar_series += series.mark == ChartMark::kBars;
    for (const ChartPoint& point : series.points) {
      x_range.see(point.x, chart.x.log);
      y_range.see(point.y, chart.y.log);
    }
  }
  std::string out = open_svg(chart.title, chart.width, chart.height);
  if (x_range.empty() || y_range.empty()) return out + "</svg>\n";
  // Bars need half a slot beside the first and the last.
  if (bar_series > 0) x_range.low -= 0.5, x_range.high += 0.5;
  Scale x(chart.x, x_range.low, x_range.high, kLeft, chart.width - kRight);
  Scale y(chart.y, y_range.low, y_range.high, chart.height - kBottom, kTop);
  if (bar_series == 0) x.pad(0.03);
  y.pad(0.06);
  draw_axes(out, chart, x, y);
  int bar_index = 0;
  for (const ChartSeries& series : chart.series) {
    if (series.mark == ChartMark::kBars) {
      draw_bars(out, chart, series, bar_index++, bar_series, x, y);
    } else {
      draw_points(out, series, x, y);
    }
  }
  draw_legend(out, chart);
  return out + "</svg>\n";
}

std::string render_svg(const HeatStrip& strip) {
  constexpr double kCell = 26;
  size_t columns = 1;
  for (const HeatRow& row : strip.rows) columns = std::max(columns, row.values.size());
  const double left = 84, width = (strip.width - left - kRight) / static_cast<double>(columns);
  const double height = kCell * static_cast<double>(strip.rows.size()) + 42;
  std::string out = open_svg(strip.title, strip.width, height);
  const auto add = std::back_inserter(out);
  double y = 2;
  for (const HeatRow& row : strip.rows) {
    fmt::format_to(add, "<text class=\"name\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>\n", left - 8,
                   y + kCell * 0.66, html_escape(row.name));
    for (size_t i = 0; i < row.values.size(); ++i) {
      if (!std::isfinite(row.values[i])) continue;
      const double x = left + width * static_cast<double>(i);
      fmt::format_to(add,
                     "<rect class=\"bar c{}\" fill-opacity=\"{:.3f}\" x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" "
                     "height=\"{:.2f}\">{}</rect>\n",
                     strip.colour, 0.06 + 0.9 * std::clamp(row.values[i], 0.0, 1.0), x + 0.5, y + 0.5,
                     std::max(width - 1, 0.5), kCell - 1, title_element(i < row.titles.size() ? row.titles[i] : ""));
      if (i < row.texts.size() && width >= 16) {
        fmt::format_to(add,
                       "<text class=\"cell\" pointer-events=\"none\" x=\"{:.2f}\" y=\"{:.2f}\" "
                       "text-anchor=\"middle\">{}</text>\n",
                       x + width / 2, y + kCell * 0.64, html_escape(row.texts[i]));
      }
    }
    y += kCell;
  }
  const auto every = static_cast<size_t>(std::max(1.0, std::ceil(24 / width)));
  for (size_t i = 0; i < columns; i += every) {
    fmt::format_to(add, "<text class=\"tick\" x=\"{:.2f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>\n",
                   left + width * (static_cast<double>(i) + 0.5), y + 14, i);
  }
  fmt::format_to(add, "<text class=\"label\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>\n",
                 (left + strip.width) / 2, y + 32, html_escape(strip.x_label));
  return out + "</svg>\n";
}

std::string html_escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c;
    }
  }
  return out;
}

std::string html_page(std::string_view title, std::string_view body) {
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n"
      "<style>{}</style>\n</head>\n<body>\n<h1>{}</h1>\n{}</body>\n</html>\n",
      html_escape(title), kStyle, html_escape(title), body);
}

}  // namespace pare
