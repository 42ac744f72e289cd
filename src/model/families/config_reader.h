#pragma once
#include <optional>
#include <string>
#include <vector>

#include "base/json_fwd.h"
#include "model/config.h"

namespace pare {

// Typed access to config.json as transformers 4 and 5 write it. All throw Error naming `where` and the key if a value
// has another type; null counts as missing, as in transformers.

class ConfigReader {
 public:
  ConfigReader(const Json& json, std::string where) : json_(json), where_(std::move(where)) {}
  std::optional<int64_t> find_int(const char* key) const;
  int64_t get_int(const char* key) const;
  std::optional<double> find_number(const char* key) const;
  std::optional<bool> find_bool(const char* key) const;
  std::optional<std::string> find_string(const char* key) const;
  std::optional<std::vector<double>> find_numbers(const char* key) const;
  /// A list of layer numbers in [0, layers), ascending and unique in the result.
  std::vector<int> layer_list(const char* key, int64_t layers) const;
  const Json* find(const char* key) const;
  const std::string& where() const { return where_; }

 private:
  const Json& json_;
  std::string where_;
};

/// rope_theta with rope_scaling (transformers 4) or rope_parameters (5). `context` is max_position_embeddings.
RopeConfig read_rope(const ConfigReader& config, int dims, int64_t context);
/// The same back: rope_theta and rope_scaling, which both versions read.
void write_rope(const RopeConfig& rope, Json& json);
/// For metadata: everything of a scaling as one JSON object, and back.
Json scaling_to_json(const RopeScaling& scaling);
RopeScaling scaling_from_json(const ConfigReader& config, int64_t context);

}  // namespace pare
