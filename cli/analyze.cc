// pare analyze: how much each part of a model does, layer by layer.
#include <algorithm>
#include <cmath>

#include "base/file.h"
#include "calibration.h"
#include "commands.h"
#include "format.h"
#include "redundancy/choose.h"
#include "redundancy/report.h"
#include "redundancy/threshold_loss.h"

namespace pare::cli {
namespace {

struct AnalyzeOptions {
  std::filesystem::path model, html;
  CalibrationArguments calibration;
  std::vector<float> thresholds = {1e-3f, 1e-2f, 3e-2f};
};

// Of the calibration text: a few windows tell what a threshold costs, and each is run once a threshold.
constexpr int64_t kThresholdTokens = 4096;

Json optional_json(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

Json to_json(const Checkpoint& checkpoint, const Redundancy& redundancy, const std::vector<ThresholdLoss>& losses,
             const std::string& calibration) {
  Json layers = Json::array();
  for (size_t i = 0; i < redundancy.layers.size(); ++i) {
    const LayerImportance& layer = redundancy.layers[i];
    layers.push_back({{"layer", i},
                      {"block", layer.block},
                      {"attention", optional_json(layer.attention)},
                      {"mlp", optional_json(layer.mlp)},
                      {"attention_sparsity", optional_json(layer.attention_sparsity)},
                      {"top1_activation", layer.top1_activation},
                      {"top10_activation", layer.top10_activation}});
  }
  Json thresholds = Json::array();
  for (const ThresholdLoss& loss : losses) {
    thresholds.push_back({{"threshold", loss.threshold},
                          {"nats_per_token", loss.nats_per_token},
                          {"perplexity", loss.perplexity},
                          {"values_left_out", loss.mean_skipped},
                          {"values_left_out_by_layer", loss.skipped}});
  }
  return {{"model", checkpoint.path.string()},
          {"calibration", calibration},
          {"tokens", redundancy.tokens},
          {"layers", layers},
          {"attention_thresholds", thresholds}};
}

/// How far a value reaches between the smallest and the largest, on a logarithmic scale since scores span decades.
struct LogSpan {
  double low = INFINITY, high = -INFINITY;
  void see(const std::optional<double>& value) {
    if (value && *value > 0) low = std::min(low, std::log(*value)), high = std::max(high, std::log(*value));
  }
  double fraction(double value) const {
    if (!(value > 0)) return 0;
    return high > low ? 0.04 + 0.96 * (std::log(value) - low) / (high - low) : 1;
  }
};

void print_table(const Redundancy& redundancy, Common& common) {
  const Style& style = common.style();
  LogSpan span;
  for (const LayerImportance& layer : redundancy.layers) {
    span.see(layer.block), span.see(layer.attention), span.see(layer.mlp);
  }
  const int width = std::clamp((terminal_width(1) - 78) / 3, 6, 20);
  Table table;
  table.column("layer").column("attention").column("", Table::Align::kLeft);
  table.column("MLP").column("", Table::Align::kLeft);
  table.column("block").column("", Table::Align::kLeft);
  table.column("negligible attention").column("largest").column("10th");
  const auto number = [](const std::optional<double>& v) {
    return v ? fmt::format("{:.3g}", *v) : std::string("none");
  };
  const auto bar = [&](const std::optional<double>& v) {
    return v ? style.bar(span.fraction(*v), width) : std::string();
  };
  for (size_t i = 0; i < redundancy.layers.size(); ++i) {
    const LayerImportance& layer = redundancy.layers[i];
    table.row({std::to_string(i), number(layer.attention), style.cyan(bar(layer.attention)), number(layer.mlp),
               style.yellow(bar(layer.mlp)), number(layer.block), style.green(bar(layer.block)),
               layer.attention_sparsity ? fmt::format("{:.1f}%", 100 * *layer.attention_sparsity) : "none",
               fmt::format("{:.3g}", layer.top1_activation), fmt::format("{:.3g}", layer.top10_activation)});
  }
  common.print(table.render(style));
}

/// The first row is without a threshold.
void print_thresholds(const std::vector<ThresholdLoss>& losses, Common& common) {
  if (losses.size() < 2) return;
  Table table;
  table.column("attention threshold").column("perplexity").column("change").column("values left out");
  for (const ThresholdLoss& loss : losses) {
    const double change = std::exp(loss.nats_per_token - losses[0].nats_per_token) - 1;
    const bool none = &loss == &losses[0];
    table.row({none ? "none" : fmt::format("{:g}", loss.threshold), fmt::format("{:.5g}", loss.perplexity),
               none ? "" : fmt::format("{:+.3f}%", 100 * change), fmt::format("{:.1f}%", 100 * loss.mean_skipped)});
  }
  common.print("\n{}", table.render(common.style()));
}

void print_order(const Redundancy& redundancy, Common& common) {
  using Kind = DropPart::Kind;
  const auto line = [&](const char* what, const std::vector<Kind>& kinds) {
    const std::vector<DropPart> parts = parts_by_importance(redundancy, kinds);
    std::string names;
    for (size_t i = 0; i < std::min<size_t>(parts.size(), 8); ++i) {
      names += fmt::format("{}{}", i > 0 ? ", " : "", parts[i].layer);
    }
    if (!parts.empty()) common.print("{}{}{}\n", what, names, parts.size() > 8 ? ", ..." : "");
  };
  common.print("\n");
  line("attention to drop first, by layer: ", {Kind::kAttention});
  line("MLP to drop first, by layer:       ", {Kind::kMlp});
  line("block to drop first, by layer:     ", {Kind::kBlock});
}

void write_page(const std::filesystem::path& path, const std::string& page) {
  OutputFile out(path);
  out.write(page);
  out.commit();
}

void analyze(const AnalyzeOptions& options, Common& common) {
  LoadedModel loaded = load_model(options.model, common);
  const CalibrationText text = read_calibration(options.calibration, *loaded.model, loaded.need_tokenizer(), common);
  const Redundancy redundancy = explain_non_finite(loaded.checkpoint, common, [&] {
    return measure_redundancy(*loaded.model, text.windows, common.progress(), common.cancel());
  });
  std::vector<ThresholdLoss> losses;
  if (!options.thresholds.empty()) {
    losses = measure_threshold_loss(*loaded.model, text.windows, options.thresholds, kThresholdTokens,
                                    common.progress(), common.cancel());
  }
  if (!options.html.empty()) {
    write_page(options.html, redundancy_page(redundancy, loaded.checkpoint.name, text.name));
  }
  if (common.json) {
    common.print_json(to_json(loaded.checkpoint, redundancy, losses, text.name));
    return;
  }
  common.print("{}: importance (1 - cosine similarity of the hidden state before and after), {} of {}\n\n",
               common.style().bold(printable(loaded.checkpoint.name)), plural(redundancy.tokens, "token"),
               printable(text.name));
  print_table(redundancy, common);
  print_order(redundancy, common);
  print_thresholds(losses, common);
  if (!options.html.empty()) common.print("\nreport: {}\n", printable(options.html.string()));
}

}  // namespace

void add_analyze_command(CLI::App& app, Common& common) {
  auto options = std::make_shared<AnalyzeOptions>();
  auto* command = add_command(app, common, "analyze", "Score how much each attention, MLP and block of a model does",
                              {"pare analyze model.gguf", "pare analyze model/ --html report.html",
                               "pare analyze model.gguf --calibration self --tokens 16384",
                               "pare analyze model.gguf --calibration my-texts.txt --json > scores.json"});
  add_model_argument(command, options->model, common);
  add_calibration_options(command, options->calibration);
  command
      ->add_option("--attention-thresholds", options->thresholds,
                   "Score what leaving out attention values below these thresholds costs (default: 0.001,0.01,0.03)")
      ->type_name("TAU,TAU,...")
      ->delimiter(',')
      ->check(CLI::Range(0.0, 0.999999));
  command->add_option("--html", options->html, "Also write a report with charts")->type_name("FILE");
  on_run(command, [options, &common] { analyze(*options, common); });
}

}  // namespace pare::cli
