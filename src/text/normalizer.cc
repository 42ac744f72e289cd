#include "text/normalizer.h"

#include <algorithm>

#include "base/error.h"
#include "text/regex_syntax.h"
#include "text/unicode.h"

namespace pare {
namespace {

using Kind = NormalizerStep::Kind;

constexpr size_t kMaxSteps = 64;
// Steps that lengthen text must not do so without bound.
constexpr size_t kMaxGrowth = 64;
size_t longest_result(std::string_view text) { return kMaxGrowth * (text.size() + 64); }
void check_growth(size_t size, size_t most) {
  if (size > most) fail("the tokenizer's normalizer makes more than {} bytes of a text", most);
}

/// The text that a pattern made by escape_regex matches, "" if the pattern is anything else.
std::string literal_of(std::string_view pattern) {
  std::string literal;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] == '\\' && i + 1 < pattern.size()) ++i;
    literal += pattern[i];
  }
  return escape_regex(literal) == pattern ? literal : "";
}

std::string replace_literal(std::string_view text, std::string_view what, std::string_view by) {
  const size_t most = longest_result(text);
  std::string out;
  size_t copied = 0;
  for (size_t at = text.find(what); at != std::string_view::npos; at = text.find(what, copied)) {
    out.append(text.substr(copied, at - copied)).append(by);
    check_growth(out.size(), most);
    copied = at + what.size();
  }
  out.append(text.substr(copied));
  return out;
}

std::string replace_matches(const Regex& regex, std::string_view text, std::string_view by) {
  const size_t most = longest_result(text);
  std::string out;
  size_t copied = 0;
  Regex::Matcher(regex).for_each(text, [&](RegexMatch match) {
    out.append(text.substr(copied, match.begin - copied)).append(by);
    check_growth(out.size(), most);
    copied = match.end;
  });
  out.append(text.substr(copied));
  return out;
}

std::string_view strip_left(std::string_view text) {
  while (!text.empty()) {
    const Utf8Char next = decode_utf8(text);
    if (!is_white_space(next.code)) break;
    text.remove_prefix(next.length);
  }
  return text;
}

std::string_view strip_right(std::string_view text) {
  while (!text.empty()) {
    size_t last = text.size() - 1;
    while (last > 0 && (static_cast<uint8_t>(text[last]) & 0xc0) == 0x80) --last;
    if (!is_white_space(decode_utf8(text.substr(last)).code)) break;
    text.remove_suffix(text.size() - last);
  }
  return text;
}

std::string lowercase(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const Utf8Char next = decode_utf8(text);
    append_lowercase(out, next.code);
    text.remove_prefix(next.length);
  }
  return out;
}

}  // namespace

Normalizer::Normalizer(std::span<const NormalizerStep> steps, TokenMatcher symbols) : symbols_(std::move(symbols)) {
  if (steps.size() > kMaxSteps) fail("a normalizer of {} steps, expected at most {}", steps.size(), kMaxSteps);
  for (const NormalizerStep& from : steps) {
    Step& step = steps_.emplace_back();
    step.kind = from.kind;
    if (from.kind == Kind::kCharsMap) {
      step.map.emplace(from.content);
    } else {
      step.content = from.content;
    }
    if (from.kind == Kind::kReplace) {
      step.literal = literal_of(from.pattern);
      if (step.literal.empty()) step.pattern.emplace(from.pattern);
    }
  }
}

std::string Normalizer::normalize(std::string_view text) const {
  const size_t most = longest_result(text);
  std::string out(text);
  for (const Step& step : steps_) {
    out = apply(step, std::move(out));
    check_growth(out.size(), most);
  }
  return out;
}

std::string Normalizer::apply(const Step& step, std::string text) const {
  switch (step.kind) {
    case Kind::kNfc:
      return normalize_unicode(text, NormalForm::kNfc);
    case Kind::kNfd:
      return normalize_unicode(text, NormalForm::kNfd);
    case Kind::kNfkc:
      return normalize_unicode(text, NormalForm::kNfkc);
    case Kind::kNfkd:
      return normalize_unicode(text, NormalForm::kNfkd);
    case Kind::kLowercase:
      return lowercase(text);
    case Kind::kStripLeft:
      return std::string(strip_left(text));
    case Kind::kStripRight:
      return std::string(strip_right(text));
    case Kind::kPrepend:
      return text.empty() ? text : step.content + text;
    case Kind::kCharsMap:
      return map_characters(*step.map, text);
    case Kind::kReplace:
      return step.pattern ? replace_matches(*step.pattern, text, step.content)
                          : replace_literal(text, step.literal, step.content);
  }
  fail("a normalizer step of an unknown kind");
}

std::string Normalizer::map_characters(const CharsMap& map, std::string_view text) const {
  const size_t most = longest_result(text);
  std::string out;
  for (size_t at = 0; at < text.size();) {
    check_growth(out.size(), most);
    if (const auto symbol = symbols_.match_at(text, at)) {
      out.append(text.substr(at, symbol->end - at));
      at = symbol->end;
      continue;
    }
    const CharsMap::Rewritten rewritten = map.rewrite_start(text.substr(at));
    out.append(rewritten.text);
    at += rewritten.length;
  }
  std::string storage;
  const std::string_view valid = to_valid_utf8(out, storage);
  return valid.data() == storage.data() ? storage : out;
}

std::vector<NormalizerStep> sentencepiece_normalizer(std::string charsmap, bool remove_extra_whitespaces,
                                                     bool add_dummy_prefix) {
  std::vector<NormalizerStep> steps;
  if (!charsmap.empty()) steps.push_back({Kind::kCharsMap, "", std::move(charsmap)});
  if (remove_extra_whitespaces) {
    steps.push_back({Kind::kReplace, "\\A +", ""});
    steps.push_back({Kind::kReplace, " {2,}", " "});
    // SentencePiece has written its symbol for spaces by then, so that one in the text goes as well. The lookbehind
    // lets a search begin once in a run, not at each of its characters.
    steps.push_back({Kind::kReplace, "(?<![ \u2581])[ \u2581]+\\z", ""});
  }
  if (add_dummy_prefix) steps.push_back({Kind::kPrepend, "", std::string(kSpaceSymbol)});
  steps.push_back({Kind::kReplace, " ", std::string(kSpaceSymbol)});
  return steps;
}

}  // namespace pare
