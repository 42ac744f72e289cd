#include "redundancy/report.h"

#include <fmt/format.h>

#include <cmath>
#include <functional>
#include <limits>
#include <optional>

#include "redundancy/choose.h"

namespace pare {
namespace {

using Value = std::function<std::optional<double>(const LayerImportance&)>;

ChartSeries by_layer(const Redundancy& redundancy, const std::string& name, ChartMark mark, int colour,
                     const Value& value, const std::function<std::string(double)>& text) {
  ChartSeries series{name, mark, colour, {}};
  for (size_t i = 0; i < redundancy.layers.size(); ++i) {
    const std::optional<double> y = value(redundancy.layers[i]);
    if (y) series.points.push_back({static_cast<double>(i), *y, fmt::format("layer {} {}: {}", i, name, text(*y))});
  }
  return series;
}

std::string four_digits(double x) { return fmt::format("{:.4g}", x); }
std::string percent(double x) { return fmt::format("{:.1f}%", 100 * x); }

std::string cell(const std::optional<double>& value, std::string (*text)(double)) {
  return fmt::format("<td>{}</td>", value ? text(*value) : "–");
}

std::string numbers_table(const Redundancy& redundancy) {
  std::string out =
      "<div class=\"scroll\"><table>\n<tr><th>layer</th><th>block</th><th>attention</th><th>MLP</th>"
      "<th>negligible attention</th><th>largest activation</th><th>10th largest</th></tr>\n";
  for (size_t i = 0; i < redundancy.layers.size(); ++i) {
    const LayerImportance& layer = redundancy.layers[i];
    out += fmt::format("<tr><td>{}</td>", i) + cell(layer.block, four_digits) + cell(layer.attention, four_digits) +
           cell(layer.mlp, four_digits) + cell(layer.attention_sparsity, percent) +
           cell(layer.top1_activation, four_digits) + cell(layer.top10_activation, four_digits) + "</tr>\n";
  }
  return out + "</table></div>\n";
}

}  // namespace

Chart importance_chart(const Redundancy& redundancy) {
  Chart chart;
  chart.title = "Importance by depth";
  chart.x = {.label = "layer", .whole = true};
  chart.y = {.label = "importance, 1 − cos", .log = true};
  chart.series.push_back(by_layer(
      redundancy, "attention", ChartMark::kBars, 0, [](const auto& l) { return l.attention; }, four_digits));
  chart.series.push_back(by_layer(
      redundancy, "MLP", ChartMark::kBars, 1, [](const auto& l) { return l.mlp; }, four_digits));
  chart.series.push_back(by_layer(
      redundancy, "whole block", ChartMark::kLine, 2, [](const auto& l) { return std::optional(l.block); },
      four_digits));
  return chart;
}

HeatStrip drop_order_strip(const Redundancy& redundancy) {
  using Kind = DropPart::Kind;
  HeatStrip strip{"Order in which parts would be dropped", "layer", 3, {}};
  const std::pair<const char*, Kind> kinds[] = {
      {"attention", Kind::kAttention}, {"MLP", Kind::kMlp}, {"block", Kind::kBlock}};
  for (const auto& [name, kind] : kinds) {
    HeatRow row;
    row.name = name;
    row.values.assign(redundancy.layers.size(), std::numeric_limits<double>::quiet_NaN());
    row.titles.assign(redundancy.layers.size(), "");
    row.texts.assign(redundancy.layers.size(), "");
    const std::vector<DropPart> order = parts_by_importance(redundancy, {kind});
    for (size_t rank = 0; rank < order.size(); ++rank) {
      const auto layer = static_cast<size_t>(order[rank].layer);
      row.values[layer] = 1 - static_cast<double>(rank) / static_cast<double>(order.size());
      row.titles[layer] =
          fmt::format("{} of layer {}: dropped as number {} of {}", name, layer, rank + 1, order.size());
      row.texts[layer] = std::to_string(rank + 1);
    }
    strip.rows.push_back(std::move(row));
  }
  return strip;
}

Chart sparsity_chart(const Redundancy& redundancy) {
  Chart chart;
  chart.title = "Negligible attention by depth";
  chart.x = {.label = "layer", .whole = true};
  chart.y = {.label = "negligible weights", .percent = true, .from_zero = true};
  chart.height = 240;
  chart.series.push_back(by_layer(
      redundancy, "", ChartMark::kBars, 0, [](const auto& l) { return l.attention_sparsity; }, percent));
  return chart;
}

Chart outlier_chart(const Redundancy& redundancy) {
  Chart chart;
  chart.title = "Largest activations by depth";
  chart.x = {.label = "layer", .whole = true};
  chart.y = {.label = "absolute value", .log = true};
  chart.height = 240;
  chart.series.push_back(by_layer(
      redundancy, "largest", ChartMark::kLine, 3, [](const auto& l) { return std::optional(l.top1_activation); },
      four_digits));
  chart.series.push_back(by_layer(
      redundancy, "10th largest", ChartMark::kLine, 4, [](const auto& l) { return std::optional(l.top10_activation); },
      four_digits));
  return chart;
}

std::string redundancy_page(const Redundancy& redundancy, const std::string& model_name,
                            const std::string& calibration_name) {
  std::string body = fmt::format("<p class=\"faint\">{} layers, scored on {} tokens of {}.</p>\n",
                                 redundancy.layers.size(), redundancy.tokens, html_escape(calibration_name));
  body +=
      "<h2>Importance by depth</h2>\n<p>How much a part turns the hidden state: 1 − cosine similarity of what enters "
      "and "
      "what leaves it, mean over tokens (LLM-Drop, arXiv 2406.15786). Low parts change little and can be dropped "
      "first. "
      "The scale is logarithmic.</p>\n" +
      render_svg(importance_chart(redundancy));
  body +=
      "<h2>What would go first</h2>\n<p>The order in which the published rule drops attentions, MLPs and whole blocks; "
      "1 goes first.</p>\n" +
      render_svg(drop_order_strip(redundancy));
  body +=
      "<h2>Negligible attention</h2>\n<p>Share of attention weights below a thousandth of the largest one of their "
      "query. Where it is high, most of the context is not looked at.</p>\n" +
      render_svg(sparsity_chart(redundancy));
  body +=
      "<h2>Outliers</h2>\n<p>The largest values of each block's output. A few values far above the rest make "
      "activations hard to quantize.</p>\n" +
      render_svg(outlier_chart(redundancy));
  body += "<h2>Numbers</h2>\n" + numbers_table(redundancy);
  return html_page(model_name + ": redundancy", body);
}

}  // namespace pare
