// Any bytes as a safetensors file, or as the index of a sharded folder if they look like JSON.
// covers: src/formats/safetensors.cc src/formats/safetensors_index.cc src/formats/json_walk.cc
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "base/error.h"
#include "formats/safetensors.h"
#include "formats/safetensors_types.h"

namespace {

/// Reads every byte that a tensor claims.
void decode(const pare::TensorView& view) {
  std::vector<float> values(static_cast<size_t>(view.shape.count()));
  if (static_cast<int64_t>(view.bytes.size()) != pare::info(view.type).bytes(view.shape.count())) std::abort();
  pare::info(view.type).decode(view.bytes.data(), values.data(), view.shape.count());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    if (text.starts_with("{\"")) {
      for (const auto& [tensor, shard] : pare::parse_safetensors_index(text, "input")) {
        if (shard.find('/') != shard.npos) std::abort();
      }
      return 0;
    }
    const auto file = pare::SafetensorsFile::parse(std::as_bytes(std::span(data, size)), "input");
    for (const pare::SafetensorsTensor& tensor : file.tensors) {
      if (tensor.foreign_type.empty()) decode(tensor.view);
    }
  } catch (const pare::Error&) {
  }
  return 0;
}
