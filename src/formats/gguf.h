#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/file.h"
#include "base/function_ref.h"
#include "tensor/tensor.h"

namespace pare {

// GGUF v2 and v3, little endian (specification: ggml's docs/gguf.md): metadata of typed keys, then tensors.

/// A metadata value. Scalars keep the width they had in the file, so that a rewrite is exact; arrays hold one type, and
/// arrays of arrays are refused.
using GgufValue =
    std::variant<uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, uint64_t, int64_t, float, double, bool,
                 std::string, std::vector<uint8_t>, std::vector<int8_t>, std::vector<uint16_t>, std::vector<int16_t>,
                 std::vector<uint32_t>, std::vector<int32_t>, std::vector<uint64_t>, std::vector<int64_t>,
                 std::vector<float>, std::vector<double>, std::vector<bool>, std::vector<std::string>>;

/// Keys in the order of the file, with typed access. `get_*` throw Error naming file and key if the key is missing or
/// of another kind; `find_*` return nothing if it is missing (and still throw if it is of another kind).
class GgufMetadata {
 public:
  GgufMetadata() = default;
  explicit GgufMetadata(std::string file) : file_(std::move(file)) {}
  /// Keys must be unique.
  GgufMetadata(std::string file, std::vector<std::pair<std::string, GgufValue>> entries)
      : file_(std::move(file)), entries_(std::move(entries)) {}

  const std::vector<std::pair<std::string, GgufValue>>& entries() const { return entries_; }
  const GgufValue* find(std::string_view key) const;
  /// Adds or replaces.
  void set(std::string key, GgufValue value);
  void erase(std::string_view key);

  /// Any integer type, range-checked.
  std::optional<int64_t> find_int(std::string_view key) const;
  int64_t get_int(std::string_view key) const;
  /// Any number.
  std::optional<double> find_number(std::string_view key) const;
  double get_number(std::string_view key) const;
  std::optional<bool> find_bool(std::string_view key) const;
  const std::string* find_string(std::string_view key) const;
  const std::string& get_string(std::string_view key) const;
  const std::vector<std::string>* find_strings(std::string_view key) const;
  /// An array of any integer type, widened.
  std::optional<std::vector<int64_t>> find_ints(std::string_view key) const;
  std::optional<std::vector<double>> find_numbers(std::string_view key) const;
  const std::string& file() const { return file_; }

 private:
  std::string file_;
  std::vector<std::pair<std::string, GgufValue>> entries_;
};

/// I2_S (bitnet.cpp's ggml type 36): two bits a weight in one of two layouts (tensor/ternary.h), then a float32 scale
/// of the whole tensor in the first of 32 bytes.
inline constexpr uint32_t kGgufI2s = 36;
inline constexpr int64_t kI2sTailBytes = 32;

struct GgufTensor {
  std::string name;
  TensorView view;    // shape outermost first: GGUF's dimensions reversed
  bool i2_s = false;  // the bytes are I2_S, which no DType expresses: view.type is meaningless
};

/// An opened GGUF file: everything checked (sizes, overlaps, overflow, duplicates, alignment, known types), nothing
/// read but the header.
struct GgufFile {
  std::shared_ptr<const MappedFile> mapping;  // keeps the views alive
  uint32_t version = 3;
  uint64_t alignment = 32;
  GgufMetadata metadata;
  std::vector<GgufTensor> tensors;

  /// Throws Error naming file, place and what was expected.
  static GgufFile open(const std::filesystem::path& path);
  /// The same for bytes in memory (fuzzing, tests); `name` stands for the file in errors.
  static GgufFile parse(std::span<const std::byte> bytes, const std::string& name);
};

/// One tensor to be written: its bytes are asked for when its turn comes.
struct GgufTensorToWrite {
  std::string name;
  DType type;
  Shape shape;
  /// Calls the sink with the tensor's bytes in order, in pieces of any size.
  std::function<void(FunctionRef<void(std::span<const std::byte>)> sink)> produce;
};

/// Writes a GGUF v3 file (alignment 32) to `out`, which the caller commits. Throws Error (disk full; a producer that
/// gave more or fewer bytes than the type and shape need).
void write_gguf(OutputFile& out, const GgufMetadata& metadata, std::span<const GgufTensorToWrite> tensors);
/// How long that file would be. Asks no producer for bytes.
uint64_t gguf_bytes(const GgufMetadata& metadata, std::span<const GgufTensorToWrite> tensors);

}  // namespace pare
