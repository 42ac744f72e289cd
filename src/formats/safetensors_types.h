#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace pare {

// What reading and writing safetensors share.

inline constexpr uint64_t kSafetensorsMaxHeader = 100'000'000;
inline constexpr std::string_view kSafetensorsMetadata = "__metadata__";
inline constexpr const char* kSafetensorsFile = "model.safetensors";
inline constexpr const char* kSafetensorsIndex = "model.safetensors.index.json";

/// The "weight_map" of an index: tensor -> shard, which is a plain file name. Throws Error naming `where`.
std::map<std::string, std::string> parse_safetensors_index(std::string_view json, std::string_view where);

}  // namespace pare
