#pragma once
#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pare::cli {

/// Help as pare prints it: what it does, usage, arguments, options by group, examples; wrapped to the terminal.
std::shared_ptr<CLI::FormatterBase> help_formatter();

/// The candidate that was probably meant: the nearest by edit distance (Damerau, transpositions cost one), if it is
/// near enough to be a slip.
std::optional<std::string> nearest(std::string_view typed, const std::vector<std::string>& candidates);

/// One line that says what is wrong with the command line, with what was probably meant.
std::string explain_usage(const CLI::App& app, const CLI::ParseError& error);

}  // namespace pare::cli
