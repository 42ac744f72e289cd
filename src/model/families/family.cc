#include "model/families/family.h"

#include <array>
#include <charconv>

#include "base/error.h"
#include "base/json.h"

namespace pare {
namespace {

constexpr std::array<const Family*, 3> kFamilies{&kLlamaFamily, &kDiffLlamaFamily, &kBitnetFamily};

/// What else stands for a family: architectures[0] whatever model_type says beside it, and general.architecture.
struct OtherName {
  const char* name;
  const Family* family;
};
constexpr OtherName kOtherArchitectures[] = {{"BitnetForCausalLM", &kBitnetFamily}};  // 1bitLLM's, of model_type llama
constexpr OtherName kOtherGguf[] = {{"bitnet-b1.58", &kBitnetFamily}, {"bitnet-25", &kBitnetFamily}};  // bitnet.cpp's

template <class Names>
const Family* find_other(const Names& names, const std::string& name) {
  for (const OtherName& other : names) {
    if (name == other.name) return other.family;
  }
  return nullptr;
}

std::string known(const char* Family::*column) {
  std::string text;
  for (const Family* family : kFamilies) {
    if (family->*column) text += (text.empty() ? "" : ", ") + std::string(family->*column);
  }
  return text;
}

}  // namespace

std::span<const Family* const> all_families() { return kFamilies; }

const Family& family_by_name(std::string_view name) {
  for (const Family* family : kFamilies) {
    if (name == family->name) return *family;
  }
  fail("unknown model family \"{}\"; known: {}", name, known(&Family::name));
}

const Family& family_of_json(const Json& config, const std::string& where) {
  const auto names = config.find("architectures");
  if (names != config.end() && names->is_array() && !names->empty() && names->front().is_string()) {
    if (const Family* other = find_other(kOtherArchitectures, names->front().get<std::string>())) return *other;
  }
  const auto type = config.find("model_type");
  if (type == config.end() || !type->is_string()) {
    fail("{}: no model_type; expected one of: {}", where, known(&Family::name));
  }
  for (const Family* family : kFamilies) {
    if (*type == family->name) return *family;
  }
  fail("{}: unknown architecture: model_type is \"{}\"; known: {}", where, type->get<std::string>(),
       known(&Family::name));
}

const Family& family_of_gguf(const GgufMetadata& metadata) {
  const std::string& architecture = metadata.get_string("general.architecture");
  for (const Family* family : kFamilies) {
    if (architecture == family->gguf || (family->gguf_deci && architecture == family->gguf_deci)) return *family;
  }
  if (const Family* other = find_other(kOtherGguf, architecture)) return *other;
  fail("{}: unknown architecture \"{}\" (general.architecture); known: {}", metadata.file(), architecture,
       known(&Family::gguf) + ", " + known(&Family::gguf_deci));
}

std::string weight_name(const char* pattern, int layer) {
  std::string name = pattern;
  if (const size_t hole = name.find("{}"); hole != std::string::npos) name.replace(hole, 2, std::to_string(layer));
  return name;
}

std::optional<WeightId> find_weight(const Family& family, std::string_view name, const char* WeightName::*column) {
  for (const WeightName& row : family.names) {
    const std::string_view pattern = row.*column;
    const size_t hole = pattern.find("{}");
    if (hole == std::string_view::npos) {
      if (name == pattern) return WeightId{row.kind};
      continue;
    }
    const std::string_view before = pattern.substr(0, hole), after = pattern.substr(hole + 2);
    if (name.size() <= before.size() + after.size() || !name.starts_with(before) || !name.ends_with(after)) continue;
    const std::string_view digits = name.substr(before.size(), name.size() - before.size() - after.size());
    int layer = -1;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), layer);
    const bool canonical = digits == "0" || digits[0] != '0';
    if (error == std::errc() && end == digits.data() + digits.size() && layer >= 0 && canonical) {
      return WeightId{row.kind, layer};
    }
  }
  return std::nullopt;
}

}  // namespace pare
