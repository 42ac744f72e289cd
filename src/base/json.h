#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/json_fwd.h"

namespace pare {

/// Parses JSON from an untrusted file: at most 64 levels deep, no duplicate keys in an object, valid UTF-8.
/// `where` names the file in the error. Throws Error with line and column.
Json parse_json(std::string_view text, std::string_view where);

}  // namespace pare
