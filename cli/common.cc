#include "common.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <future>

#include "base/cpu.h"
#include "format.h"
#include "kernels/attention.h"
#include "model/families/family.h"

namespace pare::cli {
namespace {

constexpr const char* kCommonGroup = "Options of every command";

CancelFlag cancelled{false};
static_assert(CancelFlag::is_always_lock_free, "a signal handler sets it");

extern "C" void on_signal(int) { cancelled.store(true, std::memory_order_relaxed); }

std::string footer(const std::vector<std::string>& examples) {
  std::string out = "Examples:";
  for (const auto& example : examples) out += "\n  " + example;
  return out;
}

/// A line "Name:   123 kB" of a file in /proc, in bytes; 0 if it is not there.
int64_t proc_bytes(const char* file, std::string_view name) {
  std::ifstream lines(file);
  std::string line;
  while (std::getline(lines, line)) {
    if (line.starts_with(name)) return std::strtoll(line.c_str() + name.size(), nullptr, 10) * 1024;
  }
  return 0;
}

/// What the cgroup of this process may still take: memory it holds for files counts as free, since it gives that up
/// when it needs to. Nothing where there is no limit.
std::optional<int64_t> cgroup_memory_left() {
  const auto number = [](const char* file) {
    int64_t value = -1;
    std::ifstream(file) >> value;  // "max" leaves -1
    return value;
  };
  const int64_t most = number("/sys/fs/cgroup/memory.max"), used = number("/sys/fs/cgroup/memory.current");
  if (most < 0 || used < 0) return std::nullopt;
  int64_t files = 0;
  std::ifstream statistics("/sys/fs/cgroup/memory.stat");
  for (auto [name, value] = std::pair<std::string, int64_t>(); statistics >> name >> value;) {
    if (name == "inactive_file" || name == "active_file") files += value;
  }
  return std::max<int64_t>(0, most - used + files);
}

/// Throws what a failed write to standard output means.
[[noreturn]] void output_failed(int why) {
  if (why == EPIPE) throw OutputClosed();
  fail("standard output: cannot write: {}", std::strerror(why));
}

}  // namespace

Common::Common() : style_(Style::of(STDOUT_FILENO)) {}

int Common::thread_count() const { return threads > 0 ? threads : usable_cores(); }

int64_t Common::context_for(const ModelConfig& config, int64_t most) const {
  return context > 0 ? context : std::min(config.context, most);
}

Progress& Common::progress() {
  if (quiet || json) return no_progress();
  return progress_;
}

Progress& Common::stoppable_progress() { return stoppable_; }

const CancelFlag* Common::cancel() const { return &cancelled; }

void Common::print(std::string_view text) {
  errno = 0;
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) output_failed(errno);
}

void Common::flush() {
  errno = 0;
  if (std::fflush(stdout) != 0) output_failed(errno);
}

void Common::print_json(const Json& value) {
  print(value.dump(2, ' ', false, Json::error_handler_t::replace));
  print("\n");
}

void Common::remark(std::string_view line) {
  if (!json) warn(line);
}

void Common::warn(std::string_view line) {
  if (quiet) return;
  progress_.clear();
  fmt::print(stderr, "{}\n", line);
}

CLI::App* add_command(CLI::App& app, Common& common, const std::string& name, const std::string& description,
                      const std::vector<std::string>& examples) {
  CLI::App* command = app.add_subcommand(name, description);
  command->footer(footer(examples));
  command->set_help_flag();
  command->add_option("--threads", common.threads, "Threads to use (default: the cores this process may use)")
      ->type_name("N")
      ->check(CLI::Range(1, 1024))
      ->group(kCommonGroup);
  command->add_option("--ctx", common.context, "Context length in tokens (default: depends on model and command)")
      ->type_name("N")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30))
      ->group(kCommonGroup);
  command->add_flag("--json", common.json, "Print only JSON on standard output")->group(kCommonGroup);
  command->add_flag("-q,--quiet", common.quiet, "No progress and no remarks")->group(kCommonGroup);
  command->set_help_flag("-h,--help", "Print this help")->group(kCommonGroup);
  return command;
}

void on_run(CLI::App* command, std::function<void()> action) { command->callback(std::move(action)); }

void add_i2s_option(CLI::App* command, Common& common) {
  command
      ->add_option_function<std::string>(
          "--i2s",
          [&common](const std::string& name) {
            common.open.i2s = find_i2s_layout(name);
            if (!common.open.i2s) throw CLI::ValidationError("--i2s", fmt::format("'{}' is not x86 or arm", name));
          },
          "Layout of I2_S weights in a file of bitnet.cpp: x86, or arm if it was made on such a machine")
      ->type_name("LAYOUT");
}

CLI::Option* add_model_argument(CLI::App* command, std::filesystem::path& path, Common& common) {
  add_i2s_option(command, common);
  return command->add_option("MODEL", path, "A .gguf file or a Hugging Face folder")->required();
}

CLI::Option* add_output_option(CLI::App* command, std::filesystem::path& path) {
  return command->add_option("-o,--output", path, "Where to write: NAME.gguf, or a new folder (Hugging Face layout)")
      ->type_name("PATH")
      ->required();
}

DType parse_kv_type(const std::string& option, const std::string& name) {
  const DTypeInfo* found = find_dtype(name);
  const auto types = kernels::kv_types();
  if (!found || std::find(types.begin(), types.end(), found->type) == types.end()) {
    throw CLI::ValidationError(option, fmt::format("'{}' is not one of {}", name, kernels::kv_type_names()));
  }
  return found->type;
}

CLI::Option* add_kv_option(CLI::App* command, DType& type) {
  return command
      ->add_option_function<std::string>(
          "--kv", [&type](const std::string& name) { type = parse_kv_type("--kv", name); },
          "Type of the KV cache: " + kernels::kv_type_names() + " (half the memory of f16)")
      ->type_name("TYPE")
      ->default_str(info(type).name);
}

CLI::Option* add_for_option(CLI::App* command, GgufReader& reader) {
  return command
      ->add_option_function<std::string>(
          "--for",
          [&reader](const std::string& name) {
            if (name != "pare" && name != "llama.cpp") {
              throw CLI::ValidationError("--for", fmt::format("'{}' is not one of pare, llama.cpp", name));
            }
            reader = name == "pare" ? GgufReader::kPare : GgufReader::kLlamaCpp;
          },
          "Who reads the .gguf file: pare, or llama.cpp as it is, with dropped parts too")
      ->type_name("READER")
      ->default_str("pare");
}

void check_reader(const Checkpoint& checkpoint, const std::filesystem::path& output, GgufReader reader) {
  if (reader == GgufReader::kPare) return;
  if (output.extension() != ".gguf") {
    throw UsageError(fmt::format("--for llama.cpp writes a .gguf file, not {}", output.string()));
  }
  gguf_file_bytes(checkpoint, reader);  // refuses what the writing would refuse
}

void write_output(const Checkpoint& checkpoint, const std::filesystem::path& output, GgufReader reader,
                  Common& common) {
  write_checkpoint(checkpoint, output, {.progress = &common.progress(), .cancel = common.cancel(), .reader = reader});
  const bool other_form = family_by_name(checkpoint.config.family).gguf_deci != nullptr;
  if (reader == GgufReader::kPare && output.extension() == ".gguf" && other_form && layers_differ(checkpoint.config)) {
    common.remark(
        "note: layers differ in this file, which stock llama.cpp reads only when it is written with --for llama.cpp");
  }
}

DType parse_dtype(const std::string& option, const std::string& name) {
  const DTypeInfo* found = find_dtype(name);
  if (!found) throw CLI::ValidationError(option, fmt::format("'{}' is not one of {}", name, dtype_names()));
  return found->type;
}

CLI::Option* add_kernel_option(CLI::App* command, Common& common) {
  return command
      ->add_option("--kernel", common.kernel,
                   "Layout of ternary weights in memory: i2, t3, ... (default: the fastest here, see "
                   "pare inspect --kernels)")
      ->type_name("NAME");
}

CLI::Option* add_threshold_option(CLI::App* command, Common& common) {
  return command
      ->add_option(
          "--attention-threshold", common.attention_threshold,
          "Leave out values whose attention weights are below this part of the largest of their row, and take the mean "
          "of 64 tokens' for them: faster on long contexts, and not the same result (see pare analyze; default: 0, "
          "nothing is left out)")
      ->type_name("TAU")
      ->check(CLI::Range(0.0, 0.999999));
}

CLI::Option* add_dtype_option(CLI::App* command, const std::string& name, std::optional<DType>& type,
                              const std::string& description) {
  return command
      ->add_option_function<std::string>(
          name, [&type, name](const std::string& text) { type = parse_dtype(name, text); },
          description + ": " + dtype_names())
      ->type_name("TYPE");
}

const Tokenizer& LoadedModel::need_tokenizer() const {
  if (!tokenizer) fail("{}: the model has no tokenizer", checkpoint.path.string());
  return *tokenizer;
}

LoadedModel load_model(const std::filesystem::path& path, Common& common) {
  return load_model(open_checkpoint(path, common.open), common);
}

LoadedModel load_model(Checkpoint checkpoint, Common& common) {
  LoadedModel loaded;
  loaded.checkpoint = std::move(checkpoint);
  loaded.pool = std::make_unique<ThreadPool>(common.thread_count());
  LoadOptions options;
  options.progress = &common.stoppable_progress();
  options.kernel = common.kernel;
  options.attention_threshold = common.attention_threshold;
  std::future<std::unique_ptr<Tokenizer>> tokenizer;
  if (loaded.checkpoint.tokenizer) {
    // Meanwhile, since a large vocabulary takes a tenth of a second.
    tokenizer = std::async(std::launch::async,
                           [data = loaded.checkpoint.tokenizer] { return std::make_unique<Tokenizer>(*data); });
  }
  loaded.model = Model::load(loaded.checkpoint, *loaded.pool, options);
  if (tokenizer.valid()) loaded.tokenizer = tokenizer.get();
  throw_if_cancelled(common.cancel());
  return loaded;
}

std::string read_stdin(Common& common, size_t max_bytes) {
  std::string text;
  char chunk[1 << 16];
  while (true) {
    throw_if_cancelled(common.cancel());
    pollfd input{STDIN_FILENO, POLLIN, 0};
    if (::poll(&input, 1, -1) < 0 && errno == EINTR) continue;  // a signal ends this wait, where reads go on
    const ssize_t got = ::read(STDIN_FILENO, chunk, sizeof chunk);
    if (got < 0) fail("standard input: cannot read: {}", std::strerror(errno));
    if (got == 0) return text;
    if (text.size() + static_cast<size_t>(got) > max_bytes) {
      fail("standard input: more than the {} expected at most", human_bytes(static_cast<int64_t>(max_bytes)));
    }
    text.append(chunk, static_cast<size_t>(got));
  }
}

int64_t peak_memory() { return proc_bytes("/proc/self/status", "VmHWM:"); }

int64_t available_memory() {
  const int64_t available = proc_bytes("/proc/meminfo", "MemAvailable:");
  return std::min(available, cgroup_memory_left().value_or(available));
}

void handle_signals() {
  // One chance to stop cleanly: the handler is gone after the first signal. With SA_RESTART what is being written then
  // is written whole.
  struct sigaction stop {};
  stop.sa_handler = on_signal;
  stop.sa_flags = static_cast<int>(SA_RESETHAND | SA_RESTART);
  sigemptyset(&stop.sa_mask);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction now {};
    // A signal that the parent set to be ignored (nohup) stays ignored.
    if (sigaction(signal, nullptr, &now) == 0 && now.sa_handler != SIG_IGN) sigaction(signal, &stop, nullptr);
  }
  std::signal(SIGPIPE, SIG_IGN);
}

}  // namespace pare::cli
