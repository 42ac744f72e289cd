#pragma once
#include <CLI/CLI.hpp>

#include "common.h"

namespace pare::cli {

// A new command: a file with its add_<name>_command, a declaration here, and a row in kCommands.
void add_inspect_command(CLI::App& app, Common& common);
void add_tokenize_command(CLI::App& app, Common& common);
void add_run_command(CLI::App& app, Common& common);
void add_analyze_command(CLI::App& app, Common& common);
void add_drop_command(CLI::App& app, Common& common);
void add_eval_command(CLI::App& app, Common& common);
void add_quantize_command(CLI::App& app, Common& common);
void add_convert_command(CLI::App& app, Common& common);
void add_bench_command(CLI::App& app, Common& common);
void add_shrink_command(CLI::App& app, Common& common);
void add_completion_command(CLI::App& app, Common& common);

struct CommandRow {
  const char* group;  // heading in `pare --help`
  void (*add)(CLI::App& app, Common& common);
};

inline constexpr CommandRow kCommands[] = {
    {"Look at a model", add_inspect_command},
    {"Look at a model", add_tokenize_command},
    {"Look at a model", add_analyze_command},
    {"Make it smaller", add_shrink_command},
    {"Make it smaller", add_drop_command},
    {"Make it smaller", add_quantize_command},
    {"Other formats", add_convert_command},
    {"Use it and measure it", add_run_command},
    {"Use it and measure it", add_eval_command},
    {"Use it and measure it", add_bench_command},
    {"Help", add_completion_command},
};

}  // namespace pare::cli
