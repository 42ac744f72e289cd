// pare shrink: searches for the smallest, fastest or best file within a budget, and proves what it cost.
#include "shrink/shrink.h"

#include <chrono>
#include <cmath>
#include <fstream>

#include "base/file.h"
#include "base/json.h"
#include "calibration.h"
#include "commands.h"
#include "format.h"
#include "shrink/report.h"
#include "shrink/result_json.h"

namespace pare::cli {
namespace {

constexpr double kDefaultQuality = 0.97;
constexpr int64_t kSelfTokens = 16384;  // writing text takes longer than reading it

struct ShrinkArguments {
  std::filesystem::path model, output, report, database;
  std::string quality, size, speed, time;
  int64_t trials = 0;
  bool fresh = false, against_random = false;
  GgufReader reader = GgufReader::kPare;
  CalibrationArguments calibration;
  CLI::Option* tokens = nullptr;  // --tokens
};

/// The number that a text begins with; `rest` receives what follows it.
double leading_number(const std::string& text, const char* option, const char* expected, std::string& rest) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  rest = end;
  const bool plain = !text.empty() && (std::isdigit(static_cast<unsigned char>(text[0])) || text[0] == '.');
  if (!plain || end == text.c_str() || !std::isfinite(value)) {
    throw UsageError(fmt::format("{}: '{}' is not {}", option, text, expected));
  }
  return value;
}

/// "97%", "97" and "0.97" are the same quality.
double parse_quality(const std::string& text) {
  constexpr const char* kExpected = "a quality such as 97%";
  std::string rest;
  const double value = leading_number(text, "--quality", kExpected, rest);
  if (!rest.empty() && rest != "%") throw UsageError(fmt::format("--quality: '{}' is not {}", text, kExpected));
  const double quality = rest == "%" || value > 1 ? value / 100 : value;
  if (!(quality > 0 && quality <= 1)) throw UsageError(fmt::format("--quality: {} is not between 0 and 100%", text));
  return quality;
}

double parse_speed(const std::string& text) {
  constexpr const char* kExpected = "a factor such as 1.5x";
  std::string rest;
  const double value = leading_number(text, "--speed", kExpected, rest);
  if ((!rest.empty() && rest != "x") || !(value > 0)) {
    throw UsageError(fmt::format("--speed: '{}' is not {}", text, kExpected));
  }
  return value;
}

/// "90", "90s", "5m", "1h30m" in seconds.
double parse_seconds(const std::string& text) {
  constexpr const char* kExpected = "a time such as 90s, 5m or 1h30m";
  double seconds = 0;
  std::string left = text;
  do {
    std::string rest;
    const double value = leading_number(left, "--time", kExpected, rest);
    const char unit = rest.empty() ? 's' : rest[0];
    const double factor = unit == 's' ? 1 : unit == 'm' ? 60 : unit == 'h' ? 3600 : 0;
    if (factor == 0) throw UsageError(fmt::format("--time: '{}' is not {}", text, kExpected));
    seconds += value * factor;
    left = rest.empty() ? rest : rest.substr(1);
  } while (!left.empty());
  if (!(seconds > 0)) throw UsageError(fmt::format("--time: '{}' is no time", text));
  return seconds;
}

ShrinkBudget parse_budget(const ShrinkArguments& arguments) {
  ShrinkBudget budget;
  if (!arguments.quality.empty()) budget.quality = parse_quality(arguments.quality);
  if (!arguments.size.empty()) budget.bytes = parse_bytes(arguments.size, "--size");
  if (!arguments.speed.empty()) budget.speed = parse_speed(arguments.speed);
  if (!budget.quality && !budget.bytes && !budget.speed) budget.quality = kDefaultQuality;
  return budget;
}

std::string percent(double share) { return fmt::format("{:.2f}%", 100 * share); }

std::string speed_text(const PlanResult& plan) {
  return plan.tokens_per_second > 0 ? fmt::format("{:.2f}x", plan.speed) : std::string("-");
}

void add_row(Table& table, const std::string& name, const PlanResult& plan, const PlanResult& base) {
  table.row({name, human_bytes(plan.bytes),
             fmt::format("{:.2f}x", static_cast<double>(base.bytes) / static_cast<double>(plan.bytes)),
             percent(plan.quality), fmt::format("{:.4f}", plan.kl), fmt::format("{:.1f}%", 100 * plan.top1),
             plan.tokens_per_second > 0 ? three_digits(plan.tokens_per_second) : std::string("-"), speed_text(plan)});
}

Table measurements() {
  Table table(2);
  table.column("", Table::Align::kLeft).column("size").column("smaller").column("quality").column("KL");
  table.column("same next word").column("decode tok/s").column("faster");
  return table;
}

std::string drops_text(const Plan& plan) {
  std::string text;
  const auto add = [&](size_t count, const char* what) {
    if (count > 0) text += fmt::format("{}{}", text.empty() ? "" : ", ", plural(static_cast<int64_t>(count), what));
  };
  add(plan.drop_attention.size(), "attention");
  add(plan.drop_mlp.size(), "MLP");
  return text;
}

void print_steps(const ShrinkResult& result, Common& common) {
  Table table = measurements();
  for (const PlanResult& step : result.steps) {
    const std::string drops = step.plan.store.empty() ? drops_text(step.plan) : "";
    add_row(table, drops.empty() ? step.name : fmt::format("{} ({})", step.name, drops), step, result.base);
  }
  table.rule();
  add_row(table, "the result", result.chosen, result.base);
  common.print("\nWhat each step costs and gains, alone and together{}\n{}",
               result.drops_taken || result.steps.size() < 3 ? "" : " (no drop was worth taking)",
               table.render(common.style()));
}

void print_comparisons(const ShrinkResult& result, Common& common) {
  Table table = measurements();
  for (const SizeComparison& comparison : result.comparisons) {
    const std::string size = human_bytes(comparison.bytes);
    const auto& with = comparison.with_drops;
    const auto& without = comparison.without_drops;
    const bool drops_win = with && (!without || with->kl < without->kl);
    const auto mark = [&](bool wins) { return wins ? " (wins)" : ""; };
    if (with) {
      add_row(table, fmt::format("{}, dropping {}{}", size, drops_text(with->plan), mark(drops_win)), *with,
              result.base);
    }
    if (without) add_row(table, fmt::format("{}, no drops{}", size, mark(!drops_win)), *without, result.base);
  }
  if (!result.comparisons.empty()) {
    common.print("\nAt two sizes, the best plan with drops and the best without\n{}", table.render(common.style()));
  }
}

void print_random(const ShrinkResult& result, Common& common) {
  if (result.random.empty()) return;
  Table table;
  table.column("size at most").column("KL found").column("KL at random");
  const auto text = [](const std::optional<double>& kl) { return kl ? fmt::format("{:.5f}", *kl) : std::string("-"); };
  for (const RandomComparison& at : result.random) {
    table.row({human_bytes(at.bytes), text(at.searched_kl), text(at.random_kl)});
  }
  common.print("\nThe search beside as many plans drawn at random, on the search's text\n{}",
               table.render(common.style()));
}

void print_result(const ShrinkResult& result, const ShrinkArguments& arguments, const std::string& text_name,
                  Common& common) {
  const Style& style = common.style();
  const PlanResult& chosen = result.chosen;
  common.print(
      "{}: {} from {}, {} smaller\n", style.bold(printable(arguments.output.string())), human_bytes(chosen.bytes),
      human_bytes(result.base.bytes),
      style.green(fmt::format("{:.2f}x", static_cast<double>(result.base.bytes) / static_cast<double>(chosen.bytes))));
  common.print("  quality {} of the original's: perplexity {:.4f}, before {:.4f}, on text the search did not see\n",
               style.bold(percent(chosen.quality)), chosen.perplexity, result.base.perplexity);
  common.print("  both choose the same next word {:.1f}% of the time; KL divergence {:.4f} nats a token, {}\n",
               100 * chosen.top1, chosen.kl, in_words(chosen.kl));
  if (chosen.tokens_per_second > 0) {
    common.print("  decodes {} tokens a second, {} as fast as the original\n", three_digits(chosen.tokens_per_second),
                 speed_text(chosen));
  }
  for (const std::string& line : in_words(chosen.plan)) common.print("  {}\n", line);
  print_steps(result, common);
  print_comparisons(result, common);
  print_random(result, common);
  common.print("\n  {}\n", style.dim(fmt::format("{} in {}, {} of {} for the search, {} to validate",
                                                 plural(result.trials_evaluated, "plan"), human_seconds(result.seconds),
                                                 plural(result.search_tokens, "token"), printable(text_name),
                                                 grouped(result.validation_tokens))));
}

void write_report(const ShrinkResult& result, const ShrinkArguments& arguments, const std::string& model_name,
                  const std::string& text_name) {
  OutputFile file(arguments.report / "index.html");
  file.write(shrink_page(result, model_name, text_name));
  file.commit();
}

/// Before minutes are spent: can the results be written at all?
void check_outputs(const ShrinkArguments& arguments) {
  if (arguments.output.extension() != ".gguf") {
    throw UsageError(fmt::format("-o {}: pare shrink writes a .gguf file", arguments.output.string()));
  }
  const OutputFile probe(arguments.output);  // removed again when it goes
  if (!arguments.report.empty()) {
    std::error_code error;
    std::filesystem::create_directories(arguments.report, error);
    if (error || !std::filesystem::is_directory(arguments.report)) {
      fail("{}: cannot make this folder: {}", arguments.report.string(),
           error ? error.message() : "something else has its name");
    }
    const OutputFile probe_page(arguments.report / "index.html");
  }
}

ShrinkOptions library_options(const ShrinkArguments& arguments, const Checkpoint& checkpoint) {
  ShrinkOptions options;
  options.budget = parse_budget(arguments);
  if (arguments.trials > 0) options.trials = arguments.trials;
  if (!arguments.time.empty()) {
    options.seconds = parse_seconds(arguments.time);
  } else if (arguments.trials == 0) {
    options.seconds = default_seconds(checkpoint.parameters());
  }
  options.seed = arguments.calibration.seed;
  options.fresh = arguments.fresh;
  options.against_random = arguments.against_random;
  options.reader = arguments.reader;
  options.database =
      arguments.database.empty() ? std::filesystem::path(arguments.output.string() + ".trials.db") : arguments.database;
  return options;
}

void shrink(const ShrinkArguments& arguments, Common& common) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  const Checkpoint checkpoint = open_checkpoint(arguments.model, common.open);
  ShrinkOptions options = library_options(arguments, checkpoint);
  if (!checkpoint.tokenizer) fail("{}: the model has no tokenizer", arguments.model.string());
  check_outputs(arguments);
  check_reader(checkpoint, arguments.output, arguments.reader);
  const Tokenizer tokenizer(*checkpoint.tokenizer);
  ThreadPool pool(common.thread_count());
  Variants variants(checkpoint, pool, &common.progress());
  CalibrationArguments calibration = arguments.calibration;
  if (calibration.source == "self" && arguments.tokens->count() == 0) calibration.tokens = kSelfTokens;
  ShrinkResult result;
  std::string text_name;
  try {
    explain_non_finite(checkpoint, common, [&] {
      const CalibrationText text = read_calibration(calibration, variants.base(), tokenizer, common);
      text_name = text.name;
      options.seconds_used = std::chrono::duration<double>(Clock::now() - start).count();
      result = run_shrink(variants, text.windows, options, common.progress(), common.cancel());
    });
  } catch (const Interrupted&) {
    common.warn(fmt::format("interrupted: what was evaluated is kept in {}; the same command goes on from there",
                            options.database.string()));
    throw;
  }
  const Checkpoint smaller = apply_plan(checkpoint, result.chosen.plan);
  write_output(smaller, arguments.output, arguments.reader, common);
  result.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  if (!arguments.report.empty()) write_report(result, arguments, checkpoint.name, text_name);
  if (common.json) {
    Json json = {
        {"output", arguments.output.string()}, {"model", arguments.model.string()}, {"calibration", text_name}};
    json.update(to_json(result));
    if (!arguments.report.empty()) json["report"] = (arguments.report / "index.html").string();
    json["database"] = options.database.string();
    common.print_json(json);
    return;
  }
  print_result(result, arguments, text_name, common);
  if (!arguments.report.empty()) {
    common.print("  report: {}\n", printable((arguments.report / "index.html").string()));
  }
}

}  // namespace

void add_shrink_command(CLI::App& app, Common& common) {
  auto arguments = std::make_shared<ShrinkArguments>();
  auto* command = add_command(
      app, common, "shrink", "Find the best smaller model within a budget, and prove what it cost",
      {"pare shrink ~/models/SmolLM2-360M -o small.gguf", "pare shrink model.gguf -o small.gguf --quality 99%",
       "pare shrink model/ -o small.gguf --size 200MB --report report/",
       "pare shrink model/ -o small.gguf --speed 1.5x --quality 95% --time 10m"});
  add_model_argument(command, arguments->model, common);
  command->add_option("-o,--output", arguments->output, "The file to write: NAME.gguf")->type_name("FILE")->required();
  add_for_option(command, arguments->reader);
  command
      ->add_option("--quality", arguments->quality,
                   "Least quality: base perplexity / perplexity reached (default: 97% if nothing else is asked for)")
      ->type_name("PERCENT");
  command->add_option("--size", arguments->size, "Largest file: the best quality within is searched for")
      ->type_name("BYTES");
  command->add_option("--speed", arguments->speed, "Least decode speed, as a factor of the model's own")
      ->type_name("FACTOR");
  command
      ->add_option("--time", arguments->time,
                   "Time for everything (default: 5m for 27 M parameters, 1m to 1h in proportion to size)")
      ->type_name("TIME");
  command->add_option("--trials", arguments->trials, "Plans to evaluate at most (without --time: no limit of time)")
      ->type_name("N")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30));
  command->add_option("--report", arguments->report, "Folder for a report to look at: index.html")->type_name("DIR");
  command
      ->add_option("--db", arguments->database,
                   "Where trials are kept, so that an interrupted search goes on (default: OUTPUT.trials.db)")
      ->type_name("FILE");
  command->add_flag("--against-random", arguments->against_random,
                    "Afterwards try as many plans drawn at random, and compare");
  command->add_flag("--fresh", arguments->fresh, "Forget earlier trials of this model");
  add_calibration_options(command, arguments->calibration);
  arguments->tokens = command->get_option("--tokens");
  on_run(command, [arguments, &common] { shrink(*arguments, common); });
}

}  // namespace pare::cli
