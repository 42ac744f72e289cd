#include "model/card.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "formats/names.h"

namespace pare {
namespace {

constexpr size_t kMaxCardBytes = size_t{4} << 20;

struct CardKey {
  const char* gguf;
  std::array<const char*, 3> yaml;  // the first is the one that is written; null: no more
  bool list;
};
constexpr std::array<CardKey, 10> kKeys{
    {{"general.name", {"model_name", "name", nullptr}, false},
     {"general.author", {"model_author", "author", "model_creator"}, false},
     {"general.organization", {"model_organization", "organization", nullptr}, false},
     {"general.version", {"model_version", "version", nullptr}, false},
     {"general.description", {"model_description", "description", nullptr}, false},
     {"general.license", {"license", nullptr, nullptr}, false},
     {"general.license.name", {"license_name", nullptr, nullptr}, false},
     {"general.license.link", {"license_link", nullptr, nullptr}, false},
     {"general.languages", {"language", "languages", nullptr}, true},
     {"general.tags", {"tags", nullptr, nullptr}, true}}};

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

/// A YAML scalar on one line; "" for what is none (a nested value, a block of text).
std::string scalar(std::string_view text) {
  text = trimmed(text);
  if (text.empty() || !is_printable(text)) return "";
  const char first = text[0];
  if (first == '"') {  // JSON's strings are YAML's, but for a few escapes
    const Json json = Json::parse(text, nullptr, false);
    return json.is_string() ? json.get<std::string>() : "";
  }
  if (first == '\'') {
    if (text.size() < 2 || text.back() != '\'') return "";
    std::string result(text.substr(1, text.size() - 2));
    for (size_t at = 0; (at = result.find("''", at)) != std::string::npos; ++at) result.erase(at, 1);
    return result;
  }
  if (std::string_view("|>&*!{[%@`#").find(first) != std::string_view::npos) return "";
  if (const size_t remark = text.find(" #"); remark != std::string_view::npos) text = trimmed(text.substr(0, remark));
  return text == "null" || text == "~" ? "" : std::string(text);
}

std::vector<std::string> scalars(std::string_view text) {
  text = trimmed(text);
  std::vector<std::string> found;
  const auto add = [&](std::string_view part) {
    if (std::string one = scalar(part); !one.empty()) found.push_back(std::move(one));
  };
  if (!text.starts_with('[') || !text.ends_with(']')) {
    add(text);
    return found;
  }
  text = text.substr(1, text.size() - 2);
  while (!text.empty()) {
    const size_t comma = text.find(',');
    add(text.substr(0, comma));
    text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
  }
  return found;
}

/// The lines between the first two "---"; none if the text does not start with one.
std::vector<std::string_view> front_matter(std::string_view text) {
  std::vector<std::string_view> lines;
  bool first = true;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (first && line != "---") return {};
    if (!first && line == "---") return lines;
    if (!first) lines.push_back(line);
    first = false;
  }
  return {};  // it never ends: not front matter
}

/// What a key of the front matter says: scalars beside it, or in lines "- scalar" below.
std::vector<std::string> values_of(const std::vector<std::string_view>& lines, std::string_view key) {
  for (size_t i = 0; i < lines.size(); ++i) {
    if (!lines[i].starts_with(key) || !lines[i].substr(key.size()).starts_with(':')) continue;
    const std::string_view beside = lines[i].substr(key.size() + 1);
    if (!trimmed(beside).empty()) return scalars(beside);
    std::vector<std::string> found;
    for (size_t below = i + 1; below < lines.size() && trimmed(lines[below]).starts_with("- "); ++below) {
      if (std::string one = scalar(trimmed(lines[below]).substr(2)); !one.empty()) found.push_back(std::move(one));
    }
    return found;
  }
  return {};
}

/// As plain text where no YAML reader can take it for something else: "no" is false to some.
std::string yaml(const std::string& text) {
  const auto plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.'; };
  const bool safe = text.size() > 3 && text != "true" && text != "null" && text != "false" && text[0] >= 'a' &&
                    text[0] <= 'z' && std::all_of(text.begin(), text.end(), plain);
  return safe ? text : Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

GgufMetadata parse_card(std::string_view text) {
  const std::vector<std::string_view> lines = front_matter(text);
  GgufMetadata card;
  for (const CardKey& key : kKeys) {
    std::vector<std::string> values;
    for (const char* name : key.yaml) {
      if (name && values.empty()) values = values_of(lines, name);
    }
    if (values.empty()) continue;
    if (key.list) {
      card.set(key.gguf, std::move(values));
    } else {
      card.set(key.gguf, std::move(values.front()));
    }
  }
  return card;
}

GgufMetadata read_card(const std::filesystem::path& folder) {
  std::error_code error;
  const auto path = folder / "README.md";
  const bool usable =
      std::filesystem::is_regular_file(path, error) && std::filesystem::file_size(path) <= kMaxCardBytes;
  return usable ? parse_card(read_text_file(path, kMaxCardBytes)) : GgufMetadata();
}

GgufMetadata card_of(const GgufMetadata& metadata) {
  GgufMetadata card;
  for (const auto& [key, value] : metadata.entries()) {
    if (key.starts_with("general.") && key != "general.architecture") card.set(key, value);
  }
  return card;
}

std::string write_card(const GgufMetadata& card) {
  std::string front, name;
  for (const CardKey& key : kKeys) {
    const GgufValue* value = card.find(key.gguf);
    if (!value) continue;
    if (const auto* text = std::get_if<std::string>(value); text && !text->empty()) {
      front += fmt::format("{}: {}\n", key.yaml[0], yaml(*text));
      if (std::string_view(key.gguf) == "general.name") name = *text;
    } else if (const auto* list = std::get_if<std::vector<std::string>>(value); list && !list->empty()) {
      front += fmt::format("{}:\n", key.yaml[0]);
      for (const std::string& entry : *list) front += fmt::format("- {}\n", yaml(entry));
    }
  }
  if (front.empty()) return "";
  return "---\n" + front + "---\n" + (is_printable(name) && !name.empty() ? "\n# " + name + "\n" : "");
}

}  // namespace pare
