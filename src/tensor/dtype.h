#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace pare {

/// How numbers are stored in a file. One row of the table in dtype.cc describes each; nothing else lists them.
enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kIQ4_NL,
  kIQ4_XS,
  kTQ1_0,
  kTQ2_0,
  kQ2_0,
};

/// A storage type: blocks of `block_size` consecutive values of a row in `block_bytes` bytes.
struct DTypeInfo {
  DType type;
  const char* name;         // as pare and llama.cpp spell it: "q8_0"
  uint32_t gguf_id;         // ggml_type of the GGUF specification
  const char* safetensors;  // "F32", or null where safetensors has no such type
  int gguf_file_type;       // general.file_type (llama.cpp's LLAMA_FTYPE_MOSTLY_*), -1 if there is none
  int block_size;           // values
  int block_bytes;
  /// Decodes `count` values (a multiple of block_size) to float32, exactly.
  void (*decode)(const std::byte* from, float* to, int64_t count);
  /// Encodes `count` values (a multiple of block_size), rounding to nearest as the type's reference quantizer does.
  void (*encode)(const float* from, std::byte* to, int64_t count);

  double bits_per_value() const { return 8.0 * block_bytes / block_size; }
  /// Bytes of `count` values; count must be a multiple of block_size.
  int64_t bytes(int64_t count) const { return count / block_size * block_bytes; }
};

const DTypeInfo& info(DType type);
/// Every type, in table order.
std::span<const DTypeInfo> all_dtypes();
/// By pare's name, any case ("q8_0", "F16"); null if unknown.
const DTypeInfo* find_dtype(std::string_view name);
/// By ggml_type id; null if unknown.
const DTypeInfo* find_dtype_gguf(uint32_t id);
/// By safetensors name; null if unknown.
const DTypeInfo* find_dtype_safetensors(std::string_view name);
/// The type for rows of `columns` values where `wanted` was asked for: that one or, where its blocks do not divide the
/// rows, one of smaller blocks and about as many bits (llama.cpp's choice); nothing if none divides them.
std::optional<DType> fitting_dtype(DType wanted, int64_t columns);
/// "f32, f16, ...", for messages.
std::string dtype_names();

}  // namespace pare
