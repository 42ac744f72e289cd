// GGUF files that are not what they claim: each must be refused with a line that names the file, the place, and what
// was expected there.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "base/error.h"
#include "formats/gguf.h"
#include "formats/gguf_bytes.h"
#include "refusal.h"

namespace pare {
namespace {

using test::GgufBytes;
using testing::HasSubstr;

constexpr uint64_t kHuge = uint64_t{1} << 63;
constexpr uint32_t kU32 = 4, kBool = 7, kString = 8, kArray = 9;

/// The message with which the file is refused; "" if it is not.
std::string refusal(const GgufBytes& file) {
  return test::refusal_of_file("bad.gguf", [&] { GgufFile::parse(file.bytes(), "bad.gguf"); });
}

/// A file of one tensor with these dimensions (innermost first) and this type and offset, and `size` bytes of data.
GgufBytes one_tensor(const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset, size_t size) {
  GgufBytes file;
  return file.header(1, 0).tensor("t", dims, type, offset).pad().data(size);
}

GgufBytes one_key(std::string_view name, uint32_t type) { return GgufBytes().header(0, 1).key(name, type); }

TEST(GgufMalformed, I2s) {
  const auto file = [](uint64_t columns, size_t bytes) {
    return GgufBytes().header(1, 0).tensor("t", {columns}, kGgufI2s, 0).pad().data(bytes);
  };
  EXPECT_EQ(refusal(file(64, 48)), "");
  EXPECT_THAT(refusal(file(64, 47)), HasSubstr("tensor 't' needs 48 bytes"));
  EXPECT_THAT(refusal(file(96, 64)), HasSubstr("no multiple of I2_S's block of 64"));
  EXPECT_THAT(refusal(file(uint64_t{1} << 62, 64)), HasSubstr("needs"));
}

TEST(GgufMalformed, Magic) {
  EXPECT_THAT(refusal(GgufBytes()), HasSubstr("not a GGUF file: expected it to start with \"GGUF\""));
  EXPECT_THAT(refusal(GgufBytes().raw("GGU")), HasSubstr("not a GGUF file"));
  EXPECT_THAT(refusal(GgufBytes().raw("ggml and more bytes than that")), HasSubstr("not a GGUF file"));
}

TEST(GgufMalformed, Version) {
  EXPECT_THAT(refusal(GgufBytes().raw("GGUF\3")),
              HasSubstr("the version at byte 4: expected 4 bytes, but only 1 are left"));
  EXPECT_THAT(refusal(GgufBytes().header(0, 0, 1)), HasSubstr("GGUF version 1, expected 2 or 3"));
  EXPECT_THAT(refusal(GgufBytes().header(0, 0, 4)), HasSubstr("GGUF version 4, expected 2 or 3"));
  EXPECT_THAT(refusal(GgufBytes().header(0, 0, 0)), HasSubstr("GGUF version 0, expected 2 or 3"));
  EXPECT_THAT(refusal(GgufBytes().header(0, 0, 0x03000000)),
              HasSubstr("a big-endian GGUF file, expected little-endian"));
}

TEST(GgufMalformed, Counts) {
  EXPECT_THAT(refusal(GgufBytes().raw("GGUF").u32(3).u64(1).cut(1)),
              HasSubstr("the number of tensors at byte 8: expected 8 bytes, but only 7 are left"));
  EXPECT_THAT(refusal(GgufBytes().header(kHuge, 0)),
              HasSubstr("the number of tensors at byte 8: 9223372036854775808 is claimed, but the 8 bytes that follow "
                        "hold at most 0"));
  EXPECT_THAT(refusal(GgufBytes().header(0, kHuge)), HasSubstr("the number of keys at byte 16: 9223372036854775808"));
  EXPECT_THAT(refusal(GgufBytes().header(0, 3).data(41)),
              HasSubstr("the number of keys at byte 16: 3 is claimed, but the 41 bytes that follow hold at most 2"));
}

TEST(GgufMalformed, MoreKeysThanAnyFileHas) {
  EXPECT_THAT(refusal(GgufBytes().header(0, 100'001).data(2'000'000)),
              HasSubstr("100001 keys, expected at most 100000"));
}

TEST(GgufMalformed, Keys) {
  EXPECT_THAT(refusal(GgufBytes().header(0, 1).u64(kHuge).data(20)),
              HasSubstr("a key at byte 24: 9223372036854775808 bytes long, expected at most 65535"));
  EXPECT_THAT(refusal(GgufBytes().header(0, 1).u64(21).data(20)),
              HasSubstr("a key at byte 32: expected 21 bytes, but only 20 are left"));
  EXPECT_THAT(refusal(one_key("", kU32).u32(1)), HasSubstr("a key at byte 24: empty, expected 1 to 65535 bytes"));
  EXPECT_THAT(refusal(one_key("a\x1b[31m", kU32).u32(1)),
              HasSubstr("a key at byte 24: 'a\\x1b[31m' is not UTF-8 without control characters"));
  EXPECT_THAT(refusal(one_key("\xc0\xaf", kU32).u32(1)), HasSubstr("'\\xc0\\xaf' is not UTF-8"));
  EXPECT_THAT(refusal(GgufBytes().header(0, 2).key("k", kU32).u32(1).key("k", kU32).u32(2)),
              HasSubstr("key 'k' stands twice"));
  const std::string long_name(60'000, 'x');
  EXPECT_THAT(refusal(one_key(long_name, 13).u32(1)), HasSubstr("xxx...'"));
}

TEST(GgufMalformed, Values) {
  EXPECT_THAT(refusal(one_key("k", 13).u64(1)),
              HasSubstr("the type of 'k' at byte 33: unknown number 13, expected 0 to 12"));
  EXPECT_THAT(refusal(one_key("k", kU32).raw("ab")),
              HasSubstr("the value of 'k' at byte 37: expected 4 bytes, but only 2 are left"));
  EXPECT_THAT(refusal(one_key("k", kBool).raw("\2")),
              HasSubstr("the value of 'k' at byte 37: a bool of value 2, expected 0 or 1"));
  EXPECT_THAT(refusal(one_key("k", kString).u64(kHuge)),
              HasSubstr("the value of 'k' at byte 45: expected 9223372036854775808 bytes, but only 0 are left"));
  EXPECT_THAT(refusal(one_key("k", kString).u64(std::numeric_limits<uint64_t>::max())),
              HasSubstr("expected 18446744073709551615 bytes, but only 0 are left"));
}

TEST(GgufMalformed, Arrays) {
  EXPECT_THAT(refusal(one_key("k", kArray).u32(kArray).u64(0)),
              HasSubstr("the element type of 'k' at byte 37: an array of arrays, expected numbers, bools or strings"));
  EXPECT_THAT(refusal(one_key("k", kArray).u32(99).u64(0)),
              HasSubstr("the element type of 'k' at byte 37: unknown number 99, expected 0 to 12"));
  // Lengths whose byte count overflows, and one more than there are bytes for.
  for (const uint64_t length :
       {kHuge, kHuge / 2, uint64_t{1} << 62, std::numeric_limits<uint64_t>::max(), uint64_t{3}}) {
    EXPECT_THAT(refusal(one_key("k", kArray).u32(kU32).u64(length).data(8)),
                HasSubstr("the array 'k' at byte 41: " + std::to_string(length) +
                          " is claimed, but the 8 bytes that follow hold at most 2"));
  }
  EXPECT_THAT(refusal(one_key("k", kArray).u32(kString).u64(2).data(15)),
              HasSubstr("2 is claimed, but the 15 bytes that follow hold at most 1"));
  EXPECT_THAT(refusal(one_key("k", kArray).u32(kString).u64(2).text("").u64(1)),
              HasSubstr("the array 'k' at byte 65: expected 1 bytes, but only 0 are left"));
  EXPECT_THAT(refusal(one_key("k", kArray).u32(kBool).u64(9).data(8)), HasSubstr("hold at most 8"));
  EXPECT_THAT(refusal(one_key("k", kArray).u32(kBool).u64(2).raw("\1\xff")),
              HasSubstr("the array 'k' at byte 50: a bool of value 255, expected 0 or 1"));
}

TEST(GgufMalformed, Alignment) {
  for (const uint32_t alignment : {0u, 1u, 4u, 12u, 33u, 1u << 25, 1u << 31, 0xffffffffu}) {
    EXPECT_THAT(refusal(one_key("general.alignment", kU32).u32(alignment)),
                HasSubstr("key 'general.alignment' is " + std::to_string(alignment) +
                          ", expected a power of two from 8 to 16777216"));
  }
  EXPECT_THAT(refusal(one_key("general.alignment", kString).text("32")),
              HasSubstr("key 'general.alignment' is not a uint32"));
}

TEST(GgufMalformed, SplitModels) {
  EXPECT_THAT(refusal(one_key("split.count", 2).number<uint16_t>(3)),
              HasSubstr("one of 3 parts of a split model, expected a single file"));
  EXPECT_EQ(refusal(one_key("split.count", 2).number<uint16_t>(1)), "");
}

TEST(GgufMalformed, TensorNames) {
  EXPECT_THAT(refusal(GgufBytes().header(1, 0).tensor("", {1}, 0, 0).pad().data(4)),
              HasSubstr("a tensor's name at byte 24: empty, expected 1 to 64 bytes"));
  EXPECT_THAT(refusal(GgufBytes().header(1, 0).tensor(std::string(65, 'n'), {1}, 0, 0).pad().data(4)),
              HasSubstr("a tensor's name at byte 24: 65 bytes long, expected at most 64"));
  EXPECT_THAT(refusal(GgufBytes().header(2, 0).tensor("t", {1}, 0, 0).tensor("t", {1}, 0, 32).pad().data(64)),
              HasSubstr("tensor 't' stands twice"));
}

TEST(GgufMalformed, Dimensions) {
  EXPECT_THAT(refusal(one_tensor({1, 1, 1, 1, 1}, 0, 0, 4)),
              HasSubstr("the number of dimensions of 't' at byte 33: 5 dimensions, expected at most 4"));
  EXPECT_THAT(refusal(one_tensor({2, 0}, 0, 0, 4)),
              HasSubstr("a dimension of 't' at byte 45: 0, expected 1 to 9223372036854775807"));
  EXPECT_THAT(refusal(one_tensor({kHuge}, 0, 0, 4)), HasSubstr("a dimension of 't' at byte 37: 9223372036854775808"));
  EXPECT_THAT(refusal(one_tensor({std::numeric_limits<uint64_t>::max()}, 0, 0, 4)), HasSubstr("18446744073709551615"));
  EXPECT_THAT(refusal(GgufBytes().header(1, 0).text("t").u32(0xffffffff).data(16)),
              HasSubstr("4294967295 dimensions, expected at most 4"));
}

TEST(GgufMalformed, SizesThatOverflow) {
  const uint64_t square = uint64_t{1} << 32;
  EXPECT_THAT(refusal(one_tensor({square, square}, 0, 0, 4)),
              HasSubstr("tensor 't' has dimensions 4294967296 x 4294967296, whose size overflows"));
  // 2^62 values: the count fits 63 bits, four bytes each do not.
  EXPECT_THAT(refusal(one_tensor({uint64_t{1} << 62}, 0, 0, 4)), HasSubstr("whose size overflows"));
  // In 64 bits the sum of offset and size wraps to something small.
  EXPECT_THAT(
      refusal(one_tensor({16}, 0, 0xffffffffffffffe0u, 64)),
      HasSubstr("tensor 't' needs 64 bytes at offset 18446744073709551584 of the tensor data, which ends after 64"));
}

TEST(GgufMalformed, Types) {
  EXPECT_THAT(
      refusal(one_tensor({256}, 16, 0, 66)),
      HasSubstr("the type of tensor 't' at byte 45: IQ2_XXS (16) is not supported, expected one of f32, f16, bf16"));
  EXPECT_THAT(refusal(one_tensor({32}, 39, 0, 17)), HasSubstr("MXFP4 (39) is not supported"));
  EXPECT_THAT(refusal(one_tensor({1}, 26, 0, 4)), HasSubstr("I32 (26) is not supported"));
  EXPECT_THAT(refusal(one_tensor({1}, 4, 0, 4)), HasSubstr("unknown type (4) is not supported"));
  EXPECT_THAT(refusal(one_tensor({1}, 4711, 0, 4)), HasSubstr("unknown type (4711) is not supported"));
  EXPECT_THAT(refusal(one_tensor({33, 32}, 8, 0, 34 * 33)),
              HasSubstr("tensor 't' has rows of 33 values, expected a multiple of q8_0's block of 32"));
  EXPECT_THAT(refusal(one_tensor({}, 8, 0, 34)), HasSubstr("tensor 't' has rows of 1 values"));
}

TEST(GgufMalformed, Offsets) {
  EXPECT_THAT(refusal(one_tensor({1}, 0, 4, 40)),
              HasSubstr("the offset of tensor 't' at byte 49: 4, expected a multiple of the alignment 32"));
  EXPECT_THAT(refusal(one_tensor({1}, 0, 32, 32)), HasSubstr("needs 4 bytes at offset 32"));
  EXPECT_THAT(refusal(one_tensor({2}, 0, 0, 7)),
              HasSubstr("tensor 't' needs 8 bytes at offset 0 of the tensor data, which ends after 7"));
  EXPECT_THAT(refusal(one_tensor({1}, 0, 0, 4).cut(5)), HasSubstr("which ends after 0"));  // before the padding ends
}

TEST(GgufMalformed, Overlaps) {
  const auto two = [](uint64_t first, uint64_t second) {
    GgufBytes file;
    return file.header(2, 0).tensor("a", {9}, 0, first).tensor("b", {2}, 0, second).pad().data(128);
  };
  EXPECT_THAT(refusal(two(0, 32)),
              HasSubstr("tensors 'a' and 'b' overlap: one ends at 36 of the tensor data, the other "
                        "starts at 32"));
  EXPECT_THAT(refusal(two(32, 32)), HasSubstr("overlap"));
  EXPECT_EQ(refusal(two(32, 0)), "");
  EXPECT_EQ(refusal(two(0, 64)), "");
}

TEST(GgufMalformed, TruncatedAnywhere) {
  GgufBytes whole;
  whole.header(2, 3).key("a", kString).text("text").key("b", kArray).u32(kString).u64(2).text("x").text("y");
  whole.key("c", kBool).number<uint8_t>(1).tensor("s", {32, 2}, 2, 0).tensor("t", {3}, 1, 64).pad().data(70);
  ASSERT_EQ(refusal(whole), "");
  for (size_t cut = 1; cut <= whole.bytes().size(); ++cut) EXPECT_NE(refusal(GgufBytes(whole).cut(cut)), "") << cut;
}

}  // namespace
}  // namespace pare
