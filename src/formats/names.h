#pragma once
#include <string>
#include <string_view>

namespace pare {

/// Whether keys and tensor names of a file may be shown and written on: valid UTF-8 without control characters.
bool is_printable(std::string_view text);

/// A name from an untrusted file for a message: 'name', shortened when long, with what does not print escaped.
std::string quote_name(std::string_view name);

}  // namespace pare
