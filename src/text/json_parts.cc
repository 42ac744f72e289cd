#include "text/json_parts.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "formats/names.h"
#include "text/pre_tokenizer.h"
#include "text/regex_syntax.h"

namespace pare {
namespace {

using Normalize = NormalizerStep::Kind;
using PreTokenize = PreTokenizerStep::Kind;

template <class Value>
struct Name {
  const char* name;
  Value value;
};

constexpr std::array<Name<Normalize>, 5> kPlainNormalizers = {{{"NFC", Normalize::kNfc},
                                                               {"NFD", Normalize::kNfd},
                                                               {"NFKC", Normalize::kNfkc},
                                                               {"NFKD", Normalize::kNfkd},
                                                               {"Lowercase", Normalize::kLowercase}}};
constexpr std::array<Name<SplitBehavior>, 5> kBehaviors = {{{"Isolated", SplitBehavior::kIsolated},
                                                            {"Removed", SplitBehavior::kRemoved},
                                                            {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
                                                            {"MergedWithNext", SplitBehavior::kMergedWithNext},
                                                            {"Contiguous", SplitBehavior::kContiguous}}};
constexpr std::array<Name<PrefixSpace>, 3> kPrefixes = {
    {{"never", PrefixSpace::kNever}, {"first", PrefixSpace::kFirst}, {"always", PrefixSpace::kAlways}}};

constexpr const char* kNormalizer = "normalizer";
constexpr const char* kPreTokenizer = "pre_tokenizer";
// Rust's is_ascii_punctuation, or the general category.
constexpr const char* kPunctuation = R"([\p{P}\x{21}-\x{2f}\x{3a}-\x{40}\x{5b}-\x{60}\x{7b}-\x{7e}])";

template <class Value, size_t n>
Value value_of(const std::array<Name<Value>, n>& names, std::string_view name, std::string_view what,
               std::string_view where) {
  for (const auto& known : names) {
    if (name == known.name) return known.value;
  }
  fail("{}: {} {} is not known", where, what, quote_name(name));
}

template <class Value, size_t n>
const char* name_of(const std::array<Name<Value>, n>& names, Value value) {
  for (const auto& known : names) {
    if (value == known.value) return known.name;
  }
  return "";
}

/// {"Regex": "..."} or {"String": "..."}, as a regular expression.
std::string parse_pattern(const JsonTree& part, std::string_view where) {
  const auto pattern = part.find("pattern");
  if (pattern != part.end() && pattern->is_object() && pattern->size() == 1) {
    if (pattern->contains("Regex")) return get_text(*pattern, "Regex", where);
    if (pattern->contains("String")) return escape_regex(get_text(*pattern, "String", where));
  }
  fail("{}: pattern: expected {{\"Regex\": ...}} or {{\"String\": ...}}", where);
}

const JsonTree& parts_of_sequence(const JsonTree& part, const char* key, std::string_view where) {
  const auto parts = part.find(key);
  if (parts == part.end() || !parts->is_array()) fail("{}: {}: expected an array", where, key);
  return *parts;
}

void add_normalizer(const JsonTree& part, std::vector<NormalizerStep>& steps, std::string_view where) {
  const std::string type = type_of_part(part, kNormalizer, where);
  for (const auto& plain : kPlainNormalizers) {
    if (type == plain.name) return steps.push_back({plain.value, "", ""});
  }
  if (type == "Sequence") {
    for (const JsonTree& inner : parts_of_sequence(part, "normalizers", where)) add_normalizer(inner, steps, where);
  } else if (type == "Strip") {
    if (get_flag(part, "strip_left", true, where)) steps.push_back({Normalize::kStripLeft, "", ""});
    if (get_flag(part, "strip_right", true, where)) steps.push_back({Normalize::kStripRight, "", ""});
  } else if (type == "Prepend") {
    steps.push_back({Normalize::kPrepend, "", get_text(part, "prepend", where)});
  } else if (type == "Replace") {
    steps.push_back({Normalize::kReplace, parse_pattern(part, where), get_text(part, "content", where)});
  } else {
    fail("{}: normalizer {} is not supported", where, quote_name(type));
  }
}

PrefixSpace parse_prefix(const JsonTree& part, std::string_view where) {
  const bool add = get_flag(part, "add_prefix_space", true, where);
  if (is_null_or_missing(part, "prepend_scheme")) return add ? PrefixSpace::kAlways : PrefixSpace::kNever;
  return value_of(kPrefixes, get_text(part, "prepend_scheme", where), "prepend_scheme", where);
}

PreTokenizerStep split_step(std::string pattern, SplitBehavior behavior = SplitBehavior::kIsolated) {
  PreTokenizerStep step;
  step.pattern = std::move(pattern);
  step.behavior = behavior;
  return step;
}

PreTokenizerStep byte_level_step(const JsonTree& part, std::string_view where) {
  PreTokenizerStep step;
  step.kind = PreTokenize::kByteLevel;
  step.prefix = get_flag(part, "add_prefix_space", true, where) ? PrefixSpace::kAlways : PrefixSpace::kNever;
  step.split_words = get_flag(part, "use_regex", true, where);
  return step;
}

void add_pre_tokenizer(const JsonTree& part, std::vector<PreTokenizerStep>& steps, std::string_view where) {
  const std::string type = type_of_part(part, kPreTokenizer, where);
  if (type == "Sequence") {
    for (const JsonTree& inner : parts_of_sequence(part, "pretokenizers", where)) {
      add_pre_tokenizer(inner, steps, where);
    }
  } else if (type == "ByteLevel") {
    steps.push_back(byte_level_step(part, where));
  } else if (type == "Split") {
    const std::string behavior = get_text(part, "behavior", where);
    PreTokenizerStep step = split_step(parse_pattern(part, where), value_of(kBehaviors, behavior, "behavior", where));
    step.invert = get_flag(part, "invert", false, where);
    steps.push_back(std::move(step));
  } else if (type == "Digits") {
    steps.push_back(split_step(get_flag(part, "individual_digits", false, where) ? "\\p{N}" : "\\p{N}+"));
  } else if (type == "Punctuation") {
    const std::string behavior = is_null_or_missing(part, "behavior") ? "Isolated" : get_text(part, "behavior", where);
    steps.push_back(split_step(kPunctuation, value_of(kBehaviors, behavior, "behavior", where)));
  } else if (type == "Metaspace") {
    if (get_text(part, "replacement", where) != "\u2581") fail("{}: Metaspace: replacement: expected U+2581", where);
    PreTokenizerStep step;
    step.kind = PreTokenize::kMetaspace;
    step.prefix = parse_prefix(part, where);
    step.split_words = get_flag(part, "split", true, where);
    steps.push_back(step);
  } else {
    fail("{}: pre_tokenizer {} is not supported", where, quote_name(type));
  }
}

JsonTree sequence(const char* key, JsonTree parts) {
  if (parts.empty()) return nullptr;
  if (parts.size() == 1) return parts.front();
  return {{"type", "Sequence"}, {key, std::move(parts)}};
}

}  // namespace

std::vector<NormalizerStep> parse_normalizer(const JsonTree& part, std::string_view where) {
  std::vector<NormalizerStep> steps;
  if (!part.is_null()) add_normalizer(part, steps, where);
  return steps;
}

std::vector<PreTokenizerStep> parse_pre_tokenizer(const JsonTree& part, std::string_view where) {
  std::vector<PreTokenizerStep> steps;
  if (!part.is_null()) add_pre_tokenizer(part, steps, where);
  return steps;
}

JsonTree write_normalizer(const std::vector<NormalizerStep>& steps) {
  JsonTree parts = JsonTree::array();
  for (const NormalizerStep& step : steps) {
    switch (step.kind) {
      case Normalize::kStripLeft:
      case Normalize::kStripRight: {
        const bool left = step.kind == Normalize::kStripLeft;
        parts.push_back({{"type", "Strip"}, {"strip_left", left}, {"strip_right", !left}});
        break;
      }
      case Normalize::kPrepend:
        parts.push_back({{"type", "Prepend"}, {"prepend", step.content}});
        break;
      case Normalize::kReplace:
        parts.push_back({{"type", "Replace"}, {"pattern", {{"Regex", step.pattern}}}, {"content", step.content}});
        break;
      case Normalize::kCharsMap:
        fail("a SentencePiece character map cannot be written to a tokenizer.json that reads the same");
      default:
        parts.push_back({{"type", name_of(kPlainNormalizers, step.kind)}});
    }
  }
  return sequence("normalizers", std::move(parts));
}

JsonTree write_pre_tokenizer(const std::vector<PreTokenizerStep>& steps) {
  JsonTree parts = JsonTree::array();
  for (const PreTokenizerStep& step : steps) {
    switch (step.kind) {
      case PreTokenize::kSplit:
        parts.push_back({{"type", "Split"},
                         {"pattern", {{"Regex", step.pattern}}},
                         {"behavior", name_of(kBehaviors, step.behavior)},
                         {"invert", step.invert}});
        break;
      case PreTokenize::kByteLevel:
        parts.push_back({{"type", "ByteLevel"},
                         {"add_prefix_space", step.prefix == PrefixSpace::kAlways},
                         {"trim_offsets", true},
                         {"use_regex", step.split_words}});
        break;
      case PreTokenize::kMetaspace:
        parts.push_back({{"type", "Metaspace"},
                         {"replacement", "\u2581"},
                         {"prepend_scheme", name_of(kPrefixes, step.prefix)},
                         {"split", step.split_words}});
        break;
    }
  }
  return sequence("pretokenizers", std::move(parts));
}

AddedToken parse_added_token(const JsonTree& part, std::string_view where) {
  if (!part.is_object()) fail("{}: expected an object", where);
  const auto id = part.find("id");
  if (id == part.end() || !id->is_number_unsigned() || id->get<uint64_t>() > INT32_MAX) {
    fail("{}: id: expected a number from 0 to {}", where, INT32_MAX);
  }
  return {.id = id->get<int32_t>(),
          .special = get_flag(part, "special", false, where),
          .lstrip = get_flag(part, "lstrip", false, where),
          .rstrip = get_flag(part, "rstrip", false, where),
          .single_word = get_flag(part, "single_word", false, where),
          .normalized = get_flag(part, "normalized", true, where)};
}

JsonTree write_added_token(const AddedToken& token) {
  return {{"id", token.id},         {"special", token.special},         {"lstrip", token.lstrip},
          {"rstrip", token.rstrip}, {"single_word", token.single_word}, {"normalized", token.normalized}};
}

}  // namespace pare
