#include "text/regex_syntax.h"

#include <algorithm>
#include <array>
#include <vector>

#include "base/error.h"
#include "formats/names.h"
#include "text/unicode.h"

namespace pare {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

// PCRE2's own \w lacks marks and connectors, its \s has U+180E, its \d is the same but is written out for company.
constexpr std::string_view kWordProperties = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";
// Outside of classes Oniguruma's \w also has the numbers of Latin-1 that are no digits, but no others.
constexpr std::string_view kLatin1Numbers = R"(\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})";
constexpr std::string_view kSpaceProperty = R"(p{White_Space})";

class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  std::string translate() {
    while (at_ < pattern_.size()) translate_next();
    if (open_.size() != 1) refuse("a group that does not end");
    close_group();
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const {
    fail("the regular expression {} has {} (at byte {}), which is not supported", quote_name(pattern_), what, at_);
  }

  std::string_view rest() const { return pattern_.substr(at_); }
  bool take(std::string_view text) {
    if (!rest().starts_with(text)) return false;
    at_ += text.size();
    return true;
  }
  void copy(size_t count) {
    out_ += rest().substr(0, count);
    at_ += count;
  }

  void translate_next() {
    switch (pattern_[at_]) {
      case '\\':
        return translate_escape(false);
      case '[':
        return translate_class();
      case '(':
        return open_group();
      case ')':
        if (open_.size() == 1) refuse("a ')' without a group");
        ++at_;
        close_group();
        out_ += ')';
        return translate_quantifier();
      case '{':
        // A brace that starts no interval is itself; one that does was taken with what it repeats.
        if (interval_length() > 0) refuse("a quantifier that follows nothing");
        ++at_;
        out_ += "\\{";
        return translate_quantifier();
      case '*':
      case '+':
      case '?':
        refuse("a quantifier that follows nothing or another quantifier");
      case '^':
      case '$':
        return copy(1);
      case '|':
        return copy(1);
      default:
        return translate_literal();
    }
  }

  void translate_literal() {
    check_folding();
    copy(std::min(utf8_length(pattern_[at_]), rest().size()));
    translate_quantifier();
  }

  /// Without regard to case, Oniguruma takes some characters for two and the reverse (\u00df for "ss", \ufb01 for
  /// "fi").
  void check_folding() const {
    if (!open_.back().any_case) return;
    if (static_cast<unsigned char>(rest()[0]) >= 0x80) refuse("a character that is not ASCII within (?i)");
    for (const std::string_view pair : {"ss", "ff", "fi", "fl", "st"}) {
      const auto same = [](char a, char b) { return (a | 0x20) == b; };
      const std::string_view two = rest().substr(0, 2);
      if (std::equal(two.begin(), two.end(), pair.begin(), pair.end(), same)) {
        refuse("two letters within (?i) that stand for one as well");
      }
    }
  }

  /// Length of an interval "{n}", "{n,}", "{,m}" or "{n,m}" here, 0 if there is none.
  size_t interval_length() const {
    const std::string_view text = rest();
    if (!text.starts_with('{')) return 0;
    size_t i = 1, digits = 0;
    while (i < text.size() && is_digit(text[i])) ++i, ++digits;
    if (i < text.size() && text[i] == ',') {
      ++i;
      while (i < text.size() && is_digit(text[i])) ++i, ++digits;
    }
    return digits > 0 && i < text.size() && text[i] == '}' ? i + 1 : 0;
  }

  void translate_quantifier() {
    if (const size_t length = interval_length(); length > 0) {
      const bool no_least = rest()[1] == ',', exact = rest().substr(0, length).find(',') == std::string_view::npos;
      if (no_least) {
        out_ += "{0";
        ++at_;
        copy(length - 1);
      } else {
        copy(length);
      }
      // After an interval '+' repeats it once more in Oniguruma, and is possessive in PCRE2; "{n}?" differs as well.
      if (rest().starts_with('+')) refuse("'+' after an interval");
      if (rest().starts_with('?')) {
        if (exact) refuse("'?' after an exact count");
        copy(1);
      }
    } else if (rest().starts_with('*') || rest().starts_with('+') || rest().starts_with('?')) {
      copy(1);
      if (rest().starts_with('?') || rest().starts_with('+')) copy(1);
    }
  }

  void open_group() {
    ++at_;
    open_.push_back({0, open_.back().any_case});
    if (!rest().starts_with('?')) {
      out_ += "(?:";  // nothing refers back to a group
      return;
    }
    for (const std::string_view plain : {"?:", "?=", "?!", "?>", "?<=", "?<!"}) {
      if (take(plain)) {
        out_ += '(';
        out_ += plain;
        return;
      }
    }
    open_option_group();
  }

  /// "(?i:...)", or "(?i)", which in Oniguruma holds to the end of the group around it with all its alternatives.
  void open_option_group() {
    size_t length = 1;
    std::string options;
    while (length < rest().size() && (rest()[length] == 'i' || rest()[length] == 'm' || rest()[length] == '-')) {
      options += rest()[length] == 'm' ? 's' : rest()[length];  // Oniguruma's m lets '.' match a line feed
      ++length;
    }
    if (options.empty() || length >= rest().size()) refuse("a group of an unknown kind");
    const char end = rest()[length];
    if (end != ':' && end != ')') refuse("a group of an unknown kind");
    at_ += length + 1;
    out_ += "(?" + options + ':';
    if (end == ')') {
      open_.pop_back();
      ++open_.back().also_close;
    }
    const size_t i = options.find('i');
    if (i != std::string::npos) open_.back().any_case = options.find('-') > i;
  }

  void close_group() {
    out_.append(open_.back().also_close, ')');
    open_.pop_back();
  }

  void translate_class() {
    const size_t start = at_;
    ++at_;
    out_ += '[';
    if (take("^")) out_ += '^';
    if (rest().starts_with(']')) refuse("an empty class");
    while (true) {
      if (at_ >= pattern_.size()) {
        at_ = start;
        refuse("a class that does not end");
      }
      if (take("]")) break;
      if (rest().starts_with("&&")) refuse("an intersection of classes");
      if (rest().starts_with('[')) refuse("a class within a class");
      if (rest().starts_with('\\')) {
        translate_escape(true);
      } else {
        if (open_.back().any_case && static_cast<unsigned char>(rest()[0]) >= 0x80) check_folding();
        copy(std::min(utf8_length(pattern_[at_]), rest().size()));
      }
    }
    out_ += ']';
    translate_quantifier();
  }

  void translate_escape(bool in_class) {
    if (rest().size() < 2) refuse("a backslash at its end");
    const char c = rest()[1];
    if (!is_letter(c) && !is_digit(c)) {
      const size_t length = 1 + std::min(utf8_length(c), rest().size() - 1);
      // PCRE2 takes a backslash before ASCII only.
      if (length > 2) ++at_;
      copy(length > 2 ? length - 1 : 2);
    } else if (c == 'p' || c == 'P') {
      translate_property();
    } else if (c == 'x' || c == 'u') {
      translate_code();
    } else if (in_class ? !translate_set_in_class(c) : !translate_set(c)) {
      refuse(std::string("\\") + c + (in_class ? " in a class" : ""));
    }
    const bool assertion = !in_class && std::string_view("AzZbB").find(c) != std::string_view::npos;
    if (!in_class && !assertion) translate_quantifier();
  }

  bool emit(std::string_view text) {
    out_ += text;
    at_ += 2;
    return true;
  }

  bool translate_control(char c) {
    switch (c) {
      case 'n':
      case 'r':
      case 't':
      case 'f':
      case 'e':
      case 'a':
        return emit(std::string("\\") + c);
      case 'v':
        return emit("\\x0b");  // in PCRE2 any vertical space
      case 's':
        return emit("\\" + std::string(kSpaceProperty));
      case 'S':
        return emit("\\P" + std::string(kSpaceProperty.substr(1)));
      case 'd':
        return emit("\\p{Nd}");
      case 'D':
        return emit("\\P{Nd}");
      default:
        return false;
    }
  }

  bool translate_set_in_class(char c) {
    if (c == 'w') return emit(kWordProperties);
    if (c == 'h') return emit("0-9a-fA-F");
    return translate_control(c);
  }

  bool translate_set(char c) {
    const std::string inner = std::string(kWordProperties) + std::string(kLatin1Numbers);
    const std::string word = "[" + inner + "]";
    switch (c) {
      case 'w':
        return emit(word);
      case 'W':
        return emit("[^" + inner + "]");
      case 'h':
        return emit("[0-9a-fA-F]");
      case 'b':
        return emit("(?:(?<=" + word + ")(?!" + word + ")|(?<!" + word + ")(?=" + word + "))");
      case 'B':
        return emit("(?:(?<=" + word + ")(?=" + word + ")|(?<!" + word + ")(?!" + word + "))");
      case 'A':
      case 'z':
      case 'Z':
        return emit(std::string("\\") + c);
      default:
        return translate_control(c);
    }
  }

  /// \p{L}, \p{^L}, \p{Han}, ... A name of more than two letters that is no binary property is a script, and the script
  /// property proper: PCRE2's plain \p{Han} is the one with extensions.
  void translate_property() {
    static constexpr std::array<std::string_view, 2> kBinary = {"White_Space", "Any"};
    const size_t start = at_;
    bool negated = rest()[1] == 'P';
    at_ += 2;
    if (!take("{")) {
      at_ = start;
      refuse("a property without braces");
    }
    if (take("^")) negated = !negated;
    const size_t end = rest().find('}');
    const std::string name(rest().substr(0, std::min(end, rest().size())));
    if (end == std::string_view::npos || name.empty() || name.size() > 40 ||
        !std::all_of(name.begin(), name.end(), [](char c) { return is_letter(c) || c == '_'; })) {
      at_ = start;
      refuse("a property of an unknown kind");
    }
    at_ += end + 1;
    out_ += negated ? "\\P{" : "\\p{";
    const bool script = name.size() > 2 && std::find(kBinary.begin(), kBinary.end(), name) == kBinary.end();
    out_ += (script ? "sc:" : "") + name + '}';
  }

  /// \x41, \x{1F600}, \u0041
  void translate_code() {
    const bool braces = rest().substr(2).starts_with('{');
    const size_t start = braces ? 3 : 2, most = braces ? 8 : rest()[1] == 'u' ? 4 : 2;
    size_t length = 0;
    while (length < most && start + length < rest().size() && is_hex(rest()[start + length])) ++length;
    const std::string digits(rest().substr(start, length));
    const bool ends = braces ? rest()[1] == 'x' && rest().substr(start + length).starts_with('}') : length == most;
    if (length == 0 || !ends) refuse("a character code of an unknown kind");
    if (rest()[1] == 'x' && !braces && digits[0] >= '8') refuse("a byte that is not ASCII");
    at_ += start + length + (braces ? 1 : 0);
    out_ += "\\x{" + digits + '}';
  }

  std::string_view pattern_;
  size_t at_ = 0;
  std::string out_;
  struct Group {
    size_t also_close;  // groups that end where it does
    bool any_case;
  };
  std::vector<Group> open_{{0, false}};  // the whole pattern is the first
};

}  // namespace

std::string to_pcre2(std::string_view pattern) { return Translator(pattern).translate(); }

std::string escape_regex(std::string_view literal) {
  std::string out;
  for (const char c : literal) {
    const bool punctuation = c > ' ' && c < 0x7f && !is_letter(c) && !is_digit(c) && c != '_';
    if (punctuation) out += '\\';
    out += c;
  }
  return out;
}

}  // namespace pare
