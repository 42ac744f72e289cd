#include "shrink/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string_view>

#include "base/json.h"
#include "redundancy/chart.h"
#include "shrink/result_json.h"

namespace pare {

// web/shrink, compiled in.
std::string_view shrink_report_style();
std::string_view shrink_report_script();

namespace {

std::string three_digits(double value) {
  return fmt::format("{:.{}f}", value, value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2);
}

std::string megabytes(int64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (value >= 1e9) return three_digits(value / 1e9) + " GB";
  if (value >= 1e6) return three_digits(value / 1e6) + " MB";
  return three_digits(value / 1e3) + " kB";
}

std::string percent(double share, int digits = 2) { return fmt::format("{:.{}f}%", 100 * share, digits); }

double smaller(const ShrinkResult& result, const PlanResult& plan) {
  return static_cast<double>(result.base.bytes) / static_cast<double>(plan.bytes);
}

std::string fact(const std::string& number, const std::string& what, const std::string& more) {
  return fmt::format(
      "<div class=\"fact card\"><b>{}</b><span class=\"what\">{}</span><span class=\"more\">{}</span></div>\n", number,
      what, more);
}

std::string facts(const ShrinkResult& result) {
  const PlanResult& chosen = result.chosen;
  std::string out = "<div class=\"facts\">\n";
  out += fact(fmt::format("{:.2f}×", smaller(result, chosen)), "smaller",
              fmt::format("{} → {}", megabytes(result.base.bytes), megabytes(chosen.bytes)));
  out += fact(percent(chosen.quality), "quality",
              fmt::format("perplexity {:.2f} → {:.2f}", result.base.perplexity, chosen.perplexity));
  out += fact(percent(chosen.top1, 1), "same next word", fmt::format("KL {:.4f}: {}", chosen.kl, in_words(chosen.kl)));
  if (chosen.tokens_per_second > 0) {
    out += fact(fmt::format("{:.2f}×", chosen.speed), "as fast to decode",
                fmt::format("{} → {} tokens a second", three_digits(result.base.tokens_per_second),
                            three_digits(chosen.tokens_per_second)));
  }
  return out + "</div>\n";
}

std::string plan_section(const ShrinkResult& result) {
  std::string out = "<section><h2>The plan</h2>\n<ul class=\"plan\">\n";
  for (const std::string& line : in_words(result.chosen.plan)) out += "<li>" + html_escape(line) + "</li>\n";
  return out + "</ul></section>\n";
}

constexpr std::string_view kHead =
    "<tr><th></th><th>size</th><th>smaller</th><th>quality</th><th>KL</th><th>same next word</th><th>decode tok/s</th>"
    "<th>faster</th></tr>\n";

std::string row(const ShrinkResult& result, const std::string& name, const PlanResult& plan, const char* style = "") {
  const bool timed = plan.tokens_per_second > 0;
  return fmt::format(
      "<tr class=\"{}\"><td>{}</td><td>{}</td><td>{:.2f}×</td><td>{}</td><td>{:.4f}</td><td>{}</td><td>{}</td>"
      "<td>{}</td></tr>\n",
      style, name, megabytes(plan.bytes), smaller(result, plan), percent(plan.quality), plan.kl, percent(plan.top1, 1),
      timed ? three_digits(plan.tokens_per_second) : "–", timed ? fmt::format("{:.2f}×", plan.speed) : "–");
}

std::string drops_text(const Plan& plan) {
  std::string text;
  const auto add = [&](size_t count, const char* one, const char* many) {
    if (count > 0) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, count == 1 ? one : many);
  };
  add(plan.drop_attention.size(), "attention", "attentions");
  add(plan.drop_mlp.size(), "MLP", "MLPs");
  return text;
}

std::string steps_section(const ShrinkResult& result) {
  std::string out = "<section><h2>What each step costs and gains</h2>\n<p>";
  out += result.drops_taken ? "Alone and together, on text that the search did not see."
                            : "Alone and together, on text that the search did not see. No drop was worth taking here; "
                              "the rows with drops show what the best ones would do.";
  out += "</p>\n<div class=\"scroll card\"><table>\n" + std::string(kHead);
  for (const PlanResult& step : result.steps) {
    const std::string drops = step.plan.store.empty() ? drops_text(step.plan) : "";
    const std::string more = drops.empty() ? "" : fmt::format(" <span class=\"faint\">{}</span>", drops);
    out += row(result, html_escape(step.name) + more, step);
  }
  return out + row(result, "the result", result.chosen, "result") + "</table></div></section>\n";
}

std::string comparisons_section(const ShrinkResult& result) {
  if (result.comparisons.empty()) return "";
  std::string out =
      "<section><h2>With drops and without</h2>\n<p>The best plan of each kind that was found at the same "
      "size.</p>\n<div class=\"scroll card\"><table>\n" +
      std::string(kHead);
  for (const SizeComparison& comparison : result.comparisons) {
    const auto& with = comparison.with_drops;
    const auto& without = comparison.without_drops;
    const bool drops_win = with && (!without || with->kl < without->kl);
    const auto mark = [](bool wins) { return wins ? " <span class=\"wins\">better</span>" : ""; };
    out += fmt::format("<tr class=\"group\"><td colspan=\"8\">at most {}</td></tr>\n", megabytes(comparison.bytes));
    if (with) out += row(result, fmt::format("dropping {}{}", drops_text(with->plan), mark(drops_win)), *with);
    if (without) out += row(result, fmt::format("no drops{}", mark(!drops_win)), *without);
    if (!without) out += "<tr><td colspan=\"8\" class=\"faint\">no drops: not this small</td></tr>\n";
  }
  return out + "</table></div></section>\n";
}

/// Types of blocks in the picture, largest first: each gets a colour, float types share one.
std::vector<std::string> block_types(const ShrinkResult& result) {
  std::set<DType> present;
  const auto add = [&](DType type) {
    if (info(type).block_size > 1) present.insert(type);
  };
  for (const MatrixChange& matrix : result.matrices) {
    add(matrix.before);
    if (matrix.after) add(*matrix.after);
  }
  std::vector<DType> types(present.begin(), present.end());
  std::stable_sort(types.begin(), types.end(),
                   [](DType a, DType b) { return info(a).bits_per_value() > info(b).bits_per_value(); });
  std::vector<std::string> names;
  for (const DType type : types) names.emplace_back(info(type).name);
  return names;
}

std::string type_legend(const ShrinkResult& result, bool drops) {
  std::set<std::string> floats;
  for (const MatrixChange& matrix : result.matrices) {
    if (matrix.after && info(*matrix.after).block_size == 1) floats.insert(info(*matrix.after).name);
    if (!drops && info(matrix.before).block_size == 1) floats.insert(info(matrix.before).name);
  }
  std::string out = "<div class=\"legend\">";
  const auto add = [&](int colour, const std::string& name) {
    out += fmt::format("<span><i style=\"background:var(--t{})\"></i>{}</span>", colour, name);
  };
  if (!floats.empty()) add(0, fmt::format("{}", fmt::join(floats, ", ")));
  const std::vector<std::string> types = block_types(result);
  for (size_t i = 0; i < types.size(); ++i) add(static_cast<int>(std::min<size_t>(i + 1, 4)), types[i]);
  if (drops) out += "<span><i style=\"border:1px dashed var(--drop)\"></i>dropped</span>";
  return out + "</div>\n";
}

Json grid_json(const ShrinkResult& result) {
  Json rows = Json::array();
  std::vector<std::string> tensors;
  for (const WeightKindInfo& kind : all_weight_kinds()) {
    Json cells = Json::array();
    for (const MatrixChange& matrix : result.matrices) {
      if (matrix.tensor != kind.name) continue;
      cells.push_back({{"type", matrix.after ? Json(info(*matrix.after).name) : Json(nullptr)},
                       {"bytes", matrix.bytes_after},
                       {"before", matrix.bytes_before}});
    }
    if (!cells.empty()) rows.push_back({{"tensor", kind.name}, {"cells", cells}});
  }
  return rows;
}

Json layers_json(const ShrinkResult& result) {
  std::map<std::pair<std::string, int>, double> alone;
  for (const ChangeCost& change : result.changes) {
    if (change.type.empty()) alone[{change.tensor, change.first_layer}] = change.kl;
  }
  Json layers = Json::array();
  for (size_t i = 0; i < result.redundancy.layers.size(); ++i) {
    const LayerImportance& layer = result.redundancy.layers[i];
    const auto index = static_cast<int>(i);
    const auto kl = [&](const char* kind) {
      const auto found = alone.find({kind, index});
      return found == alone.end() ? Json(nullptr) : Json(found->second);
    };
    layers.push_back({{"attention", layer.attention ? Json(*layer.attention) : Json(nullptr)},
                      {"mlp", layer.mlp ? Json(*layer.mlp) : Json(nullptr)},
                      {"attention_kl", kl("attention")},
                      {"mlp_kl", kl("mlp")},
                      {"attention_dropped", result.chosen.plan.drops_attention(index)},
                      {"mlp_dropped", result.chosen.plan.drops_mlp(index)}});
  }
  return layers;
}

Json speeds_json(const ShrinkResult& result) {
  Json speeds = Json::array();
  const auto add = [&](const PlanResult& plan, const std::string& name) {
    Json entry = to_json(plan);
    entry["name"] = name;
    entry.erase("plan");
    speeds.push_back(std::move(entry));
  };
  for (const PlanResult& step : result.steps) add(step, step.name);
  add(result.chosen, "the result");
  return speeds;
}

Json page_data(const ShrinkResult& result) {
  Json data = to_json(result);
  for (size_t i = 0; i < result.trials.size(); ++i) {
    Json& trial = data["trials"][i];
    trial.erase("plan");
    trial["summary"] = result.trials[i].plan.summary();
    trial["chosen"] = result.trials[i].plan == result.chosen.plan;
  }
  data.erase("changes");
  data.erase("comparisons");
  data["types"] = block_types(result);
  data["grid"] = grid_json(result);
  data["layers"] = layers_json(result);
  data["speeds"] = speeds_json(result);
  return data;
}

/// JSON that can stand in a script element: no "</script" and no comment in it.
std::string for_script(const Json& json) {
  std::string out;
  for (const char c : json.dump(-1, ' ', false, Json::error_handler_t::replace)) {
    if (c == '<') {
      out += "\\u003c";
    } else {
      out += c;
    }
  }
  return out;
}

std::string chart_section(const char* title, const char* text, const char* id, const std::string& around) {
  return fmt::format(
      "<section><h2>{}</h2>\n<p>{}</p>\n<div class=\"card\">{}<div class=\"chart\" id=\"{}\" data-title=\"{}\"></div>"
      "</div></section>\n",
      title, text, around, id, title);
}

std::string charts(const ShrinkResult& result) {
  constexpr const char* kParts =
      "<div class=\"legend\"><span><i style=\"background:var(--attention)\"></i>attention</span>"
      "<span><i style=\"background:var(--mlp)\"></i>MLP</span>"
      "<span><i style=\"border:1px dashed var(--drop)\"></i>dropped</span></div>\n";
  return chart_section("The plan, layer by layer",
                       "How each matrix is stored now. A column is a layer, from the first on the left.", "grid",
                       type_legend(result, true)) +
         chart_section(
             "Importance by depth",
             "How much a part turns the hidden state: 1 − cosine similarity of what enters and what leaves it "
             "(LLM-Drop, arXiv 2406.15786). Low parts change little. The scale is logarithmic.",
             "importance", kParts) +
         chart_section("Where the bytes are", "The file before and after, by kind of weight; colour is the type.",
                       "sizes", type_legend(result, false)) +
         chart_section("Decode speed", "Measured in turns with the original, so that both met the same machine.",
                       "speed", "");
}

std::string front_section() {
  return "<section><h2>Size against quality</h2>\n<p>Every plan that was tried on all of the search's text. Strong "
         "dots "
         "are on the Pareto front: no other plan is as good in size, divergence and predicted speed. Quality here is "
         "on "
         "the search's text; the tables are measured on other text.</p>\n<div class=\"card\">"
         "<div class=\"choices\"><button data-front=\"quality\" aria-pressed=\"true\">quality</button>"
         "<button data-front=\"kl\" aria-pressed=\"false\">KL divergence</button></div>"
         "<div class=\"legend\"><span><i class=\"dot\" style=\"background:var(--attention)\"></i>types only</span>"
         "<span><i class=\"dot\" style=\"background:var(--mlp)\"></i>with drops</span>"
         "<span><i class=\"dot\" style=\"background:var(--good)\"></i>the result</span></div>"
         "<div class=\"chart\" id=\"front\" data-title=\"Size against quality\"></div></div></section>\n";
}

std::string footer(const ShrinkResult& result, const std::string& text_name) {
  return fmt::format(
      "<footer class=\"note\"><p>{} plans tried in {:.0f} seconds. Searched on {} predictions of {}; all numbers in "
      "tables are from {} others that the search never saw.</p>\n"
      "<p><b>Quality</b> is the original's perplexity divided by this one's. <b>KL</b> is the divergence of the "
      "predictions from the original's, in nats a token: 0 is the same model. <b>Same next word</b> is how often both "
      "hold the same token for the likeliest. <b>Decode</b> is one sequence, token by token.</p></footer>\n",
      result.trials_evaluated, result.seconds, result.search_tokens, html_escape(text_name), result.validation_tokens);
}

}  // namespace

std::string shrink_page(const ShrinkResult& result, const std::string& model_name, const std::string& text_name) {
  const std::string title = fmt::format("{}, {:.2f}× smaller", model_name, smaller(result, result.chosen));
  std::string body = fmt::format("<h1>{}</h1>\n", html_escape(title)) + facts(result) + plan_section(result) +
                     front_section() + steps_section(result) + comparisons_section(result) + charts(result) +
                     footer(result, text_name);
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n"
      "<style>\n{}</style>\n</head>\n<body>\n{}"
      "<script type=\"application/json\" id=\"data\">{}</script>\n<script>\n{}</script>\n</body>\n</html>\n",
      html_escape(title), shrink_report_style(), body, for_script(page_data(result)), shrink_report_script());
}

}  // namespace pare
