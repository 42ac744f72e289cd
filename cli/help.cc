#include "help.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "format.h"
#include "terminal.h"

namespace pare::cli {
namespace {

constexpr int kNameColumn = 26;

/// Text broken at spaces into lines of at most `width` columns, all but the first indented.
std::string wrap(const std::string& text, int indent, int width) {
  std::string out;
  int used = 0;
  size_t at = 0;
  while (at < text.size()) {
    const size_t end = std::min(text.find(' ', at), text.size());
    const std::string word = text.substr(at, end - at);
    const int columns = display_width(word);
    if (used > 0 && used + 1 + columns > width) {
      out += "\n" + std::string(static_cast<size_t>(indent), ' ');
      used = 0;
    }
    if (used > 0) out += ' ', ++used;
    out += word;
    used += columns;
    at = end + 1;
  }
  return out;
}

class HelpFormatter : public CLI::FormatterBase {
 public:
  std::string make_help(const CLI::App* app, std::string name, CLI::AppFormatMode) const override {
    const Style style = Style::of(STDOUT_FILENO);
    const int width = std::clamp(terminal_width(STDOUT_FILENO), 60, 110);
    std::string out = wrap(app->get_description(), 0, width) + "\n\n";
    out += style.bold("Usage:") + " " + usage(app, name) + "\n";
    arguments(app, style, width, out);
    commands(app, style, width, out);
    options(app, style, width, out);
    const std::string footer = app->get_footer();
    if (footer.starts_with("Examples:")) {
      out += "\n" + style.bold("Examples:") + footer.substr(9) + "\n";
    } else if (!footer.empty()) {
      out += "\n" + footer + "\n";
    }
    return out;
  }

 private:
  static std::string usage(const CLI::App* app, const std::string& name) {
    std::string out = name.empty() ? app->get_name() : name;
    if (!app->get_subcommands([](const CLI::App*) { return true; }).empty()) out += " COMMAND";
    for (const auto* option : app->get_options([](const CLI::Option* o) { return o->get_positional(); })) {
      out += " " + (option->get_required() ? option->get_name(true) : "[" + option->get_name(true) + "]");
    }
    for (const auto* option : app->get_options([](const CLI::Option* o) { return !o->get_positional(); })) {
      if (option->get_required()) out += " " + shortest(option) + " " + value_name(option);
    }
    return out + " [OPTIONS]";
  }

  /// CLI11 appends what the checks of an option say; the description tells that better.
  static std::string value_name(const CLI::Option* option) {
    const std::string name = option->get_type_name();
    return name.substr(0, name.find(':'));
  }

  static std::string shortest(const CLI::Option* option) {
    if (!option->get_snames().empty()) return "-" + option->get_snames().front();
    return option->get_lnames().empty() ? option->get_name() : "--" + option->get_lnames().front();
  }

  static void entry(const std::string& left, const std::string& right, int width, std::string& out) {
    std::string line = "  " + left;
    if (display_width(line) > kNameColumn - 2) {
      out += line + "\n" + std::string(kNameColumn, ' ');
    } else {
      out += line + std::string(static_cast<size_t>(kNameColumn - display_width(line)), ' ');
    }
    out += wrap(right, kNameColumn, width - kNameColumn) + "\n";
  }

  static void arguments(const CLI::App* app, const Style& style, int width, std::string& out) {
    const auto found =
        app->get_options([](const CLI::Option* o) { return o->get_positional() && !o->get_group().empty(); });
    if (!found.empty()) out += "\n" + style.bold("Arguments:") + "\n";
    for (const auto* option : found) entry(option->get_name(true), option->get_description(), width, out);
  }

  static void commands(const CLI::App* app, const Style& style, int width, std::string& out) {
    std::vector<std::string> groups;
    const auto all = app->get_subcommands([](const CLI::App* c) { return !c->get_group().empty(); });
    for (const auto* command : all) {
      if (std::find(groups.begin(), groups.end(), command->get_group()) == groups.end()) {
        groups.push_back(command->get_group());
      }
    }
    for (const auto& group : groups) {
      out += "\n" + style.bold(group + ":") + "\n";
      for (const auto* command : all) {
        if (command->get_group() != group) continue;
        std::string what = command->get_description();
        what = what.substr(0, what.find_first_of(".:"));  // the rest is told in the command's own help
        entry(command->get_name(), what, width, out);
      }
    }
  }

  static void options(const CLI::App* app, const Style& style, int width, std::string& out) {
    auto groups = app->get_groups();
    // A command's own options come first, those of every command last.
    std::stable_partition(groups.begin(), groups.end(),
                          [](const std::string& g) { return g != "Options of every command"; });
    for (const auto& group : groups) {
      if (group.empty()) continue;
      const auto found =
          app->get_options([&](const CLI::Option* o) { return o->get_group() == group && !o->get_positional(); });
      if (found.empty()) continue;
      out += "\n" + style.bold(group + ":") + "\n";
      for (const auto* option : found) {
        std::string left = option->get_name(false, true);
        for (size_t comma = left.find(','); comma != std::string::npos; comma = left.find(',', comma + 2)) {
          left.replace(comma, 1, ", ");
        }
        if (option->get_type_size() != 0) left += " " + value_name(option);
        std::string right = option->get_description();
        if (!option->get_default_str().empty()) right += fmt::format(" (default: {})", option->get_default_str());
        entry(left, right, width, out);
      }
    }
  }
};

int edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<int>> cost(a.size() + 1, std::vector<int>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        cost[i][j] = static_cast<int>(i + j);
        continue;
      }
      const int change = a[i - 1] == b[j - 1] ? 0 : 1;
      cost[i][j] = std::min({cost[i - 1][j] + 1, cost[i][j - 1] + 1, cost[i - 1][j - 1] + change});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
      }
    }
  }
  return cost[a.size()][b.size()];
}

std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const auto* option : app.get_options([](const CLI::Option* o) { return !o->get_group().empty(); })) {
    for (const auto& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

}  // namespace

std::shared_ptr<CLI::FormatterBase> help_formatter() { return std::make_shared<HelpFormatter>(); }

std::optional<std::string> nearest(std::string_view typed, const std::vector<std::string>& candidates) {
  std::optional<std::string> best;
  int best_distance = typed.size() <= 3 ? 2 : static_cast<int>(typed.size()) / 3 + 2;
  for (const auto& candidate : candidates) {
    int distance = edit_distance(typed.substr(0, 64), candidate);
    // A word cut short is a likelier slip than its distance says.
    if (typed.size() >= 2 && candidate.starts_with(typed)) distance = 1;
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

std::string explain_usage(const CLI::App& app, const CLI::ParseError& error) {
  const auto chosen = app.get_subcommands();
  const CLI::App& command = chosen.empty() ? app : *chosen.front();
  const std::string name = chosen.empty() ? "pare" : "pare " + command.get_name();
  std::string message = printable(error.what());
  if (dynamic_cast<const CLI::ExtrasError*>(&error)) {
    const auto extra = command.remaining(true);
    const std::string typed = extra.empty() ? "" : extra.front();
    if (typed.starts_with("-")) {
      message = fmt::format("unknown option {}", printable(typed));
      const auto meant = nearest(typed.substr(0, typed.find('=')), option_names(command));
      if (meant) message += fmt::format("; did you mean {}?", *meant);
    } else {
      message = fmt::format("unexpected argument '{}'", printable(typed));
    }
  } else if (dynamic_cast<const CLI::ArgumentMismatch*>(&error)) {
    message = message.substr(0, message.find(": ")) + " needs a value";
  } else if (dynamic_cast<const CLI::RequiredError*>(&error)) {
    if (message.ends_with(" is required")) message = "missing " + message.substr(0, message.size() - 12);
  }
  return fmt::format("{} (see {} --help)", message, name);
}

}  // namespace pare::cli
