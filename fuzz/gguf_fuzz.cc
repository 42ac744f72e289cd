// Any bytes as a GGUF file: parsed or refused with one line, and what is parsed can be used.
// covers: src/formats/gguf.cc src/formats/gguf_metadata.cc src/formats/names.cc
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "base/error.h"
#include "formats/gguf.h"
#include "tensor/ternary.h"

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

/// The same for I2_S, in each layout.
void decode_i2s(const pare::TensorView& view) {
  const int64_t count = view.shape.count();
  if (static_cast<int64_t>(view.bytes.size()) != count / 4 + pare::kI2sTailBytes) std::abort();
  std::vector<uint8_t> codes(static_cast<size_t>(count));
  for (const auto layout : {pare::I2sLayout::kX86, pare::I2sLayout::kArm}) {
    if (count % pare::i2s_block_columns(layout) != 0) continue;
    std::fill(codes.begin(), codes.end(), 255);
    pare::unpack_i2s(layout, view.bytes.data(), codes.data(), count);
    for (const uint8_t code : codes) {
      if (code > 3) std::abort();
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto file = pare::GgufFile::parse(std::as_bytes(std::span(data, size)), "input");
    for (const auto& [key, value] : file.metadata.entries()) ask(file.metadata, key);
    for (const pare::GgufTensor& tensor : file.tensors) tensor.i2_s ? decode_i2s(tensor.view) : decode(tensor.view);
  } catch (const pare::Error&) {
  }
  return 0;
}
