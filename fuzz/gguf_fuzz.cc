// Any bytes as a GGUF file: parsed or refused with one line, and what is parsed can be used.
// covers: src/formats/gguf.cc src/formats/gguf_metadata.cc src/formats/names.cc
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "base/error.h"
#include "formats/gguf.h"

namespace {

/// Asks for a key in every way; each answer or refusal is right.
void ask(const pare::GgufMetadata& metadata, const std::string& key) {
  const auto attempt = [](auto get) {
    try {
      get();
    } catch (const pare::Error&) {  // of another kind
    }
  };
  attempt([&] { (void)metadata.find_int(key); });
  attempt([&] { (void)metadata.find_number(key); });
  attempt([&] { (void)metadata.find_bool(key); });
  attempt([&] { (void)metadata.find_string(key); });
  attempt([&] { (void)metadata.find_strings(key); });
  attempt([&] { (void)metadata.find_ints(key); });
  attempt([&] { (void)metadata.find_numbers(key); });
}

/// Reads every byte that a tensor claims.
void decode(const pare::TensorView& view) {
  std::vector<float> row(static_cast<size_t>(view.shape.columns()));
  if (static_cast<int64_t>(view.bytes.size()) != pare::info(view.type).bytes(view.shape.count())) std::abort();
  for (int64_t i = 0; i < view.shape.rows(); ++i) {
    pare::info(view.type).decode(view.row(i), row.data(), view.shape.columns());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto file = pare::GgufFile::parse(std::as_bytes(std::span(data, size)), "input");
    for (const auto& [key, value] : file.metadata.entries()) ask(file.metadata, key);
    for (const pare::GgufTensor& tensor : file.tensors) decode(tensor.view);
  } catch (const pare::Error&) {
  }
  return 0;
}
