// safetensors files and folders that are not what they claim: each must be refused with a line that names the file, the
// place, and what was expected there.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/error.h"
#include "formats/safetensors.h"
#include "formats/safetensors_types.h"
#include "refusal.h"
#include "temporary_folder.h"

namespace pare {
namespace {

using test::TemporaryFolder;
using testing::HasSubstr;
using testing::ThrowsMessage;

std::string with_length(uint64_t length, const std::string& rest) {
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + rest;
}

std::string file_of(const std::string& header, size_t size = 0) {
  return with_length(header.size(), header + std::string(size, 'x'));
}

/// The message with which the bytes are refused; "" if they are not.
std::string refusal_of_bytes(const std::string& bytes) {
  return test::refusal_of_file("bad.safetensors",
                               [&] { SafetensorsFile::parse(std::as_bytes(std::span(bytes)), "bad.safetensors"); });
}

std::string refusal(const std::string& header, size_t size = 0) { return refusal_of_bytes(file_of(header, size)); }

/// A header of one tensor whose entry is this.
std::string entry(const std::string& members) { return R"({"t":{)" + members + "}}"; }

TEST(SafetensorsMalformed, HeaderSize) {
  EXPECT_THAT(refusal_of_bytes(""), HasSubstr("0 bytes long, expected a safetensors file to start with 8 bytes"));
  EXPECT_THAT(refusal_of_bytes("1234567"), HasSubstr("7 bytes long"));
  EXPECT_THAT(refusal_of_bytes(with_length(3, "{}")), HasSubstr("header of 3 bytes, but only 2 are left in the file"));
  EXPECT_THAT(refusal_of_bytes(with_length(100'000'001, "{}")),
              HasSubstr("header of 100000001 bytes, expected at most "));
  EXPECT_THAT(refusal_of_bytes(with_length(~uint64_t{0}, "{}")), HasSubstr("header of 18446744073709551615 bytes"));
}

TEST(SafetensorsMalformed, Json) {
  EXPECT_THAT(refusal(""), HasSubstr("header does not start with '{'"));
  EXPECT_THAT(refusal(" {}"), HasSubstr("header does not start with '{'"));
  EXPECT_THAT(refusal("[]"), HasSubstr("header does not start with '{'"));
  EXPECT_THAT(refusal("{"), HasSubstr("header: not valid JSON at byte 2"));
  EXPECT_THAT(refusal("{}{"), HasSubstr("header: not valid JSON at byte 3"));
  EXPECT_THAT(refusal("{\"a\xff\":1}"), HasSubstr("header: not valid JSON at byte 4"));
  EXPECT_THAT(refusal("{\"a\":1e999}"), HasSubstr("header: not valid JSON"));
  EXPECT_THAT(refusal(std::string("{\0}", 3)), HasSubstr("header: not valid JSON"));
  std::string deep = "{";
  for (int i = 0; i < 3000; ++i) deep += "\"a\":{";
  EXPECT_THAT(refusal(deep),
              HasSubstr("an object at 'a' / 'a': expected tensors of dtype, shape and data_offsets only"));
}

TEST(SafetensorsMalformed, DuplicateKeys) {
  const std::string tensor = R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
  EXPECT_THAT(refusal("{\"t\":" + tensor + ",\"t\":" + tensor + "}", 4),
              HasSubstr("header: key 't' stands twice in one object"));
  EXPECT_THAT(refusal(entry(R"("dtype":"F32","dtype":"F16","shape":[1],"data_offsets":[0,4])"), 4),
              HasSubstr("key 'dtype' stands twice"));
  EXPECT_THAT(refusal(R"({"__metadata__":{"a":"1","a":"2"}})"), HasSubstr("key 'a' stands twice"));
}

TEST(SafetensorsMalformed, Entries) {
  EXPECT_THAT(refusal(R"({"t":1})"), HasSubstr("header: a value at 't': expected tensors of dtype, shape"));
  EXPECT_THAT(refusal(R"({"t":[]})"), HasSubstr("header: an array at 't'"));
  EXPECT_THAT(refusal(R"({"t":null})"), HasSubstr("header: a value at 't'"));
  EXPECT_THAT(refusal(R"({"t":{}})"), HasSubstr("tensor 't': dtype is missing"));
  EXPECT_THAT(refusal(entry(R"("dtype":"F32")")), HasSubstr("tensor 't': shape is missing"));
  EXPECT_THAT(refusal(entry(R"("dtype":"F32","shape":[])")), HasSubstr("tensor 't': data_offsets is missing"));
  EXPECT_THAT(refusal(entry(R"("dtype":"F32","shape":[1],"data_offsets":[0,4],"more":1)"), 4),
              HasSubstr("a value at 't' / 'more'"));
  EXPECT_THAT(refusal(R"({"":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4), HasSubstr("tensor name ''"));
  EXPECT_THAT(refusal("{\"a\\u001b[0m\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4),
              HasSubstr("tensor name 'a\\x1b[0m': expected one or more characters, none a control character"));
}

TEST(SafetensorsMalformed, Metadata) {
  EXPECT_THAT(refusal(R"({"__metadata__":{"a":1}})"), HasSubstr("metadata 'a' is not a string"));
  EXPECT_THAT(refusal(R"({"__metadata__":{"a":{}}})"), HasSubstr("an object at '__metadata__' / 'a'"));
  EXPECT_THAT(refusal(R"({"__metadata__":{"shape":[]}})"), HasSubstr("an array at '__metadata__' / 'shape'"));
  EXPECT_THAT(refusal(R"({"__metadata__":[]})"), HasSubstr("an array at '__metadata__'"));
  EXPECT_THAT(refusal(R"({"__metadata__":"x"})"), HasSubstr("a value at '__metadata__'"));
  std::string many;
  for (int i = 0; i <= 100'000; ++i) many += (i ? ",\"" : "\"") + std::to_string(i) + "\":\"\"";
  EXPECT_THAT(refusal("{\"__metadata__\":{" + many + "}}"), HasSubstr("more than 100000 entries of metadata"));
}

TEST(SafetensorsMalformed, Types) {
  EXPECT_THAT(refusal(entry(R"("dtype":"F33","shape":[1],"data_offsets":[0,4])"), 4),
              HasSubstr("tensor 't': unknown dtype 'F33'"));
  EXPECT_THAT(refusal(entry(R"("dtype":32,"shape":[1],"data_offsets":[0,4])"), 4),
              HasSubstr("tensor 't': dtype is not a string"));
  EXPECT_THAT(refusal(entry(R"("dtype":["F32"],"shape":[1],"data_offsets":[0,4])"), 4),
              HasSubstr("an array at 't' / 'dtype'"));
}

TEST(SafetensorsMalformed, Shapes) {
  const auto shape = [](const std::string& shape_json) {
    return refusal(entry("\"dtype\":\"F32\",\"shape\":" + shape_json + ",\"data_offsets\":[0,4]"), 4);
  };
  EXPECT_EQ(shape("[1]"), "");
  EXPECT_THAT(shape("1"), HasSubstr("a value at 't' / 'shape'"));
  EXPECT_THAT(shape("{}"), HasSubstr("an object at 't' / 'shape'"));
  EXPECT_THAT(shape("[[1]]"), HasSubstr("an array at 't' / 'shape'"));
  EXPECT_THAT(shape("[{}]"), HasSubstr("an object at 't' / 'shape'"));
  for (const char* dim : {"-1", "1.0", "1e3", "\"1\"", "null", "true", "9223372036854775808", "18446744073709551616"}) {
    EXPECT_THAT(shape("[" + std::string(dim) + "]"),
                HasSubstr("tensor 't': a dimension is not a whole number from 0 to 2^63 - 1"))
        << dim;
  }
  EXPECT_THAT(shape("[1,1,1,1,1,1]"), HasSubstr("tensor 't': more than 5 dimensions"));
  EXPECT_THAT(shape("[4294967296,4294967296]"),
              HasSubstr("tensor 't': dimensions 4294967296 x 4294967296 of F32: their size overflows"));
  EXPECT_THAT(shape("[4611686018427387904]"), HasSubstr("their size overflows"));
  EXPECT_THAT(shape("[2]"), HasSubstr("tensor 't': data_offsets 0 to 4, expected 8 bytes for F32 of shape [2]"));
}

TEST(SafetensorsMalformed, ForeignShapes) {
  EXPECT_THAT(refusal(entry(R"("dtype":"I64","shape":[2305843009213693952],"data_offsets":[0,8])"), 8),
              HasSubstr("of I64: their size overflows"));
  EXPECT_THAT(refusal(entry(R"("dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,8])"), 8),
              HasSubstr("of U8: their size overflows"));
  EXPECT_THAT(refusal(entry(R"("dtype":"F4","shape":[3],"data_offsets":[0,2])"), 2),
              HasSubstr("or ends within a byte"));
  EXPECT_THAT(refusal(entry(R"("dtype":"F6_E2M3","shape":[4],"data_offsets":[0,4])"), 4),
              HasSubstr("expected 3 bytes"));
}

TEST(SafetensorsMalformed, Offsets) {
  const auto offsets = [](const std::string& offsets_json, size_t size = 4) {
    return refusal(entry("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":" + offsets_json), size);
  };
  EXPECT_EQ(offsets("[0,4]"), "");
  EXPECT_THAT(offsets("[]"), HasSubstr("tensor 't': data_offsets are not two numbers"));
  EXPECT_THAT(offsets("[0]"), HasSubstr("data_offsets are not two numbers"));
  EXPECT_THAT(offsets("[0,4,8]"), HasSubstr("data_offsets are not two numbers"));
  EXPECT_THAT(offsets("[0,-4]"), HasSubstr("data_offsets are not whole numbers"));
  EXPECT_THAT(offsets("[0,\"4\"]"), HasSubstr("data_offsets are not whole numbers"));
  EXPECT_THAT(offsets("4"), HasSubstr("a value at 't' / 'data_offsets'"));
  EXPECT_THAT(offsets("[4,0]"), HasSubstr("data_offsets 4 to 0, expected 4 bytes"));
  EXPECT_THAT(offsets("[18446744073709551612,0]"), HasSubstr("data_offsets 18446744073709551612 to 0"));
  EXPECT_THAT(offsets("[4,8]", 8), HasSubstr("tensor 't' starts at 4 of the tensor data, expected 0 (nothing may lie "
                                             "between tensors)"));
  EXPECT_THAT(offsets("[0,4]", 3), HasSubstr("tensors end at 4 of the tensor data, which has 3 bytes"));
  EXPECT_THAT(offsets("[0,4]", 5), HasSubstr("tensors end at 4 of the tensor data, which has 5 bytes"));
  EXPECT_THAT(refusal("{}", 1), HasSubstr("tensors end at 0 of the tensor data, which has 1 bytes"));
}

TEST(SafetensorsMalformed, OverlapsAndHoles) {
  const auto two = [](const std::string& first, const std::string& second) {
    return refusal(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":)" + first +
                       R"(},"b":{"dtype":"F32","shape":[1],"data_offsets":)" + second + "}}",
                   12);
  };
  EXPECT_EQ(two("[0,8]", "[8,12]"), "");
  EXPECT_EQ(two("[4,12]", "[0,4]"), "");
  EXPECT_THAT(two("[0,8]", "[4,8]"),
              HasSubstr("tensor 'b' starts at 4 of the tensor data, expected 8 (it overlaps another)"));
  EXPECT_THAT(two("[0,8]", "[0,4]"), HasSubstr("tensor 'a' starts at 0 of the tensor data, expected 4"));
  EXPECT_THAT(two("[0,8]", "[9,13]"), HasSubstr("tensor 'b' starts at 9 of the tensor data, expected 8 (nothing may"));
}

TEST(SafetensorsMalformed, TruncatedAnywhere) {
  const std::string whole =
      file_of(R"({"__metadata__":{"a":"b"},"t":{"dtype":"F16","shape":[2,2],"data_offsets":[0,8]}})", 8);
  ASSERT_EQ(refusal_of_bytes(whole), "");
  for (size_t size = 0; size < whole.size(); ++size) EXPECT_NE(refusal_of_bytes(whole.substr(0, size)), "") << size;
}

/// A folder of two shards that hold "a" and "b", and an index of the given JSON.
class SafetensorsFolder : public testing::Test {
 protected:
  SafetensorsFolder() {
    folder_.write("1.safetensors", file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4));
    folder_.write("2.safetensors", file_of(R"({"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4));
  }
  void open(const std::string& index) {
    folder_.write("model.safetensors.index.json", index);
    SafetensorsFile::open_folder(folder_.path());
  }
  TemporaryFolder folder_;
};

TEST_F(SafetensorsFolder, WithoutAnythingToOpen) {
  EXPECT_THAT([&] { SafetensorsFile::open_folder(folder_.path()); },
              ThrowsMessage<Error>(HasSubstr("neither model.safetensors nor model.safetensors.index.json is there")));
  EXPECT_THAT([&] { SafetensorsFile::open_folder(folder_ / "none"); },
              ThrowsMessage<Error>(HasSubstr("none: neither")));
}

TEST_F(SafetensorsFolder, OpensWhatTheIndexNames) {
  open(R"({"metadata":{"total_size":8,"more":[[{}]]},"weight_map":{"a":"1.safetensors","b":"2.safetensors"},"x":3})");
}

TEST_F(SafetensorsFolder, IndexThatIsNone) {
  EXPECT_THAT([&] { open("{"); }, ThrowsMessage<Error>(HasSubstr("model.safetensors.index.json: not valid JSON")));
  EXPECT_THAT([&] { open("[]"); }, ThrowsMessage<Error>(HasSubstr("index.json: expected an object with")));
  EXPECT_THAT([&] { open("3"); }, ThrowsMessage<Error>(HasSubstr("expected an object with \"weight_map\"")));
  EXPECT_THAT([&] { open("{}"); }, ThrowsMessage<Error>(HasSubstr("\"weight_map\" is missing")));
  EXPECT_THAT([&] { open(R"({"weight_map":[]})"); },
              ThrowsMessage<Error>(HasSubstr("expected an object of file names")));
  EXPECT_THAT([&] { open(R"({"weight_map":1})"); },
              ThrowsMessage<Error>(HasSubstr("expected an object of file names")));
  EXPECT_THAT([&] { open(R"({"weight_map":{"a":1}})"); },
              ThrowsMessage<Error>(HasSubstr("expected an object of file")));
  EXPECT_THAT([&] { open(R"({"weight_map":{"a":{}}})"); },
              ThrowsMessage<Error>(HasSubstr("expected an object of file")));
  EXPECT_THAT([&] { open(R"({"weight_map":{"a":"1.safetensors","a":"1.safetensors"}})"); },
              ThrowsMessage<Error>(HasSubstr("key 'a' stands twice")));
  const std::string deep = std::string(3000, '[');
  EXPECT_THAT([&] { open("{\"x\":" + deep); }, ThrowsMessage<Error>(HasSubstr("nested deeper than 16 levels")));
}

TEST_F(SafetensorsFolder, ShardNamesThatLeaveTheFolder) {
  for (const char* name : {"../1.safetensors", "/etc/passwd", "a/b", "..", ".", "", "a\\\\b", "a\\u0000b"}) {
    EXPECT_THAT([&] { open(R"({"weight_map":{"a":")" + std::string(name) + "\"}}"); },
                ThrowsMessage<Error>(HasSubstr("expected a file name of the same folder")))
        << name;
  }
}

TEST_F(SafetensorsFolder, MissingShard) {
  EXPECT_THAT([&] { open(R"({"weight_map":{"a":"1.safetensors","c":"3.safetensors"}})"); },
              ThrowsMessage<Error>(HasSubstr("shard '3.safetensors' is missing, expected 2 of them")));
}

TEST_F(SafetensorsFolder, TensorThatIsElsewhere) {
  EXPECT_THAT(
      [&] { open(R"({"weight_map":{"a":"2.safetensors","b":"1.safetensors"}})"); },
      ThrowsMessage<Error>(HasSubstr("1.safetensors: tensor 'a' is here, but the index puts it in '2.safetensors'")));
  EXPECT_THAT([&] { open(R"({"weight_map":{"a":"1.safetensors","c":"1.safetensors"}})"); },
              ThrowsMessage<Error>(HasSubstr("tensor 'c' is not in its shard '1.safetensors'")));
}

TEST_F(SafetensorsFolder, TensorInTwoShards) {
  folder_.write("2.safetensors", file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4));
  EXPECT_THAT([&] { open(R"({"weight_map":{"a":"1.safetensors","b":"2.safetensors"}})"); },
              ThrowsMessage<Error>(HasSubstr("2.safetensors: tensor 'a' is in '1.safetensors' too")));
}

}  // namespace
}  // namespace pare
