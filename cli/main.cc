#include <cstdio>
#include <exception>
#include <filesystem>
#include <new>

#include "base/error.h"
#include "commands.h"
#include "common.h"
#include "format.h"
#include "help.h"

namespace {

using namespace pare;
using namespace pare::cli;

enum ExitCode { kOk = 0, kFailed = 1, kUsage = 2, kInterrupted = 130, kOutputClosed = 141 };  // 128 + signal, as shells

int complain(std::string_view message, int code) {
  fmt::print(stderr, "pare: {}\n", printable(message));
  return code;
}

void build(CLI::App& app, Common& common) {
  app.name("pare");
  app.formatter(help_formatter());
  app.set_help_flag("-h,--help", "Print this help");
  app.set_version_flag("-V,--version", "pare " PARE_VERSION, "Print the version");
  app.require_subcommand(0, 1);
  app.footer(
      "Examples:\n"
      "  pare inspect model.gguf                          # what is in it\n"
      "  pare quantize model/ --weights q8_0 -o q8.gguf   # half the size\n"
      "  pare run q8.gguf -p \"Once upon a time\"           # let it write\n"
      "\n"
      "Each command explains itself: pare COMMAND --help");
  for (const auto& row : kCommands) {
    row.add(app, common);
    app.get_subcommands([](const CLI::App*) { return true; }).back()->group(row.group);
  }
}

/// An unknown command is told apart from an unexpected argument, and the nearest known one is named.
std::string unknown_command(const CLI::App& app, std::string_view typed) {
  std::vector<std::string> names;
  for (const auto* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (typed == command->get_name()) return "";
    names.push_back(command->get_name());
  }
  const auto meant = nearest(typed, names);
  return fmt::format("unknown command '{}'; {}", typed,
                     meant ? fmt::format("did you mean '{}'?", *meant) : "see pare --help for the known ones");
}

int run(int argc, char** argv) {
  Common common;
  CLI::App app("Makes transformer models small and fast, and runs them.");
  build(app, common);
  if (argc < 2) {
    fmt::print(stderr, "{}", app.help());
    return kUsage;
  }
  if (argv[1][0] != '-') {
    const std::string wrong = unknown_command(app, argv[1]);
    if (!wrong.empty()) return complain(wrong, kUsage);
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    common.print(app.help());  // of the command, if one was named
  } catch (const CLI::CallForVersion&) {
    common.print("pare " PARE_VERSION "\n");
  } catch (const CLI::ParseError& error) {
    return complain(explain_usage(app, error), kUsage);
  }
  common.flush();
  return kOk;
}

}  // namespace

int main(int argc, char** argv) {
  handle_signals();
  try {
    return run(argc, argv);
  } catch (const OutputClosed&) {
    return kOutputClosed;
  } catch (const Interrupted&) {
    return kInterrupted;
  } catch (const UsageError& error) {
    return complain(error.what(), kUsage);
  } catch (const Error& error) {
    return complain(error.what(), kFailed);
  } catch (const std::bad_alloc&) {
    return complain("out of memory", kFailed);
  } catch (const std::exception& error) {
    return complain(error.what(), kFailed);
  } catch (...) {
    return complain("unknown failure", kFailed);
  }
}
