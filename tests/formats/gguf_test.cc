#include "formats/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <limits>

#include "base/error.h"
#include "formats/gguf_bytes.h"
#include "temporary_folder.h"

namespace pare {
namespace {

using test::GgufBytes;
using test::TemporaryFolder;
using testing::HasSubstr;
using testing::StrEq;
using testing::ThrowsMessage;

GgufFile parse(const GgufBytes& file) { return GgufFile::parse(file.bytes(), "test.gguf"); }

/// A value of every metadata type, with the extremes of each.
GgufMetadata every_type() {
  GgufMetadata metadata("here");
  metadata.set("u8", uint8_t{255});
  metadata.set("i8", int8_t{-128});
  metadata.set("u16", uint16_t{65535});
  metadata.set("i16", int16_t{-32768});
  metadata.set("u32", std::numeric_limits<uint32_t>::max());
  metadata.set("i32", std::numeric_limits<int32_t>::min());
  metadata.set("u64", std::numeric_limits<uint64_t>::max());
  metadata.set("i64", std::numeric_limits<int64_t>::min());
  metadata.set("f32", 0.1f);
  metadata.set("f64", 0.1);
  metadata.set("bool", true);
  metadata.set("string", std::string("a\0b\xff", 4));  // values may hold any bytes
  metadata.set("u8s", std::vector<uint8_t>{0, 255});
  metadata.set("i8s", std::vector<int8_t>{-128, 127});
  metadata.set("u16s", std::vector<uint16_t>{65535});
  metadata.set("i16s", std::vector<int16_t>{-32768});
  metadata.set("u32s", std::vector<uint32_t>{1, 2, 3});
  metadata.set("i32s", std::vector<int32_t>{-1});
  metadata.set("u64s", std::vector<uint64_t>{std::numeric_limits<uint64_t>::max()});
  metadata.set("i64s", std::vector<int64_t>{-1, 0});
  metadata.set("f32s", std::vector<float>{1.5f, -0.0f});
  metadata.set("f64s", std::vector<double>{0.1});
  metadata.set("bools", std::vector<bool>{true, false, true});
  metadata.set("strings", std::vector<std::string>{"", "naïve", "c"});
  metadata.set("empty", std::vector<int32_t>{});
  return metadata;
}

GgufTensorToWrite tensor_to_write(const std::string& name, DType type, const Shape& shape,
                                  std::vector<std::byte> bytes) {
  return {name, type, shape, [held = std::move(bytes)](FunctionRef<void(std::span<const std::byte>)> sink) {
            // In two pieces, as a producer may.
            const size_t half = held.size() / 2;
            sink(std::span(held).first(half));
            sink(std::span(held).subspan(half));
          }};
}

std::vector<std::byte> counting(size_t size, int first) {
  std::vector<std::byte> bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(first + static_cast<int>(i));
  return bytes;
}

GgufFile write_and_open(const TemporaryFolder& folder, const GgufMetadata& metadata,
                        const std::vector<GgufTensorToWrite>& tensors) {
  OutputFile out(folder / "out.gguf");
  write_gguf(out, metadata, tensors);
  out.commit();
  return GgufFile::open(folder / "out.gguf");
}

TEST(Gguf, ReadsBothVersions) {
  for (const uint32_t version : {2u, 3u}) {
    GgufBytes file;
    file.header(2, 2, version).key("a.b", 8).text("value").key("n", 4).u32(7);
    file.tensor("first", {3, 2}, 0, 0).tensor("second", {32}, 8, 32).pad().data(24, 1).pad().data(34, 2);
    const GgufFile read = parse(file);
    EXPECT_EQ(read.version, version);
    EXPECT_EQ(read.alignment, 32u);
    EXPECT_EQ(read.metadata.get_string("a.b"), "value");
    EXPECT_EQ(read.metadata.get_int("n"), 7);
    ASSERT_EQ(read.tensors.size(), 2u);
    EXPECT_EQ(read.tensors[0].name, "first");
    EXPECT_EQ(read.tensors[0].view.shape, (Shape{2, 3}));
    EXPECT_EQ(read.tensors[0].view.type, DType::kF32);
    EXPECT_EQ(read.tensors[0].view.bytes.size(), 24u);
    EXPECT_EQ(read.tensors[0].view.bytes[0], std::byte{1});
    EXPECT_EQ(read.tensors[1].view.type, DType::kQ8_0);
    EXPECT_EQ(read.tensors[1].view.bytes.size(), 34u);
    EXPECT_EQ(read.tensors[1].view.bytes[0], std::byte{2});
  }
}

TEST(Gguf, ReadsOtherAlignments) {
  GgufBytes file;
  file.header(2, 1).key("general.alignment", 4).u32(64).tensor("first", {1}, 0, 64).tensor("second", {1}, 0, 0);
  ASSERT_LE(file.bytes().size() % 64, 32u);  // so that the default alignment would lead elsewhere
  file.pad(64).data(4, 9).pad(64).data(4, 7);
  const GgufFile read = parse(file);
  EXPECT_EQ(read.alignment, 64u);
  EXPECT_EQ(read.tensors[0].view.bytes[0], std::byte{7});
  EXPECT_EQ(read.tensors[1].view.bytes[0], std::byte{9});
}

TEST(Gguf, ReadsAHeaderWithoutTensors) {
  EXPECT_TRUE(parse(GgufBytes().header(0, 0)).tensors.empty());
  EXPECT_EQ(parse(GgufBytes().header(0, 1).key("x", 7).number<uint8_t>(1)).metadata.find_bool("x"), true);
}

TEST(Gguf, ReadsAScalarTensor) {
  const GgufFile read = parse(GgufBytes().header(1, 0).tensor("s", {}, 0, 0).pad().data(4));
  EXPECT_EQ(read.tensors[0].view.shape.rank(), 0);
  EXPECT_EQ(read.tensors[0].view.bytes.size(), 4u);
}

TEST(Gguf, ReadsBackWhatItWrote) {
  const TemporaryFolder folder;
  const std::vector<GgufTensorToWrite> tensors = {
      tensor_to_write("token_embd.weight", DType::kF32, Shape{2, 3}, counting(24, 1)),
      tensor_to_write("half", DType::kF16, Shape{5}, counting(10, 2)),
      tensor_to_write("brain", DType::kBF16, Shape{1, 2, 1, 3}, counting(12, 3)),
      tensor_to_write("eight", DType::kQ8_0, Shape{2, 32}, counting(68, 4)),
      tensor_to_write("four", DType::kQ4_0, Shape{1, 64}, counting(36, 5)),
      tensor_to_write("scalar", DType::kF32, Shape{}, counting(4, 6)),
  };
  const GgufFile read = write_and_open(folder, every_type(), tensors);
  EXPECT_EQ(gguf_bytes(every_type(), tensors), read.mapping->bytes().size());
  EXPECT_EQ(read.version, 3u);
  EXPECT_EQ(read.metadata.entries(), every_type().entries());
  ASSERT_EQ(read.tensors.size(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_EQ(read.tensors[i].name, tensors[i].name);
    EXPECT_EQ(read.tensors[i].view.type, tensors[i].type);
    EXPECT_EQ(read.tensors[i].view.shape, tensors[i].shape);
    const auto bytes = read.tensors[i].view.bytes;
    const auto expected = counting(bytes.size(), static_cast<int>(i) + 1);
    EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), expected.begin(), expected.end())) << tensors[i].name;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(bytes.data()) % 32, 0u);
  }
}

TEST(Gguf, WritesItsOwnAlignment) {
  const TemporaryFolder folder;
  GgufMetadata metadata;
  metadata.set("general.alignment", uint32_t{64});
  metadata.set("after", uint32_t{1});
  const GgufFile read = write_and_open(folder, metadata, {tensor_to_write("t", DType::kF32, Shape{1}, counting(4, 0))});
  EXPECT_EQ(read.alignment, 32u);
  EXPECT_EQ(read.metadata.entries()[0].first, "general.alignment");
}

TEST(Gguf, OpenNamesAMissingFile) {
  EXPECT_THAT([] { GgufFile::open("no/such.gguf"); }, ThrowsMessage<Error>(HasSubstr("no/such.gguf: cannot open")));
}

TEST(Gguf, OpenNamesAnEmptyFile) {
  const TemporaryFolder folder;
  const auto path = folder.write("empty.gguf", "");
  EXPECT_THAT([&] { GgufFile::open(path); }, ThrowsMessage<Error>(HasSubstr("empty.gguf: not a GGUF file")));
}

TEST(GgufWriter, ChecksWhatProducersGive) {
  const TemporaryFolder folder;
  const auto write = [&](size_t bytes) {
    write_and_open(folder, {}, {tensor_to_write("t", DType::kF32, Shape{2}, counting(bytes, 0))});
  };
  EXPECT_THAT([&] { write(4); }, ThrowsMessage<Error>(HasSubstr("tensor 't' gave 4 bytes, expected 8")));
  EXPECT_THAT([&] { write(12); }, ThrowsMessage<Error>(HasSubstr("tensor 't' gave more than the 8 bytes")));
  const GgufTensorToWrite nothing{"t", DType::kF32, Shape{2}, {}};
  EXPECT_THAT([&] { write_and_open(folder, {}, {nothing}); },
              ThrowsMessage<Error>(HasSubstr("tensor 't' has no bytes")));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));  // nothing half-written stays
}

TEST(GgufWriter, RefusesWhatTheFormatCannotHold) {
  const TemporaryFolder folder;
  const auto write = [&](const std::string& name, DType type, const Shape& shape) {
    write_and_open(folder, {}, {tensor_to_write(name, type, shape, {})});
  };
  EXPECT_THAT(
      [&] {
        write("t", DType::kQ8_0, (Shape{2, 33}));
      },
      ThrowsMessage<Error>(HasSubstr("shape [2, 33] cannot be stored as q8_0")));
  EXPECT_THAT([&] { write("t", DType::kF32, (Shape{2, 0})); }, ThrowsMessage<Error>(HasSubstr("shape [2, 0]")));
  EXPECT_THAT(
      [&] {
        write("t", DType::kF32, (Shape{1, 1, 1, 1, 1}));
      },
      ThrowsMessage<Error>(HasSubstr("at most 4 dimensions")));
  EXPECT_THAT([&] { write(std::string(64, 'n'), DType::kF32, Shape{1}); },
              ThrowsMessage<Error>(HasSubstr("expected 1 to 63 bytes")));
  EXPECT_THAT([&] { write("", DType::kF32, Shape{1}); }, ThrowsMessage<Error>(HasSubstr("expected 1 to 63 bytes")));
  EXPECT_THAT([&] { write("a\nb", DType::kF32, Shape{1}); }, ThrowsMessage<Error>(HasSubstr("'a\\x0ab'")));
  const auto twice = tensor_to_write("t", DType::kF32, Shape{1}, counting(4, 0));
  EXPECT_THAT(
      [&] {
        write_and_open(folder, {}, {twice, twice});
      },
      ThrowsMessage<Error>(HasSubstr("tensor 't' stands twice")));
  GgufMetadata metadata;
  metadata.set("a\x01", uint8_t{1});
  EXPECT_THAT([&] { write_and_open(folder, metadata, {}); }, ThrowsMessage<Error>(HasSubstr("key 'a\\x01'")));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(GgufWriter, ReportsADiskThatTakesNoMore) {
  const TemporaryFolder folder;
  const auto tensor = tensor_to_write("t", DType::kF32, Shape{1 << 20}, counting(4 << 20, 0));
  const test::FileSizeLimit limit(100'000);
  EXPECT_THAT([&] { write_and_open(folder, {}, {tensor}); }, ThrowsMessage<Error>(HasSubstr("out.gguf: cannot write")));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(GgufMetadata, ReplacesAndErases) {
  GgufMetadata metadata;
  metadata.set("a", uint8_t{1});
  metadata.set("b", uint8_t{2});
  metadata.set("a", std::string("x"));
  EXPECT_EQ(metadata.entries().size(), 2u);
  EXPECT_EQ(metadata.entries()[0].first, "a");  // keeps its place
  EXPECT_EQ(metadata.get_string("a"), "x");
  metadata.erase("a");
  metadata.erase("a");
  EXPECT_EQ(metadata.find("a"), nullptr);
  EXPECT_EQ(metadata.get_int("b"), 2);
}

TEST(GgufMetadata, WidensEveryInteger) {
  const GgufMetadata metadata = every_type();
  EXPECT_EQ(metadata.get_int("u8"), 255);
  EXPECT_EQ(metadata.get_int("i8"), -128);
  EXPECT_EQ(metadata.get_int("u16"), 65535);
  EXPECT_EQ(metadata.get_int("i16"), -32768);
  EXPECT_EQ(metadata.get_int("u32"), 4294967295);
  EXPECT_EQ(metadata.get_int("i64"), std::numeric_limits<int64_t>::min());
  EXPECT_EQ(metadata.find_ints("i8s"), (std::vector<int64_t>{-128, 127}));
  EXPECT_EQ(metadata.find_ints("u32s"), (std::vector<int64_t>{1, 2, 3}));
  EXPECT_EQ(metadata.find_ints("empty"), std::vector<int64_t>{});
  EXPECT_THAT([&] { metadata.get_int("u64"); },
              ThrowsMessage<Error>(StrEq("here: key 'u64' holds 18446744073709551615, expected at most "
                                         "9223372036854775807")));
  EXPECT_THAT([&] { metadata.find_ints("u64s"); },
              ThrowsMessage<Error>(HasSubstr("'u64s' holds 18446744073709551615")));
}

TEST(GgufMetadata, GivesNumbersOfEveryKind) {
  const GgufMetadata metadata = every_type();
  EXPECT_EQ(metadata.get_number("f64"), 0.1);
  EXPECT_EQ(metadata.get_number("f32"), static_cast<double>(0.1f));
  EXPECT_EQ(metadata.get_number("i8"), -128.0);
  EXPECT_EQ(metadata.find_numbers("f32s"), (std::vector<double>{1.5, -0.0}));
  EXPECT_EQ(metadata.find_numbers("u8s"), (std::vector<double>{0, 255}));
  EXPECT_EQ(metadata.find_bool("bool"), true);
  EXPECT_EQ(metadata.find_strings("strings")->at(1), "naïve");
}

TEST(GgufMetadata, NamesWhatIsMissing) {
  const GgufMetadata metadata("m.gguf");
  EXPECT_THAT([&] { metadata.get_int("a.b"); },
              ThrowsMessage<Error>(StrEq("m.gguf: key 'a.b' is missing, expected an integer")));
  EXPECT_THAT([&] { metadata.get_number("a.b"); }, ThrowsMessage<Error>(HasSubstr("expected a number")));
  EXPECT_THAT([&] { metadata.get_string("a.b"); }, ThrowsMessage<Error>(HasSubstr("expected a string")));
  EXPECT_FALSE(metadata.find_int("a.b") || metadata.find_number("a.b") || metadata.find_bool("a.b") ||
               metadata.find_string("a.b") || metadata.find_strings("a.b") || metadata.find_ints("a.b") ||
               metadata.find_numbers("a.b"));
}

TEST(GgufMetadata, NamesWhatIsOfAnotherKind) {
  const GgufMetadata metadata = every_type();
  EXPECT_THAT([&] { metadata.find_int("string"); },
              ThrowsMessage<Error>(StrEq("here: key 'string' is a string, expected an integer")));
  EXPECT_THAT([&] { metadata.find_int("bool"); }, ThrowsMessage<Error>(HasSubstr("is a bool, expected an integer")));
  EXPECT_THAT([&] { metadata.find_int("f32"); }, ThrowsMessage<Error>(HasSubstr("is a float, expected an integer")));
  EXPECT_THAT([&] { metadata.find_int("u8s"); }, ThrowsMessage<Error>(HasSubstr("is an array of integers")));
  EXPECT_THAT([&] { metadata.find_number("f64s"); }, ThrowsMessage<Error>(HasSubstr("is an array of floats")));
  EXPECT_THAT([&] { metadata.find_bool("u8"); }, ThrowsMessage<Error>(HasSubstr("is an integer, expected a bool")));
  EXPECT_THAT([&] { metadata.find_string("bools"); }, ThrowsMessage<Error>(HasSubstr("is an array of bools")));
  EXPECT_THAT([&] { metadata.find_strings("string"); },
              ThrowsMessage<Error>(HasSubstr("expected an array of strings")));
  EXPECT_THAT([&] { metadata.find_ints("strings"); }, ThrowsMessage<Error>(HasSubstr("is an array of strings")));
  EXPECT_THAT([&] { metadata.find_ints("bools"); }, ThrowsMessage<Error>(HasSubstr("expected an array of integers")));
  EXPECT_THAT([&] { metadata.find_numbers("f32"); }, ThrowsMessage<Error>(HasSubstr("expected an array of numbers")));
}

}  // namespace
}  // namespace pare
