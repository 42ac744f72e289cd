#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pare::test {

/// A GGUF file written by hand, byte for byte, so that tests can write what no writer would.
class GgufBytes {
 public:
  GgufBytes& raw(std::string_view bytes) {
    for (const char c : bytes) bytes_.push_back(static_cast<std::byte>(c));
    return *this;
  }
  template <class T>
  GgufBytes& number(T value) {
    char bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);
    return raw({bytes, sizeof value});
  }
  GgufBytes& u32(uint32_t value) { return number(value); }
  GgufBytes& u64(uint64_t value) { return number(value); }
  GgufBytes& text(std::string_view value) { return u64(value.size()).raw(value); }
  GgufBytes& header(uint64_t tensors, uint64_t keys, uint32_t version = 3) {
    return raw("GGUF").u32(version).u64(tensors).u64(keys);
  }
  /// A key of the given gguf_metadata_value_type; its value comes next.
  GgufBytes& key(std::string_view name, uint32_t type) { return text(name).u32(type); }
  /// dims innermost first, as the format has them.
  GgufBytes& tensor(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset) {
    text(name).u32(static_cast<uint32_t>(dims.size()));
    for (const uint64_t dim : dims) u64(dim);
    return u32(type).u64(offset);
  }
  GgufBytes& pad(size_t alignment = 32) {
    while (bytes_.size() % alignment) bytes_.push_back(std::byte{0});
    return *this;
  }
  GgufBytes& data(size_t size, uint8_t first = 0) {
    for (size_t i = 0; i < size; ++i) bytes_.push_back(static_cast<std::byte>(first + i));
    return *this;
  }
  GgufBytes& cut(size_t from_end) {
    bytes_.resize(bytes_.size() - from_end);
    return *this;
  }
  const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

}  // namespace pare::test
