// pare inspect --kernels: what runs a model's matrices on this machine, and what else could.
#include "inspect_kernels.h"

#include <algorithm>
#include <filesystem>
#include <utility>
#include <vector>

#include "base/cpu.h"
#include "format.h"
#include "kernels/head.h"
#include "model/kernel_choice.h"
#include "model/ternary.h"

namespace pare::cli {
namespace {

/// Matrices of one shape, type and use: one kernel serves them all.
struct MatrixGroup {
  Shape shape;
  DType type = DType::kF32;
  bool ternary = false, output = false;
  std::vector<std::string> kinds;
  int64_t count = 0;
  Kernel kernel;
  std::string why;
  std::vector<std::string> others;  // that run here, too
  KernelChoice::Times times;        // of those that the choice was among, if it was measured

  std::string type_name() const { return fmt::format("{}{}", info(type).name, ternary ? " (ternary)" : ""); }
  int64_t bytes() const { return kernel.packing->packed_bytes(shape.rows(), shape.columns()); }
  double bytes_a_weight() const {
    return static_cast<double>(bytes()) / static_cast<double>(std::max<int64_t>(1, shape.count()));
  }
};

struct KernelReport {
  int threads = 1;
  std::vector<MatrixGroup> matrices;
};

std::vector<MatrixGroup> group_matrices(const Checkpoint& checkpoint) {
  std::vector<MatrixGroup> groups;
  for (const WeightTensor& weight : checkpoint.weights) {
    if (!info(weight.id.kind).matrix) continue;
    const bool ternary = is_ternary_weight(checkpoint.config, weight);
    const bool output =
        weight.id.kind == (checkpoint.config.tied_embedding ? WeightKind::kEmbedding : WeightKind::kOutput);
    auto found = std::find_if(groups.begin(), groups.end(), [&](const MatrixGroup& g) {
      return g.shape == weight.shape && g.type == weight.type && g.ternary == ternary && g.output == output;
    });
    if (found == groups.end()) {
      groups.push_back({weight.shape, weight.type, ternary, output, {}, 0, {}, {}, {}, {}});
      found = std::prev(groups.end());
    }
    const std::string kind = info(weight.id.kind).name;
    if (std::find(found->kinds.begin(), found->kinds.end(), kind) == found->kinds.end()) found->kinds.push_back(kind);
    ++found->count;
  }
  return groups;
}

void choose_by_table(MatrixGroup& group, KernelChoice& choice) {
  const kernels::Packing& packing = group.output ? kernels::output_packing_for(group.type, cpu_features())
                                                 : kernels::packing_for(group.type, cpu_features());
  group.kernel = choice.of(packing);
  group.why = packing.bounds                ? "in two parts: few logits need the second"
              : packing.in_place            ? "used in place in the file"
              : packing.multiply_one_stream ? "the best instruction set here, the faster way to read"
                                            : "the best instruction set here";
  group.times = choice.times(packing);
  if (packing.multiply_one_stream) group.others.push_back(Kernel{&packing, !group.kernel.one_stream}.name());
  const auto add_other = [&](const kernels::Packing* other) {
    if (other->source == group.type && other != &packing) group.others.push_back(other->name());
  };
  if (packing.bounds) {
    for (const kernels::Packing* other : kernels::split_packings(cpu_features())) add_other(other);
    return;
  }
  for (const kernels::KernelRow& row : kernels::kernel_table()) {
    if ((cpu_features() & row.required) == row.required) add_other(row.packing);
  }
}

KernelReport make_report(const Checkpoint& checkpoint, Common& common) {
  ThreadPool pool(common.thread_count());
  KernelReport report{pool.size(), group_matrices(checkpoint)};
  KernelChoice by_speed(pool, {}), choice(pool, common.kernel);
  for (KernelChoice* each : {&by_speed, &choice}) each->expect(matrix_weights(checkpoint.config));
  common.stoppable_progress().start("timing kernels", "shapes", static_cast<int64_t>(report.matrices.size()));
  int64_t done = 0;
  for (MatrixGroup& group : report.matrices) {
    common.stoppable_progress().update(++done);
    if (!group.ternary) {
      choose_by_table(group, choice);
      continue;
    }
    const int64_t columns = group.shape.columns();
    group.times = by_speed.times(columns);
    group.kernel = (common.kernel.empty() ? by_speed : choice).ternary(group.shape.rows(), columns);
    group.why = !common.kernel.empty()             ? "forced by --kernel"
                : group.times.by_speed.size() == 1 ? "the only layout here"
                                                   : "the fastest measured";
    for (const KernelTime& time : group.times.by_speed) {
      if (time.kernel != group.kernel) group.others.push_back(time.kernel.name());
    }
  }
  common.progress().finish();
  return report;
}

/// What became of times that were just measured.
std::string remembered_text() {
  const std::filesystem::path file = KernelChoice::cache_path();
  if (file.empty()) return "not remembered, as neither HOME nor XDG_CACHE_HOME is set";
  std::error_code error;
  if (std::filesystem::exists(file, error)) return "remembered in " + printable(file.string());
  return fmt::format("not remembered, as {} cannot be written", printable(file.string()));
}

/// What the choices were made by; empty if none was measured.
std::string times_text(const KernelReport& report, Common& common) {
  const Style& style = common.style();
  Table table(2);
  table.column("weights", Table::Align::kLeft).column("columns").column("kernel", Table::Align::kLeft);
  table.column("Gweights/s").column("of fastest");
  table.column("", Table::Align::kLeft).column("", Table::Align::kLeft).column("", Table::Align::kLeft);
  std::vector<std::pair<std::string, int64_t>> shown;
  for (const MatrixGroup& group : report.matrices) {
    if (group.times.by_speed.empty()) continue;
    const std::string weights = group.ternary                  ? "ternary"
                                : group.kernel.packing->bounds ? group.type_name() + ", in two parts"
                                                               : group.type_name();
    const std::pair what{weights, group.times.columns};
    if (std::find(shown.begin(), shown.end(), what) != shown.end()) continue;
    if (!shown.empty()) table.rule();
    shown.push_back(what);
    const double fastest = group.times.by_speed.front().weights_per_second;
    for (const KernelTime& time : group.times.by_speed) {
      const double share = time.weights_per_second / fastest;
      table.row({what.first, std::to_string(what.second), time.kernel.name(),
                 three_digits(time.weights_per_second / 1e9), fmt::format("{:.0f}%", 100 * share),
                 style.cyan(style.bar(share, 16)), time.kernel == group.kernel ? style.bold("chosen") : "",
                 group.times.remembered ? "remembered" : "measured now"});
    }
  }
  if (shown.empty()) return {};
  return fmt::format(
      "\n{}  Decoding of one token with {}, all weights from memory; times are {}.\n"
      "  One further down this machine's preferences is taken only if it is clearly faster ({:.0f}%).\n",
      table.render(style), plural(report.threads, "thread"), remembered_text(), 100 * (KernelChoice::kClearly - 1));
}

}  // namespace

std::string kernels_text(const Checkpoint& checkpoint, Common& common) {
  const KernelReport report = make_report(checkpoint, common);
  const Style& style = common.style();
  Table table(2);
  table.column("matrices", Table::Align::kLeft).column("count").column("shape", Table::Align::kLeft);
  table.column("type", Table::Align::kLeft).column("kernel", Table::Align::kLeft).column("bytes/weight");
  table.column("in memory").column("because it is", Table::Align::kLeft).column("others here", Table::Align::kLeft);
  for (const MatrixGroup& group : report.matrices) {
    table.row({fmt::format("{}", fmt::join(group.kinds, ", ")), std::to_string(group.count), group.shape.to_string(),
               group.type_name(), style.bold(group.kernel.name()), fmt::format("{:.3f}", group.bytes_a_weight()),
               human_bytes(group.count * group.bytes()), group.why, fmt::format("{}", fmt::join(group.others, ", "))});
  }
  return fmt::format("\n{}{}", table.render(style), times_text(report, common));
}

Json kernels_json(const Checkpoint& checkpoint, Common& common) {
  const KernelReport report = make_report(checkpoint, common);
  Json matrices = Json::array();
  for (const MatrixGroup& group : report.matrices) {
    Json timed = Json::array();
    for (const KernelTime& time : group.times.by_speed) {
      const char* layout = time.kernel.packing->layout;
      timed.push_back({{"kernel", time.kernel.name()},
                       {"layout", layout ? Json(layout) : Json()},
                       {"columns", group.times.columns},
                       {"weights_per_second", time.weights_per_second},
                       {"remembered", group.times.remembered}});
    }
    matrices.push_back({{"kinds", group.kinds},
                        {"count", group.count},
                        {"rows", group.shape.rows()},
                        {"columns", group.shape.columns()},
                        {"type", info(group.type).name},
                        {"ternary", group.ternary},
                        {"output", group.output},
                        {"kernel", group.kernel.name()},
                        {"layout", group.kernel.packing->layout ? Json(group.kernel.packing->layout) : Json()},
                        {"isa", group.kernel.packing->isa},
                        {"one_stream", group.kernel.one_stream},
                        {"in_place", group.kernel.packing->in_place},
                        {"bytes_per_weight", group.bytes_a_weight()},
                        {"bytes", group.count * group.bytes()},
                        {"why", group.why},
                        {"others", group.others},
                        {"timed", std::move(timed)}});
  }
  const std::string file = KernelChoice::cache_path().string();
  return {{"cpu", cpu_name()},
          {"features", describe(cpu_features())},
          {"threads", report.threads},
          {"cache", file.empty() ? Json() : Json(file)},
          {"matrices", std::move(matrices)}};
}

}  // namespace pare::cli
