// Any bytes as blocks of every storage type, and as float32 to encode: what is decoded can be encoded and decoded
// again, and an encoder writes every byte, the same each time.
// covers: src/tensor/float_types.cc src/tensor/q8_0.cc src/tensor/q4_0.cc src/tensor/q4_1.cc src/tensor/q5.cc
// covers: src/tensor/q2_k.cc src/tensor/q3_k.cc src/tensor/q4_k_q5_k.cc src/tensor/q6_k.cc src/tensor/iq4.cc
// covers: src/tensor/ternary.cc src/tensor/block_parts.cc src/tensor/blocks.h src/tensor/fit.h src/tensor/fit_min.h
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

#include "tensor/dtype.h"

namespace {

/// Encodes whole blocks of `values`, cut to what they fill, and decodes the result in their place.
void encode_and_decode(const pare::DTypeInfo& type, std::vector<float>& values) {
  const auto count = static_cast<int64_t>(values.size()) / type.block_size * type.block_size;
  std::vector<std::byte> first(static_cast<size_t>(type.bytes(count)), std::byte{0});
  std::vector<std::byte> second(first.size(), std::byte{255});
  type.encode(values.data(), first.data(), count);
  type.encode(values.data(), second.data(), count);
  if (first != second) std::abort();
  values.resize(static_cast<size_t>(count));
  type.decode(first.data(), values.data(), count);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span bytes = std::as_bytes(std::span(data, size));
  for (const pare::DTypeInfo& type : pare::all_dtypes()) {
    const auto blocks = static_cast<int64_t>(bytes.size()) / type.block_bytes;
    std::vector<float> values(static_cast<size_t>(blocks * type.block_size));
    type.decode(bytes.data(), values.data(), blocks * type.block_size);
    encode_and_decode(type, values);
    values.resize(bytes.size() / sizeof(float));
    pare::info(pare::DType::kF32).decode(bytes.data(), values.data(), static_cast<int64_t>(values.size()));
    encode_and_decode(type, values);
  }
  return 0;
}
