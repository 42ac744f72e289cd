// pare bench --paper: the table of a paper, on this machine.
#include <algorithm>
#include <cctype>

#include "base/cpu.h"
#include "base/statistics.h"
#include "bench.h"
#include "format.h"
#include "shapes.h"

namespace pare::cli {
namespace {

struct PaperRow {
  const char* name;
  const char* title;
  const char* shape_prefix;        // a size's row in shapes.cc is this and the size in small letters
  std::vector<const char*> sizes;  // as the paper calls them
};

const std::vector<PaperRow>& papers() {
  static const std::vector<PaperRow> rows = {
      {"bitnet",
       "bitnet.cpp (arXiv 2410.16144): F16 against ternary weights, random ones of its shapes",
       "bitnet-",
       {"125M", "350M", "700M", "1B", "1.5B", "2.7B", "3.8B", "7B", "13B", "30B", "70B", "100B"}}};
  return rows;
}

/// One size in one type of weights.
struct PaperEntry {
  std::string size;
  bool ternary = false;
  Subject subject;
  std::string left_out;  // why nothing was measured
  std::vector<SpeedReport> reports;
};

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

/// The sizes asked for, in the paper's order.
std::vector<std::string> chosen_sizes(const PaperRow& paper, const std::vector<std::string>& wanted) {
  const auto is_wanted = [&](const std::string& size) {
    return std::any_of(wanted.begin(), wanted.end(), [&](const auto& name) { return lower(name) == lower(size); });
  };
  for (const std::string& name : wanted) {
    const bool known = std::any_of(paper.sizes.begin(), paper.sizes.end(),
                                   [&](const char* size) { return lower(size) == lower(name); });
    if (!known) {
      throw UsageError(fmt::format("--shapes: unknown size '{}'; --paper {} has {}", name, paper.name,
                                   fmt::join(paper.sizes, ", ")));
    }
  }
  std::vector<std::string> sizes;
  for (const char* size : paper.sizes) {
    if (wanted.empty() || is_wanted(size)) sizes.emplace_back(size);
  }
  return sizes;
}

/// 1, 2, 4, ... and all threads.
std::vector<int> thread_counts(int most) {
  std::vector<int> counts;
  for (int count = 1; count < most; count *= 2) counts.push_back(count);
  counts.push_back(most);
  return counts;
}

/// Says with each step which of the measurements it belongs to.
class NumberedProgress : public Progress {
 public:
  NumberedProgress(Progress& progress, std::string what) : progress_(progress), what_(std::move(what)) {}
  void start(std::string_view what, std::string_view unit, int64_t total) override {
    progress_.start(fmt::format("{}: {}", what_, what), unit, total);
  }
  void update(int64_t done, std::string_view note) override { progress_.update(done, note); }
  void finish() override { progress_.finish(); }

 private:
  Progress& progress_;
  std::string what_;
};

void measure_entry(PaperEntry& entry, size_t index, size_t count, const BenchOptions& options, Common& common) {
  if (auto why = fit_into_memory(entry.subject, options.speed)) {
    entry.left_out = std::move(*why);
    common.remark("left out: " + entry.left_out);
    return;
  }
  for (const int threads : options.threads) {
    NumberedProgress progress(common.stoppable_progress(), fmt::format("[{}/{}] {} {}", index + 1, count, entry.size,
                                                                       entry.ternary ? "ternary" : "f16"));
    entry.reports.push_back(measure(entry.subject, threads, options, progress, common));
  }
}

/// The same run of the same size in F16, if it was measured.
const SpeedResult* in_f16(const std::vector<PaperEntry>& entries, const PaperEntry& of, size_t report, size_t result) {
  if (!of.ternary) return nullptr;
  for (const PaperEntry& other : entries) {
    if (!other.ternary && other.size == of.size && report < other.reports.size())
      return &other.reports[report].results[result];
  }
  return nullptr;
}

double times_of(const SpeedResult& result, const SpeedResult& f16) {
  return result.speed.median() / std::max(f16.speed.median(), 1e-9);
}

void print_paper_table(const PaperRow& paper, const std::vector<PaperEntry>& entries, const SpeedOptions& speed,
                       Common& common) {
  const Style& style = common.style();
  common.print("{}\n\n", style.bold(paper.title));
  Table table;
  table.column("size").column("weights", Table::Align::kLeft).column("memory").column("threads");
  for (const int64_t prompt : speed.prompts) table.column(fmt::format("prefill {}", prompt)).column("x F16");
  table.column(fmt::format("decode {}", speed.generated)).column("x F16").column("read/token");
  table.column("of ceiling").column("J/token");
  const std::string* size = nullptr;
  for (const PaperEntry& entry : entries) {
    if (size && *size != entry.size) table.rule();
    const char* weights = entry.ternary ? "ternary" : "f16";
    if (!entry.left_out.empty()) table.row({entry.size, weights, human_bytes(entry.subject.bytes), "left out"});
    for (size_t i = 0; i < entry.reports.size(); ++i) {
      const SpeedReport& report = entry.reports[i];
      std::vector<std::string> row = {i == 0 ? entry.size : "", i == 0 ? weights : "",
                                      i == 0 ? human_bytes(entry.subject.bytes) : "", std::to_string(report.threads)};
      for (size_t k = 0; k < report.results.size(); ++k) {
        const SpeedResult& result = report.results[k];
        const SpeedResult* f16 = in_f16(entries, entry, i, k);
        row.push_back(style.bold(three_digits(result.speed.median())));
        row.push_back(f16 ? three_digits(times_of(result, *f16)) : "");
      }
      const SpeedResult& decode = report.results.back();
      const std::string ratio = fmt::format("{:.0f}%", 100 * decode.ratio());
      row.push_back(human_bytes(std::llround(decode.weight_bytes + decode.kv_bytes)));
      row.push_back(report.invalid() ? style.red(ratio + " !") : ratio);
      row.push_back(decode.joules.empty() ? "-" : three_digits(median(decode.joules)));
      table.row(std::move(row));
    }
    size = &entry.size;
  }
  common.print("{}\n", table.render(style));
  for (const PaperEntry& entry : entries) {
    if (!entry.left_out.empty()) common.print("left out: {}\n", entry.left_out);
  }
  common.print(
      "tok/s, medians of {}; of ceiling: decode beside what memory and arithmetic gave between the runs; J/token: "
      "decode, whole packages (RAPL), - where the system does not tell; kernels for {}\n",
      plural(speed.runs, "run"), describe(cpu_features()));
}

Json paper_json(const PaperRow& paper, const std::vector<PaperEntry>& entries, const SpeedOptions& speed) {
  Json rows = Json::array();
  for (const PaperEntry& entry : entries) {
    Json reports = Json::array();
    for (size_t i = 0; i < entry.reports.size(); ++i) {
      Json report = to_json(entry.reports[i]);
      for (size_t k = 0; k < entry.reports[i].results.size(); ++k) {
        const SpeedResult* f16 = in_f16(entries, entry, i, k);
        report["results"][k]["times_f16"] = f16 ? Json(times_of(entry.reports[i].results[k], *f16)) : Json();
      }
      reports.push_back(std::move(report));
    }
    rows.push_back({{"size", entry.size},
                    {"shape", entry.subject.name},
                    {"weights", entry.ternary ? "ternary" : "f16"},
                    {"types", entry.subject.types},
                    {"parameters", entry.subject.parameters},
                    {"bytes", entry.subject.bytes},
                    {"left_out", entry.left_out.empty() ? Json() : Json(entry.left_out)},
                    {"reports", std::move(reports)}});
  }
  return {{"paper", paper.name},       {"title", paper.title},     {"cpu", describe(cpu_features())},
          {"kv", info(speed.kv).name}, {"context", speed.context}, {"rows", std::move(rows)}};
}

void check_options(const BenchOptions& options) {
  const auto only = [](bool given, const char* what) {
    if (given) throw UsageError(fmt::format("{} does not go with --paper, which says what to measure", what));
  };
  only(!options.model.empty(), "a MODEL");
  only(!options.shape.empty(), "--shape");
  only(options.ternary || options.weights, "--weights");
  only(options.differential, "--attention");
  only(options.speed.skip_rate.has_value(), "--skip-rate");
  only(options.speed.generated == 0, "--gen 0");
}

}  // namespace

std::vector<std::string> paper_names() {
  std::vector<std::string> names;
  for (const PaperRow& row : papers()) names.emplace_back(row.name);
  return names;
}

void bench_paper(const BenchOptions& given, Common& common) {
  check_options(given);
  BenchOptions options = given;
  if (options.threads.empty()) options.threads = thread_counts(common.thread_count());
  const PaperRow& paper =
      *std::find_if(papers().begin(), papers().end(), [&](const PaperRow& row) { return options.paper == row.name; });
  std::vector<PaperEntry> entries;
  for (const std::string& size : chosen_sizes(paper, options.shapes)) {
    for (const bool ternary : {false, true}) {
      BenchOptions of = options;
      of.shape = paper.shape_prefix + lower(size);
      of.ternary = ternary;
      if (!ternary) of.weights = of.head = DType::kF16;
      entries.push_back({size, ternary, subject_of_shape(of, common), {}, {}});
    }
  }
  const auto show = [&] {
    if (common.json) {
      common.print_json(paper_json(paper, entries, options.speed));
    } else {
      print_paper_table(paper, entries, options.speed, common);
    }
  };
  try {
    for (size_t i = 0; i < entries.size(); ++i) measure_entry(entries[i], i, entries.size(), options, common);
  } catch (const Interrupted&) {
    // A table may take an hour: what was measured is worth having.
    std::erase_if(entries, [](const auto& entry) { return entry.left_out.empty() && entry.reports.empty(); });
    if (!entries.empty()) show();
    throw;
  }
  show();
  const bool invalid = std::any_of(entries.begin(), entries.end(), [](const PaperEntry& entry) {
    return std::any_of(entry.reports.begin(), entry.reports.end(), [](const auto& r) { return r.invalid(); });
  });
  if (invalid) {
    fail(
        "rows marked ! were faster than a measured ceiling, so they do not count: the machine was busy or changed its "
        "speed; measure those --shapes again with nothing else running, or with more --runs");
  }
}

}  // namespace pare::cli
