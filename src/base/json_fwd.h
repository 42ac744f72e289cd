#pragma once
#include <nlohmann/json_fwd.hpp>

namespace pare {

using Json = nlohmann::ordered_json;

}  // namespace pare
