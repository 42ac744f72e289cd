#pragma once
#include <CLI/CLI.hpp>

#include "common.h"

namespace pare::cli {

// A new command: a file with its add_<name>_command, a declaration here, and a row in kCommands.
void add_completion_command(CLI::App& app, Common& common);

struct CommandRow {
  const char* group;  // heading in `pare --help`
  void (*add)(CLI::App& app, Common& common);
};

inline constexpr CommandRow kCommands[] = {
    {"Help", add_completion_command},
};

}  // namespace pare::cli
