#pragma once
#include <string>
#include <string_view>

namespace pare {

/// A regular expression as tokenizer.json has it (Oniguruma's default syntax) in PCRE2's, to be compiled with UTF, UCP
/// and MULTILINE. What PCRE2 would read differently is rewritten; what has no counterpart, or none that was proven
/// equal, throws Error naming it.
std::string to_pcre2(std::string_view pattern);

/// A regular expression that matches exactly `literal`.
std::string escape_regex(std::string_view literal);

}  // namespace pare
