// Any text as a config.json, or any bytes after "GGUF" as a file whose metadata describe a model: refused with one
// line, or a configuration that comes back the same from a config.json of our own, and from GGUF if that can say it.
// covers: src/model/families/llama.cc src/model/families/llama_keys.cc src/model/families/diffllama.cc
// covers: src/model/families/bitnet.cc src/model/families/config_reader.cc src/model/families/family.cc
// covers: src/model/config.cc
#include <cstdint>
#include <cstdlib>

#include "base/error.h"
#include "base/json.h"
#include "formats/gguf.h"
#include "model/families/family.h"

namespace {

pare::ModelConfig from_json(const pare::Json& json) {
  if (!json.is_object()) pare::fail("input: expected an object");
  pare::ModelConfig config = pare::family_of_json(json, "input").from_json(json, "input");
  pare::check_config(config, "input");
  return config;
}

/// As folders are written: rows of q and k in the order of halves, whatever they were read in.
pare::ModelConfig as_written(pare::ModelConfig config) {
  for (pare::LayerConfig& layer : config.layers) {
    if (layer.attention) layer.attention->rope.layout = pare::RopeLayout::kHalves;
  }
  return config;
}

/// Which layers have what, and how large.
bool same_shape(const pare::ModelConfig& a, const pare::ModelConfig& b) {
  if (a.hidden != b.hidden || a.layers.size() != b.layers.size() || a.context != b.context) return false;
  for (size_t i = 0; i < a.layers.size(); ++i) {
    const auto &x = a.layers[i], &y = b.layers[i];
    if (x.attention.has_value() != y.attention.has_value() || x.mlp.has_value() != y.mlp.has_value()) return false;
    if (x.attention && x.attention->heads != y.attention->heads) return false;
    if (x.attention && !(x.attention->differential == y.attention->differential)) return false;
    if (x.mlp && x.mlp->width != y.mlp->width) return false;
  }
  return true;
}

void check_through_gguf(const pare::ModelConfig& config) {
  pare::GgufMetadata metadata("written");
  const pare::Family& family = pare::family_by_name(config.family);
  metadata.set("general.architecture", std::string(family.gguf));
  family.to_gguf(config, metadata);
  try {
    if (!same_shape(family.from_gguf(metadata), config)) std::abort();
  } catch (const pare::Error&) {  // not every scaling of the one is one of the other
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    if (text.starts_with("GGUF")) {
      const auto file = pare::GgufFile::parse(std::as_bytes(std::span(data, size)), "input");
      const pare::ModelConfig config = pare::family_of_gguf(file.metadata).from_gguf(file.metadata);
      pare::check_config(config, "input");
      check_through_gguf(config);
      return 0;
    }
    const pare::Json json = pare::parse_json(text, "input");
    const pare::ModelConfig config = from_json(json);
    pare::Json own = {{"model_type", config.family}};
    pare::family_by_name(config.family).to_json(config, own);
    if (!(from_json(own) == as_written(config))) std::abort();
    check_through_gguf(config);
  } catch (const pare::Error&) {
  }
  return 0;
}
