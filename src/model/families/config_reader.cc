#include "model/families/config_reader.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "base/json.h"

namespace pare {
namespace {

constexpr std::array<std::pair<RopeScalingKind, const char*>, 6> kScalings{{{RopeScalingKind::kNone, "default"},
                                                                            {RopeScalingKind::kLinear, "linear"},
                                                                            {RopeScalingKind::kDynamic, "dynamic"},
                                                                            {RopeScalingKind::kYarn, "yarn"},
                                                                            {RopeScalingKind::kLongRope, "longrope"},
                                                                            {RopeScalingKind::kLlama3, "llama3"}}};

RopeScalingKind scaling_kind(const std::string& name, const std::string& where) {
  for (const auto& [kind, known] : kScalings) {
    if (name == known) return kind;
  }
  fail("{}: unknown rope scaling \"{}\"; known: default, linear, dynamic, yarn, longrope, llama3", where, name);
}

}  // namespace

const Json* ConfigReader::find(const char* key) const {
  const auto found = json_.find(key);
  return found == json_.end() || found->is_null() ? nullptr : &*found;
}

std::optional<int64_t> ConfigReader::find_int(const char* key) const {
  const Json* value = find(key);
  if (!value) return std::nullopt;
  if (!value->is_number_integer() || (value->is_number_unsigned() && value->get<uint64_t>() > INT64_MAX)) {
    fail("{}: {} is {}, expected an integer", where_, key, value->dump().substr(0, 60));
  }
  return value->get<int64_t>();
}

int64_t ConfigReader::get_int(const char* key) const {
  const auto value = find_int(key);
  if (!value) fail("{}: {} is missing", where_, key);
  return *value;
}

std::optional<double> ConfigReader::find_number(const char* key) const {
  const Json* value = find(key);
  if (!value) return std::nullopt;
  if (!value->is_number()) fail("{}: {} is {}, expected a number", where_, key, value->dump().substr(0, 60));
  return value->get<double>();
}

std::optional<bool> ConfigReader::find_bool(const char* key) const {
  const Json* value = find(key);
  if (!value) return std::nullopt;
  if (!value->is_boolean()) fail("{}: {} is {}, expected true or false", where_, key, value->dump().substr(0, 60));
  return value->get<bool>();
}

std::optional<std::string> ConfigReader::find_string(const char* key) const {
  const Json* value = find(key);
  if (!value) return std::nullopt;
  if (!value->is_string()) fail("{}: {} is {}, expected text", where_, key, value->dump().substr(0, 60));
  return value->get<std::string>();
}

std::optional<std::vector<double>> ConfigReader::find_numbers(const char* key) const {
  const Json* value = find(key);
  if (!value) return std::nullopt;
  std::vector<double> numbers;
  const bool good =
      value->is_array() && std::all_of(value->begin(), value->end(), [](const Json& x) { return x.is_number(); });
  if (!good) fail("{}: {} is not a list of numbers", where_, key);
  for (const Json& x : *value) numbers.push_back(x.get<double>());
  return numbers;
}

std::vector<int> ConfigReader::layer_list(const char* key, int64_t layers) const {
  const Json* value = find(key);
  if (!value) return {};
  if (!value->is_array()) fail("{}: {} is not a list of layer numbers", where_, key);
  std::vector<int> list;
  for (const Json& x : *value) {
    if (!x.is_number_integer() || x < 0 || x >= layers) {
      fail("{}: {} holds {}, expected layers from 0 to {}", where_, key, x.dump().substr(0, 60), layers - 1);
    }
    list.push_back(x.get<int>());
  }
  std::sort(list.begin(), list.end());
  if (std::adjacent_find(list.begin(), list.end()) != list.end()) fail("{}: {} names a layer twice", where_, key);
  return list;
}

RopeScaling scaling_from_json(const ConfigReader& config, int64_t context) {
  RopeScaling scaling;
  const auto name = config.find_string("rope_type");
  scaling.kind = scaling_kind(name ? *name : config.find_string("type").value_or("default"), config.where());
  if (scaling.kind == RopeScalingKind::kNone) return scaling;
  scaling.original_context = config.find_int("original_max_position_embeddings").value_or(context);
  const auto factor = config.find_number("factor");
  if (!factor && scaling.kind != RopeScalingKind::kLongRope) fail("{}: rope scaling has no factor", config.where());
  scaling.factor = factor.value_or(static_cast<double>(context) /
                                   static_cast<double>(std::max<int64_t>(scaling.original_context, 1)));
  // transformers scales dynamic rope from the configured context, whatever the original one was.
  if (scaling.kind == RopeScalingKind::kDynamic) scaling.original_context = context;
  scaling.attention_factor = config.find_number("attention_factor");
  // A key of another kind of scaling says nothing.
  if (scaling.kind == RopeScalingKind::kLinear) scaling.original_context = context;
  if (scaling.kind == RopeScalingKind::kLlama3) {
    scaling.low_frequency_factor = config.find_number("low_freq_factor").value_or(1);
    scaling.high_frequency_factor = config.find_number("high_freq_factor").value_or(4);
  }
  if (scaling.kind == RopeScalingKind::kYarn) {
    // Zero means "the default" there, too.
    const auto or_default = [&](const char* key, double value) {
      const double given = config.find_number(key).value_or(0);
      return given != 0 ? given : value;
    };
    scaling.beta_fast = or_default("beta_fast", 32);
    scaling.beta_slow = or_default("beta_slow", 1);
    scaling.mscale = config.find_number("mscale");
    scaling.mscale_all_dim = config.find_number("mscale_all_dim");
    scaling.truncate = config.find_bool("truncate").value_or(true);
  }
  if (scaling.kind == RopeScalingKind::kLongRope) {
    scaling.short_factor = config.find_numbers("short_factor").value_or(std::vector<double>{});
    scaling.long_factor = config.find_numbers("long_factor").value_or(std::vector<double>{});
  }
  return scaling;
}

Json scaling_to_json(const RopeScaling& scaling) {
  Json json = Json::object();
  json["rope_type"] = kScalings[static_cast<size_t>(scaling.kind)].second;
  if (scaling.kind == RopeScalingKind::kNone) return json;
  json["factor"] = scaling.factor;
  if (scaling.kind != RopeScalingKind::kLinear) json["original_max_position_embeddings"] = scaling.original_context;
  if (scaling.attention_factor) json["attention_factor"] = *scaling.attention_factor;
  if (scaling.kind == RopeScalingKind::kLlama3) {
    json["low_freq_factor"] = scaling.low_frequency_factor;
    json["high_freq_factor"] = scaling.high_frequency_factor;
  }
  if (scaling.kind == RopeScalingKind::kYarn) {
    json["beta_fast"] = scaling.beta_fast;
    json["beta_slow"] = scaling.beta_slow;
    json["truncate"] = scaling.truncate;
    if (scaling.mscale) json["mscale"] = *scaling.mscale;
    if (scaling.mscale_all_dim) json["mscale_all_dim"] = *scaling.mscale_all_dim;
  }
  if (scaling.kind == RopeScalingKind::kLongRope) {
    json["short_factor"] = scaling.short_factor;
    json["long_factor"] = scaling.long_factor;
  }
  return json;
}

RopeConfig read_rope(const ConfigReader& config, int dims, int64_t context) {
  RopeConfig rope;
  rope.dims = dims;
  const Json* parameters = config.find("rope_parameters");
  if (!parameters) parameters = config.find("rope_scaling");
  if (parameters && !parameters->is_object()) fail("{}: rope parameters are not an object", config.where());
  const Json empty = Json::object();
  Json merged = parameters ? *parameters : empty;
  // A value outside wins over the one inside, as in transformers.
  if (const auto original = config.find_int("original_max_position_embeddings")) {
    merged["original_max_position_embeddings"] = *original;
  }
  const ConfigReader inner(merged, config.where());
  rope.theta = inner.find_number("rope_theta").value_or(config.find_number("rope_theta").value_or(10000));
  const double partial =
      inner.find_number("partial_rotary_factor").value_or(config.find_number("partial_rotary_factor").value_or(1));
  if (partial != 1) fail("{}: partial_rotary_factor is {}, expected 1 for this architecture", config.where(), partial);
  rope.scaling = scaling_from_json(inner, context);
  return rope;
}

void write_rope(const RopeConfig& rope, Json& json) {
  json.erase("rope_parameters");
  json["rope_theta"] = rope.theta;
  if (rope.scaling.kind == RopeScalingKind::kNone) {
    json["rope_scaling"] = nullptr;
    return;
  }
  json["rope_scaling"] = scaling_to_json(rope.scaling);
}

}  // namespace pare
