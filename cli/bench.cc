// pare bench: how fast a model runs, and how near that is to what the machine can do.
#include <algorithm>
#include <cmath>

#include "base/cpu.h"
#include "base/statistics.h"
#include "bench.h"
#include "format.h"
#include "kernels/ternary.h"
#include "model/ternary.h"
#include "shapes.h"

namespace pare::cli {
namespace {

std::string type_names(const Checkpoint& checkpoint) {
  std::vector<std::pair<int64_t, std::string>> bytes;
  for (const auto& type : all_dtypes()) {
    int64_t sum = 0;
    for (const auto& weight : checkpoint.weights) sum += weight.type == type.type ? weight.bytes() : 0;
    // Norms and biases are float in every model: what is worth naming are the matrices.
    if (sum * 100 > checkpoint.bytes()) bytes.emplace_back(-sum, type.name);
  }
  std::sort(bytes.begin(), bytes.end());
  std::string out;
  for (const auto& entry : bytes) out += (out.empty() ? "" : ", ") + entry.second;
  return out;
}

/// Whether the matrices of a shape run in ternary kernels.
bool runs_as_ternary(const Subject& subject) {
  return kernels::is_ternary(subject.type) && quantizes_activations(subject.config);
}

/// Bytes of a shape's weights; ternary ones in a layout, or as stored if null.
int64_t random_bytes(const Subject& subject, const kernels::Packing* layout) {
  int64_t bytes = 0;
  for (const WeightId id : expected_weights(subject.config)) {
    const Shape shape = expected_shape(subject.config, id).value();
    if (layout && info(id.kind).matrix && id.layer >= 0) {
      bytes += layout->packed_bytes(shape.rows(), shape.columns());
      continue;
    }
    const DType type = !info(id.kind).matrix ? DType::kF32 : id.layer < 0 ? subject.head : subject.type;
    bytes += static_cast<int64_t>(static_cast<double>(shape.count()) * info(type).bits_per_value() / 8);
  }
  return bytes;
}

Subject from_file(const BenchOptions& options, Common& common) {
  Subject subject;
  subject.checkpoint = open_checkpoint(options.model, common.open);
  if (options.weights) {
    Plan plan;
    plan.store.push_back({});
    plan.store.back().type = *options.weights;
    std::vector<std::string> notes;
    subject.checkpoint = apply_plan(*subject.checkpoint, plan, &notes);
    for (const auto& note : notes) common.remark("note: " + note);
  }
  subject.name = subject.checkpoint->name;
  subject.kernel = common.kernel;
  subject.config = subject.checkpoint->config;
  subject.types = type_names(*subject.checkpoint);
  subject.parameters = subject.checkpoint->parameters();
  subject.bytes = subject.checkpoint->bytes();
  return subject;
}

std::string operation(const SpeedResult& result) {
  return fmt::format("{} {}", result.decode ? "decode" : "prefill", result.tokens);
}

/// What a result makes of the nearer ceiling, and that ceiling, as text.
std::pair<std::string, std::string> use_of(const SpeedResult& result, const Ceilings& ceilings) {
  const double speed = result.speed.median();
  if (result.memory_bound()) {
    const auto rate = [](double bytes) { return human_bytes(std::llround(bytes)) + "/s"; };
    return {rate(speed * (result.weight_bytes + result.kv_bytes)), rate(ceilings.read_bytes)};
  }
  const auto rate = [](double multiply_adds) { return fmt::format("{} G/s", three_digits(multiply_adds / 1e9)); };
  const double work = result.float_multiply_adds + result.int8_multiply_adds;
  return {rate(speed * work), rate(work / result.compute_seconds)};
}

void print_head(const Subject& subject, const SpeedResult& decode, Common& common) {
  const Style& style = common.style();
  common.print("{}  {}, {} parameters, {}\n", style.bold(printable(subject.name)), subject.types,
               human_count(static_cast<double>(subject.parameters)), human_bytes(subject.bytes));
  common.print("{}\n", style.dim(fmt::format(
                           "one decoded token reads {} of weights and {} of KV cache, and takes {} multiply-adds",
                           human_bytes(static_cast<int64_t>(decode.weight_bytes)),
                           human_bytes(static_cast<int64_t>(decode.kv_bytes)),
                           human_count(decode.float_multiply_adds + decode.int8_multiply_adds))));
}

void print_table(const std::vector<SpeedReport>& reports, Common& common) {
  const Style& style = common.style();
  Table table;
  table.column("threads").column("run", Table::Align::kLeft).column("tok/s").column("worst-best");
  table.column("bound by", Table::Align::kLeft)
      .column("used")
      .column("ceiling")
      .column("ratio")
      .column("", Table::Align::kLeft);
  for (const auto& report : reports) {
    if (&report != &reports.front()) table.rule();
    for (const auto& result : report.results) {
      const auto [used, ceiling] = use_of(result, report.ceilings);
      const double ratio = result.ratio();
      const std::string percent = fmt::format("{:.0f}%", 100 * ratio);
      table.row({std::to_string(report.threads), operation(result), style.bold(three_digits(result.speed.median())),
                 fmt::format("{}-{}", three_digits(result.speed.worst()), three_digits(result.speed.best())),
                 result.memory_bound() ? "memory reads" : "multiply-adds", used, ceiling,
                 result.impossible() ? style.red(percent) : percent, style.cyan(style.bar(ratio, 16))});
    }
  }
  common.print("\n{}", table.render(style));
}

}  // namespace

Subject subject_of_shape(const BenchOptions& options, Common& common) {
  Subject subject;
  const auto config = find_shape(options.shape);
  if (!config) throw UsageError(fmt::format("unknown shape '{}'; known are {}", options.shape, shape_names()));
  subject.name = options.shape;
  subject.config = *config;
  subject.kernel = common.kernel;
  subject.type = options.ternary ? DType::kTQ2_0 : options.weights.value_or(DType::kQ8_0);
  subject.types = fmt::format("{}, random weights", options.ternary ? "ternary" : info(subject.type).name);
  if (options.ternary) set_activations(subject.config, ActivationQuantization::kInt8Row);
  if (options.differential) {
    for (size_t i = 0; i < subject.config.layers.size(); ++i) {
      AttentionConfig& attention = *subject.config.layers[i].attention;
      attention.kind = AttentionKind::kDifferential;
      attention.differential.lambda_init = default_lambda_init(static_cast<int>(i));
    }
    subject.name += ", differential attention";
    check_config(subject.config, "--attention differential");
  }
  subject.head = options.head.value_or(options.ternary ? DType::kQ6_K : subject.type);
  if (subject.head != subject.type) {
    subject.types = fmt::format("{} and {} head", subject.types, info(subject.head).name);
  }
  for (const WeightId id : expected_weights(subject.config)) {
    subject.parameters += expected_shape(subject.config, id)->count();
  }
  subject.bytes = random_bytes(subject, nullptr);
  return subject;
}

std::optional<std::string> fit_into_memory(Subject& subject, const SpeedOptions& speed) {
  const int64_t available = available_memory();
  if (available <= 0) return std::nullopt;
  const int64_t beside = speed_memory(subject.config, subject.bytes, speed);
  std::vector<const kernels::Packing*> layouts = {nullptr};
  if (runs_as_ternary(subject)) {
    layouts = kernels::ternary_packings(cpu_features());
    std::erase_if(layouts, [&](const auto* p) { return !subject.kernel.empty() && subject.kernel != p->layout; });
    if (layouts.empty()) return std::nullopt;  // loading tells which there are
  }
  const auto bytes = [&](const kernels::Packing* layout) { return random_bytes(subject, layout); };
  std::sort(layouts.begin(), layouts.end(), [&](const auto* a, const auto* b) { return bytes(a) < bytes(b); });
  subject.bytes = bytes(layouts.front());
  if (subject.bytes + beside > available) {
    return fmt::format("{} in {} takes {} to measure, but only {} of memory are available", subject.name,
                       runs_as_ternary(subject) ? "ternary" : info(subject.type).name,
                       human_bytes(subject.bytes + beside), human_bytes(available));
  }
  // The choice by speed is free only where it may fall on any.
  if (layouts.front() && bytes(layouts.back()) + beside > available) subject.kernel = layouts.front()->layout;
  return std::nullopt;
}

Json to_json(const SpeedReport& report) {
  Json results = Json::array();
  for (const auto& result : report.results) {
    results.push_back({{"run", result.decode ? "decode" : "prefill"},
                       {"tokens", result.tokens},
                       {"tokens_per_second", result.speed.median()},
                       {"samples", result.speed.samples},
                       {"joules_per_token", result.joules.empty() ? Json() : Json(median(result.joules))},
                       {"weight_bytes_per_token", result.weight_bytes},
                       {"kv_bytes_per_token", result.kv_bytes},
                       {"float_multiply_adds_per_token", result.float_multiply_adds},
                       {"int8_multiply_adds_per_token", result.int8_multiply_adds},
                       {"bound_by", result.memory_bound() ? "memory" : "compute"},
                       {"memory_ratio", result.speed.median() * result.memory_seconds},
                       {"compute_ratio", result.speed.median() * result.compute_seconds},
                       {"ratio", result.ratio()}});
  }
  const auto& ceilings = report.ceilings;
  return {{"threads", report.threads},
          {"attention_threshold", report.attention_threshold},
          {"values_left_out", report.skipped},
          {"valid", !report.invalid()},
          {"ceilings",
           {{"read_bytes_per_second", ceilings.read_bytes},
            {"working_set_bytes", ceilings.working_set},
            {"fma_per_second", ceilings.fma},
            {"int8_multiply_adds_per_second", ceilings.int8 > 0 ? Json(ceilings.int8) : Json()}}},
          {"results", std::move(results)}};
}

SpeedReport measure(const Subject& subject, int threads, const BenchOptions& options, Progress& progress,
                    Common& common) {
  ThreadPool pool(threads);
  LoadOptions load;
  load.progress = &progress;
  load.kernel = subject.kernel;
  const auto model = subject.checkpoint ? Model::load(*subject.checkpoint, pool, load)
                                        : Model::random(subject.config, subject.type, pool, 1,
                                                        {subject.head, subject.kernel, &progress});
  model->set_attention_threshold(common.attention_threshold);
  SpeedOptions speed = options.speed;
  speed.ceiling_bytes = std::clamp(available_memory() / 4, speed.kUsualCeilingBytes, speed.kMostCeilingBytes);
  return measure_speed(*model, speed, progress, common.cancel(), peak_memory);
}

namespace {

void bench(BenchOptions& options, Common& common) {
  if (!options.paper.empty()) return bench_paper(options, common);
  if (!options.shapes.empty()) throw UsageError("--shapes is for --paper; --shape takes one");
  if (options.model.empty() == options.shape.empty()) {
    throw UsageError("give either a MODEL or --shape NAME (see pare bench --help)");
  }
  if (options.shape.empty() && (options.ternary || options.head)) {
    throw UsageError("--weights ternary and --head are for --shape; a MODEL's types change with --weights TYPE");
  }
  if (options.shape.empty() && options.differential) {
    throw UsageError("--attention is for --shape; a MODEL has its own kind of attention");
  }
  if (options.speed.skip_rate && common.attention_threshold > 0) {
    throw UsageError("--skip-rate seeks a threshold; give it or --attention-threshold");
  }
  if (options.threads.empty()) options.threads = {common.thread_count()};
  Subject subject = options.shape.empty() ? from_file(options, common) : subject_of_shape(options, common);
  if (!subject.checkpoint) {
    if (const auto why = fit_into_memory(subject, options.speed)) fail("{}", *why);
  }
  std::vector<SpeedReport> reports;
  for (const int threads : options.threads) {
    reports.push_back(measure(subject, threads, options, common.stoppable_progress(), common));
  }
  const bool invalid = std::any_of(reports.begin(), reports.end(), [](const auto& r) { return r.invalid(); });
  // Later thread counts keep the ceilings' memory of earlier ones in the peak.
  const int64_t peak = reports.front().peak_before_ceilings;
  if (common.json) {
    Json all = Json::array();
    for (const auto& report : reports) all.push_back(to_json(report));
    common.print_json({{"model", subject.name},
                       {"types", subject.types},
                       {"parameters", subject.parameters},
                       {"bytes", subject.bytes},
                       {"cpu", describe(cpu_features())},
                       {"kv", info(options.speed.kv).name},
                       {"context", options.speed.context},
                       {"top_k", options.speed.top_k},
                       {"peak_memory_bytes", peak},
                       {"valid", !invalid},
                       {"reports", std::move(all)}});
  } else {
    print_head(subject, reports.front().results.back(), common);
    print_table(reports, common);
    if (reports.front().attention_threshold > 0) {
      common.print("\nattention threshold {:.3g}: {:.1f}% of values left out\n", reports.front().attention_threshold,
                   100 * reports.front().skipped);
    }
    common.print("\npeak memory {}; kernels for {}; medians of {}\n", human_bytes(peak), describe(cpu_features()),
                 plural(options.speed.runs, "run"));
  }
  if (invalid) {
    fail(
        "a run was faster than a measured ceiling, so this measurement does not count: the machine was busy or changed "
        "its speed; run it again with nothing else running, or with more --runs");
  }
}

}  // namespace

void add_bench_command(CLI::App& app, Common& common) {
  auto options = std::make_shared<BenchOptions>();
  auto* command = add_command(
      app, common, "bench",
      "Measure speed beside the ceilings of the machine: tokens a second, bytes and multiply-adds",
      {"pare bench model.gguf", "pare bench model.gguf --threads-list 1,2,4 --prompt 512 --gen 128",
       "pare bench --shape llama-3.2-1b --weights q8_0", "pare bench model.gguf --weights q4_0 --context 4096 --json",
       "pare bench --paper bitnet --shapes 125M,3.8B,7B --threads-list 1,4"});
  command->add_option("MODEL", options->model, "A .gguf file or a Hugging Face folder");
  add_i2s_option(command, common);
  command
      ->add_option("--shape", options->shape, "Random weights of a published model's shape instead: " + shape_names())
      ->type_name("NAME");
  command
      ->add_option_function<std::string>(
          "-w,--weights",
          [options](const std::string& name) {
            options->ternary = name == "ternary";
            if (!options->ternary) options->weights = parse_dtype("--weights", name);
          },
          "Measure with matrices of this type (default for shapes: q8_0); with --shape also ternary, as BitNet b1.58 "
          "runs them")
      ->type_name("TYPE");
  add_dtype_option(command, "--head", options->head,
                   "With --shape: the type of the embedding and output matrices (default: as the others, q6_k with "
                   "ternary)");
  add_kernel_option(command, common);
  command
      ->add_option("--paper", options->paper,
                   "Measure a paper's whole table: bitnet is that of bitnet.cpp (arXiv 2410.16144), random weights in "
                   "F16 and ternary")
      ->type_name("NAME")
      ->check(CLI::IsMember(paper_names()));
  command->add_option("--shapes", options->shapes, "With --paper: only these of its sizes (125M,7B)")
      ->type_name("NAME,NAME,...")
      ->delimiter(',');
  command
      ->add_option_function<std::string>(
          "--attention", [options](const std::string& name) { options->differential = name == "differential"; },
          "With --shape: the kind of attention, of the same heads and parameters (default: softmax)")
      ->type_name("KIND")
      ->check(CLI::IsMember({"softmax", "differential"}));
  add_threshold_option(command, common);
  command
      ->add_option("--skip-rate", options->speed.skip_rate,
                   "Seek the attention threshold with which decoding leaves out this share of values")
      ->type_name("SHARE")
      ->check(CLI::Range(0.001, 0.999));
  const auto positive = CLI::Range(int64_t{1}, int64_t{1} << 24);
  auto& speed = options->speed;
  command->add_option("--prompt", speed.prompts, "Lengths of prompts to measure")
      ->type_name("N,N,...")
      ->delimiter(',')
      ->check(positive)
      ->default_str("128,512");
  command->add_option("--gen", speed.generated, "Tokens to decode in a run")
      ->type_name("N")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 24));
  command->add_option("--top-k", speed.top_k, "The largest logits wanted of a decoded token; 1: greedy, 0: all")
      ->type_name("K")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 24));
  command->add_option("--context", speed.context, "Tokens in the KV cache before decoding begins")
      ->type_name("N")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 24));
  command->add_option("--runs", speed.runs, "Runs of each, after one that does not count")
      ->type_name("N")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  command->add_option("--threads-list", options->threads, "Thread counts to measure (default: --threads)")
      ->type_name("N,N,...")
      ->delimiter(',')
      ->check(CLI::Range(1, 1024));
  add_kv_option(command, speed.kv);
  on_run(command, [options, &common, command] {
    if (!options->paper.empty()) {
      // The largest shapes take a second a token.
      if (command->count("--prompt") == 0) options->speed.prompts = {128};
      if (command->count("--gen") == 0) options->speed.generated = 32;
      if (command->count("--runs") == 0) options->speed.runs = 3;
    }
    bench(*options, common);
  });
}

}  // namespace pare::cli
