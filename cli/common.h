#pragma once
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/progress.h"
#include "base/thread_pool.h"
#include "model/model.h"
#include "terminal.h"

namespace pare::cli {

/// Standard output was closed by its reader (`pare ... | head`): nothing to report, the program just ends.
class OutputClosed : public std::exception {};

/// What the user typed makes no sense, though it parses: printed like an Error, exit code 2.
class UsageError : public Error {
 public:
  using Error::Error;
};

/// What every command takes, and the way to print. Commands hold a reference; values are set once arguments are parsed.
class Common {
 public:
  int threads = 0;                // --threads; 0 = the cores this process may use
  int64_t context = 0;            // --ctx; 0 = the command's own choice
  bool json = false;              // --json: only JSON on standard output
  bool quiet = false;             // --quiet: no progress, no remarks
  std::string kernel;             // --kernel: see WeightStore
  float attention_threshold = 0;  // --attention-threshold: see Model::set_attention_threshold
  OpenOptions open;               // --i2s

  Common();
  int thread_count() const;
  /// The context to use with a model: --ctx, else the smaller of the model's own and `most`.
  int64_t context_for(const ModelConfig& config, int64_t most) const;

  /// Draws on standard error; shows nothing with --quiet or --json.
  Progress& progress();
  /// The same for work that has no cancel flag of its own: its updates throw Interrupted after Ctrl-C.
  Progress& stoppable_progress();
  /// Set by Ctrl-C; a second one ends the program at once.
  const CancelFlag* cancel() const;

  /// Standard output; throws OutputClosed or Error if it cannot be written.
  void print(std::string_view text);
  template <class... Args>
  void print(fmt::format_string<Args...> format, Args&&... args) {
    print(std::string_view(fmt::format(format, std::forward<Args>(args)...)));
  }
  /// Makes what was printed visible now.
  void flush();
  void print_json(const Json& json);
  /// A line on standard error, left out with --quiet. Warnings come with --json too, remarks do not.
  void remark(std::string_view line);
  void warn(std::string_view line);
  /// How text on standard output may look (plain with --json).
  const Style& style() const { return style_; }

 private:
  Style style_;
  TerminalProgress progress_;

  class Stoppable : public Progress {
   public:
    explicit Stoppable(Common& common) : common_(common) {}
    void start(std::string_view what, std::string_view unit, int64_t total) override {
      common_.progress().start(what, unit, total);
    }
    void update(int64_t done, std::string_view note) override {
      throw_if_cancelled(common_.cancel());
      common_.progress().update(done, note);
    }
    void finish() override { common_.progress().finish(); }

   private:
    Common& common_;
  };
  Stoppable stoppable_{*this};
};

/// A command with the options every command takes. Examples: lines of "pare ...", each may end in "  # remark".
CLI::App* add_command(CLI::App& app, Common& common, const std::string& name, const std::string& description,
                      const std::vector<std::string>& examples);
/// What the command does; Errors leave through main.
void on_run(CLI::App* command, std::function<void()> action);

// Arguments that several commands share.
/// --i2s LAYOUT, for what opens a model.
void add_i2s_option(CLI::App* command, Common& common);
/// The model, and with it --i2s.
CLI::Option* add_model_argument(CLI::App* command, std::filesystem::path& path, Common& common);
CLI::Option* add_output_option(CLI::App* command, std::filesystem::path& path);
/// --kv TYPE: the type of the KV cache.
CLI::Option* add_kv_option(CLI::App* command, DType& type);
/// A type that the KV cache can hold, by name. Throws CLI::ValidationError.
DType parse_kv_type(const std::string& option, const std::string& name);
/// --for pare|llama.cpp: who is to read the file that is written.
CLI::Option* add_for_option(CLI::App* command, GgufReader& reader);
/// Before work begins: throws UsageError for a reader that does not read such an output, Error for a model it cannot
/// run.
void check_reader(const Checkpoint& checkpoint, const std::filesystem::path& output, GgufReader reader);
/// Writes the result of a command, with its progress, and remarks on what stock llama.cpp would need.
void write_output(const Checkpoint& checkpoint, const std::filesystem::path& output, GgufReader reader, Common& common);
/// A storage type by name. Throws CLI::ValidationError.
DType parse_dtype(const std::string& option, const std::string& name);
/// --kernel NAME, for what runs a model.
CLI::Option* add_kernel_option(CLI::App* command, Common& common);
/// --attention-threshold TAU, for what runs a model.
CLI::Option* add_threshold_option(CLI::App* command, Common& common);
/// An option whose value is the name of a storage type.
CLI::Option* add_dtype_option(CLI::App* command, const std::string& name, std::optional<DType>& type,
                              const std::string& description);

/// A checkpoint made ready to run.
struct LoadedModel {
  Checkpoint checkpoint;
  std::unique_ptr<ThreadPool> pool;  // outlives the model
  std::unique_ptr<Model> model;
  /// Null if the model has none.
  std::unique_ptr<Tokenizer> tokenizer;
  /// Throws Error naming the model if it has no tokenizer.
  const Tokenizer& need_tokenizer() const;
};
LoadedModel load_model(const std::filesystem::path& path, Common& common);
LoadedModel load_model(Checkpoint checkpoint, Common& common);

/// All of standard input; throws Error if it is unreadable or over max_bytes, Interrupted on Ctrl-C.
std::string read_stdin(Common& common, size_t max_bytes = size_t{1} << 30);

/// Peak resident memory of this process so far, in bytes; 0 where the system does not say.
int64_t peak_memory();

/// Memory that can still be taken without swapping, in bytes; 0 where the system does not say.
int64_t available_memory();

/// Catches Ctrl-C and termination; ignores SIGPIPE, since writes report it.
void handle_signals();

}  // namespace pare::cli
