#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "base/error.h"

namespace pare {

/// One field of a protocol buffer message: a number, or the bytes of a string or a message within.
struct ProtoField {
  uint32_t number = 0;
  enum class Kind : uint8_t { kNumber, kBytes } kind = Kind::kNumber;
  uint64_t value = 0;      // varint, fixed32 or fixed64, zero-extended
  std::string_view bytes;  // length-delimited
};

/// Reads the fields of a message in order. Throws Error, naming `where`, for bytes that are no message.
class ProtoReader {
 public:
  ProtoReader(std::string_view bytes, std::string_view where) : bytes_(bytes), where_(where) {}

  std::optional<ProtoField> next() {
    if (at_ == bytes_.size()) return std::nullopt;
    const uint64_t tag = varint();
    ProtoField field;
    if (tag >> 3 == 0 || tag >> 3 > 0x1fffffff) broken("a field number out of range");
    field.number = static_cast<uint32_t>(tag >> 3);
    switch (tag & 7) {
      case 0:
        field.value = varint();
        break;
      case 1:
        field.value = fixed(8);
        break;
      case 5:
        field.value = fixed(4);
        break;
      case 2: {
        field.kind = ProtoField::Kind::kBytes;
        const uint64_t length = varint();
        if (length > bytes_.size() - at_) broken("a field longer than what is left");
        field.bytes = bytes_.substr(at_, length);
        at_ += length;
        break;
      }
      default:
        broken("a field of an unknown wire type");
    }
    return field;
  }

 private:
  [[noreturn]] void broken(std::string_view what) const {
    fail("{}: not a SentencePiece model: {} (at byte {} of a message)", where_, what, at_);
  }
  uint64_t varint() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      if (at_ == bytes_.size()) broken("a number cut short");
      const auto byte = static_cast<uint8_t>(bytes_[at_++]);
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    broken("a number of more than 64 bits");
  }
  uint64_t fixed(size_t size) {
    if (bytes_.size() - at_ < size) broken("a number cut short");
    uint64_t value = 0;
    for (size_t i = 0; i < size; ++i) value |= static_cast<uint64_t>(static_cast<uint8_t>(bytes_[at_ + i])) << (8 * i);
    at_ += size;
    return value;
  }

  std::string_view bytes_, where_;
  size_t at_ = 0;
};

}  // namespace pare
