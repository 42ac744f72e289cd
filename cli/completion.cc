// Completion scripts written from the tree of commands itself, so that they cannot drift from it.
#include <algorithm>
#include <string>
#include <vector>

#include "commands.h"

namespace pare::cli {
namespace {

struct CompletedOption {
  std::vector<std::string> names;  // "-n", "--tokens"
  std::string description;
  bool takes_value = false;
};

struct CompletedCommand {
  std::string name, description;
  std::vector<CompletedOption> options;
  std::vector<std::string> words;  // values of its arguments; empty: files
};

std::vector<CompletedCommand> tree(const CLI::App& app) {
  std::vector<CompletedCommand> commands;
  for (const auto* command : app.get_subcommands([](const CLI::App* c) { return !c->get_group().empty(); })) {
    CompletedCommand found;
    found.name = command->get_name();
    found.description = command->get_description().substr(0, command->get_description().find_first_of(".:"));
    for (const auto* option : command->get_options([](const CLI::Option* o) { return !o->get_group().empty(); })) {
      if (option->get_positional()) continue;
      CompletedOption named;
      for (const auto& name : option->get_snames()) named.names.push_back("-" + name);
      for (const auto& name : option->get_lnames()) named.names.push_back("--" + name);
      named.description = option->get_description();
      named.takes_value = option->get_type_size() != 0;
      found.options.push_back(std::move(named));
    }
    if (found.name == "completion") found.words = {"bash", "zsh", "fish"};
    commands.push_back(std::move(found));
  }
  return commands;
}

std::string all_names(const CompletedCommand& command) {
  std::string out;
  for (const auto& option : command.options) {
    for (const auto& name : option.names) out += (out.empty() ? "" : " ") + name;
  }
  return out;
}

std::string join(const std::vector<std::string>& words, const char* between) {
  return fmt::format("{}", fmt::join(words, between));
}

/// Text inside single quotes of any of the shells.
std::string quoted(std::string text) {
  std::replace(text.begin(), text.end(), '\'', '"');
  std::replace(text.begin(), text.end(), '\\', '/');
  return "'" + text + "'";
}

std::string bash(const std::vector<CompletedCommand>& commands) {
  std::string names, cases;
  for (const auto& command : commands) {
    names += (names.empty() ? "" : " ") + command.name;
    cases += fmt::format("    {}) options='{}'; words='{}' ;;\n", command.name, all_names(command),
                         join(command.words, " "));
  }
  return "# bash completion of pare: source it, or save it as /usr/share/bash-completion/completions/pare\n"
         "_pare() {\n"
         "  local word=${COMP_WORDS[COMP_CWORD]} options= words=\n"
         "  COMPREPLY=()\n"
         "  if ((COMP_CWORD == 1)); then\n"
         "    COMPREPLY=($(compgen -W '" +
         names +
         " --help --version' -- \"$word\"))\n"
         "    return\n"
         "  fi\n"
         "  case ${COMP_WORDS[1]} in\n" +
         cases +
         "    *) return ;;\n"
         "  esac\n"
         "  if [[ $word == -* ]]; then\n"
         "    COMPREPLY=($(compgen -W \"$options\" -- \"$word\"))\n"
         "  elif [[ -n $words ]]; then\n"
         "    COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
         "  else\n"
         "    compopt -o filenames 2>/dev/null\n"
         "    mapfile -t COMPREPLY < <(compgen -f -- \"$word\")\n"
         "  fi\n"
         "}\n"
         "complete -F _pare pare\n";
}

std::string zsh(const std::vector<CompletedCommand>& commands) {
  std::string out = "#compdef pare\n# zsh completion of pare: save it as _pare in a folder of $fpath\n_pare() {\n";
  out += "  local -a commands\n  commands=(\n";
  for (const auto& command : commands) {
    std::string what = command.description;
    std::replace(what.begin(), what.end(), ':', ',');
    out += "    " + quoted(command.name + ":" + what) + "\n";
  }
  out += "  )\n  if ((CURRENT == 2)); then\n    _describe 'command' commands\n    return\n  fi\n  case $words[2] in\n";
  for (const auto& command : commands) {
    out += fmt::format("    {})\n      shift words; ((CURRENT--))\n      _arguments", command.name);
    for (const auto& option : command.options) {
      std::string what = option.description;
      for (auto& c : what) {
        if (c == '[' || c == ']' || c == ':') c = ' ';
      }
      for (const auto& name : option.names) {
        out += " \\\n        " + quoted(fmt::format("{}[{}]{}", name, what, option.takes_value ? ":value:_files" : ""));
      }
    }
    out += command.words.empty() ? " \\\n        '*:file:_files'"
                                 : fmt::format(" \\\n        '*:word:({})'", join(command.words, " "));
    out += "\n      ;;\n";
  }
  out +=
      "  esac\n}\nif [[ $zsh_eval_context[-1] == loadautofunc ]]; then\n  _pare \"$@\"\nelse\n  compdef _pare "
      "pare\nfi\n";
  return out;
}

std::string fish(const std::vector<CompletedCommand>& commands) {
  std::string out = "# fish completion of pare: save it as ~/.config/fish/completions/pare.fish\n";
  for (const auto& command : commands) {
    out += fmt::format("complete -c pare -n __fish_use_subcommand -f -a {} -d {}\n", command.name,
                       quoted(command.description));
  }
  for (const auto& command : commands) {
    const std::string here = fmt::format("complete -c pare -n '__fish_seen_subcommand_from {}'", command.name);
    if (!command.words.empty()) out += fmt::format("{} -f -a '{}'\n", here, join(command.words, " "));
    for (const auto& option : command.options) {
      std::string line = here;
      for (const auto& name : option.names) {
        line += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
      }
      out += line + (option.takes_value ? " -r" : "") + " -d " + quoted(option.description) + "\n";
    }
  }
  return out;
}

}  // namespace

void add_completion_command(CLI::App& app, Common& common) {
  auto shell = std::make_shared<std::string>();
  auto* command = add_command(app, common, "completion", "Print a completion script for a shell",
                              {"pare completion bash > ~/.local/share/bash-completion/completions/pare",
                               "pare completion zsh > ~/.zfunc/_pare", "pare completion fish | source"});
  command->add_option("SHELL", *shell, "bash, zsh or fish")->required()->check(CLI::IsMember({"bash", "zsh", "fish"}));
  on_run(command, [&app, &common, shell] {
    const auto commands = tree(app);
    const std::string script = *shell == "bash" ? bash(commands) : *shell == "zsh" ? zsh(commands) : fish(commands);
    if (common.json) {
      common.print_json({{"shell", *shell}, {"script", script}});
    } else {
      common.print(script);
    }
  });
}

}  // namespace pare::cli
