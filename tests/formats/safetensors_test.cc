#include "formats/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "base/error.h"
#include "base/json.h"
#include "temporary_folder.h"

namespace pare {
namespace {

using test::FileSizeLimit;
using test::TemporaryFolder;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

/// A file with this header and `size` bytes of data that count up.
std::string file_of(const std::string& header, size_t size) {
  const uint64_t length = header.size();
  std::string bytes(reinterpret_cast<const char*>(&length), sizeof length);
  bytes += header;
  for (size_t i = 0; i < size; ++i) bytes += static_cast<char>(i);
  return bytes;
}

SafetensorsFile parse(const std::string& bytes) {
  return SafetensorsFile::parse(std::as_bytes(std::span(bytes)), "test.safetensors");
}

SafetensorsTensorToWrite tensor_to_write(const std::string& name, DType type, const Shape& shape, int first) {
  return {name, type, shape, [=](FunctionRef<void(std::span<const std::byte>)> sink) {
            std::vector<std::byte> bytes(static_cast<size_t>(info(type).bytes(shape.count())));
            for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(first + static_cast<int>(i));
            sink(bytes);
          }};
}

const SafetensorsTensor& find(const SafetensorsFile& file, std::string_view name) {
  for (const SafetensorsTensor& tensor : file.tensors) {
    if (tensor.name == name) return tensor;
  }
  throw Error("no such tensor in the test: " + std::string(name));
}

TEST(Safetensors, ReadsTypesShapesAndMetadata) {
  const std::string bytes = file_of(
      R"({"__metadata__":{"format":"pt","by":"é"},"b":{"dtype":"F16","shape":[2,3],"data_offsets":[4,16]},)"
      R"("a":{"data_offsets":[0,4],"dtype":"F32","shape":[]},"c":{"dtype":"BF16","shape":[1],"data_offsets":[16,18]}}  )",
      18);
  const SafetensorsFile file = parse(bytes);
  EXPECT_THAT(file.metadata, ElementsAre(std::pair("by", "é"), std::pair("format", "pt")));
  ASSERT_EQ(file.tensors.size(), 3u);
  EXPECT_EQ(file.tensors[0].name, "b");
  EXPECT_EQ(file.tensors[0].view.type, DType::kF16);
  EXPECT_EQ(file.tensors[0].view.shape, (Shape{2, 3}));
  EXPECT_EQ(file.tensors[0].view.bytes.size(), 12u);
  EXPECT_EQ(file.tensors[0].view.bytes[0], std::byte{4});
  EXPECT_EQ(file.tensors[1].view.type, DType::kF32);
  EXPECT_EQ(file.tensors[1].view.shape, Shape{});
  EXPECT_EQ(file.tensors[2].view.type, DType::kBF16);
  EXPECT_EQ(file.tensors[2].view.bytes[0], std::byte{16});
}

TEST(Safetensors, ReadsEmptyFilesAndEmptyTensors) {
  EXPECT_TRUE(parse(file_of("{}", 0)).tensors.empty());
  const std::string bytes = file_of(
      R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"e":{"dtype":"F32","shape":[0,7],"data_offsets":[4,4]},)"
      R"("z":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}})",
      4);
  const SafetensorsFile file = parse(bytes);
  EXPECT_EQ(find(file, "e").view.shape, (Shape{0, 7}));
  EXPECT_TRUE(find(file, "e").view.bytes.empty());
}

TEST(Safetensors, KeepsTypesThatNoDTypeExpresses) {
  const std::string bytes = file_of(
      R"({"i":{"dtype":"I64","shape":[2],"data_offsets":[0,16]},"m":{"dtype":"BOOL","shape":[3],"data_offsets":[16,19]},)"
      R"("q":{"dtype":"F4","shape":[2,3],"data_offsets":[19,22]}})",
      22);
  const SafetensorsFile file = parse(bytes);
  EXPECT_EQ(find(file, "i").foreign_type, "I64");
  EXPECT_EQ(find(file, "m").foreign_type, "BOOL");
  EXPECT_EQ(find(file, "m").view.bytes.size(), 3u);
  EXPECT_EQ(find(file, "q").foreign_type, "F4");
  EXPECT_EQ(find(file, "q").view.shape, (Shape{2, 3}));
}

TEST(Safetensors, ReadsBackWhatItWrote) {
  const TemporaryFolder folder;
  const std::vector<SafetensorsTensorToWrite> tensors = {
      tensor_to_write("odd", DType::kF16, Shape{3}, 1),
      tensor_to_write("float", DType::kF32, Shape{2, 2}, 2),
      tensor_to_write("quote\"\\é", DType::kBF16, Shape{1, 1, 1, 1, 2}, 3),
      tensor_to_write("empty", DType::kF32, Shape{0, 4}, 4),
  };
  OutputFile out(folder / "m.safetensors");
  write_safetensors(out, {{"format", "pt"}, {"note", "a\"b\nc"}}, tensors);
  out.commit();
  const SafetensorsFile file = SafetensorsFile::open(folder / "m.safetensors");
  EXPECT_THAT(file.metadata, ElementsAre(std::pair("format", "pt"), std::pair("note", "a\"b\nc")));
  ASSERT_EQ(file.tensors.size(), tensors.size());
  for (const SafetensorsTensorToWrite& written : tensors) {
    const SafetensorsTensor& read = find(file, written.name);
    EXPECT_EQ(read.view.type, written.type);
    EXPECT_EQ(read.view.shape, written.shape);
    written.produce([&](std::span<const std::byte> bytes) {
      EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), read.view.bytes.begin(), read.view.bytes.end()));
    });
    // Libraries view tensors in place, which needs them aligned.
    EXPECT_EQ(reinterpret_cast<uintptr_t>(read.view.bytes.data()) % static_cast<size_t>(info(written.type).block_bytes),
              0u);
  }
}

TEST(Safetensors, WritesShardsWithAnIndex) {
  const TemporaryFolder folder;
  std::vector<SafetensorsTensorToWrite> tensors;
  for (int i = 0; i < 5; ++i) tensors.push_back(tensor_to_write("t" + std::to_string(i), DType::kF32, Shape{4}, i));
  tensors.push_back(tensor_to_write("large", DType::kF32, Shape{20}, 9));
  write_safetensors_folder(folder.path(), {{"format", "pt"}}, tensors, 40);
  for (const int shard : {1, 2, 3, 4}) {
    EXPECT_TRUE(std::filesystem::exists(folder / ("model-0000" + std::to_string(shard) + "-of-00004.safetensors")));
  }
  const Json index = parse_json(read_text_file(folder / "model.safetensors.index.json"), "index");
  EXPECT_EQ(index["metadata"]["total_size"], 5 * 16 + 80);
  EXPECT_EQ(index["weight_map"]["t1"], "model-00001-of-00004.safetensors");
  EXPECT_EQ(index["weight_map"]["t2"], "model-00002-of-00004.safetensors");
  EXPECT_EQ(index["weight_map"]["large"], "model-00004-of-00004.safetensors");
  const SafetensorsFile file = SafetensorsFile::open_folder(folder.path());
  EXPECT_EQ(file.mappings.size(), 4u);
  EXPECT_EQ(file.tensors.size(), 6u);
  EXPECT_EQ(file.metadata.at("format"), "pt");
  EXPECT_EQ(find(file, "t3").view.bytes[0], std::byte{3});
}

TEST(Safetensors, WritesOneFileIfAllFits) {
  const TemporaryFolder folder;
  const std::vector<SafetensorsTensorToWrite> tensors = {tensor_to_write("a", DType::kF32, Shape{2}, 1),
                                                         tensor_to_write("b", DType::kF32, Shape{2}, 2)};
  write_safetensors_folder(folder.path(), {}, tensors, 16);
  EXPECT_TRUE(std::filesystem::exists(folder / "model.safetensors"));
  EXPECT_FALSE(std::filesystem::exists(folder / "model.safetensors.index.json"));
  EXPECT_EQ(SafetensorsFile::open_folder(folder.path()).tensors.size(), 2u);
  const TemporaryFolder empty;
  write_safetensors_folder(empty.path(), {}, {});
  EXPECT_TRUE(SafetensorsFile::open_folder(empty.path()).tensors.empty());
}

TEST(SafetensorsWriter, RefusesWhatTheFormatCannotHold) {
  const TemporaryFolder folder;
  const auto write = [&](const std::vector<SafetensorsTensorToWrite>& tensors,
                         const std::map<std::string, std::string>& metadata = {}) {
    OutputFile out(folder / "m.safetensors");
    write_safetensors(out, metadata, tensors);
    out.commit();
  };
  EXPECT_THAT([&] { write({tensor_to_write("t", DType::kQ8_0, Shape{32}, 0)}); },
              ThrowsMessage<Error>(HasSubstr("tensor 't' is q8_0, expected a type that the format has")));
  EXPECT_THAT([&] { write({tensor_to_write("__metadata__", DType::kF32, Shape{1}, 0)}); },
              ThrowsMessage<Error>(HasSubstr("tensor name '__metadata__'")));
  EXPECT_THAT([&] { write({tensor_to_write("\xff", DType::kF32, Shape{1}, 0)}); },
              ThrowsMessage<Error>(HasSubstr("tensor name '\\xff'")));
  EXPECT_THAT([&] { write({}, {{"k", "\xff"}}); }, ThrowsMessage<Error>(HasSubstr("metadata '\\xff' is not UTF-8")));
  const auto twice = tensor_to_write("t", DType::kF32, Shape{1}, 0);
  EXPECT_THAT([&] { write({twice, twice}); }, ThrowsMessage<Error>(HasSubstr("tensor 't' stands twice")));
  EXPECT_THAT(
      [&] {
        write_safetensors_folder(folder.path(), {}, std::vector{twice, twice}, 4);
      },
      ThrowsMessage<Error>(HasSubstr("tensor 't' stands twice")));
  SafetensorsTensorToWrite short_of_bytes = tensor_to_write("t", DType::kF32, Shape{1}, 0);
  short_of_bytes.shape = Shape{2};
  EXPECT_THAT([&] { write({short_of_bytes}); }, ThrowsMessage<Error>(HasSubstr("gave 4 bytes, expected 8")));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(SafetensorsWriter, ReportsADiskThatTakesNoMore) {
  const TemporaryFolder folder;
  const std::vector<SafetensorsTensorToWrite> tensors = {tensor_to_write("t", DType::kF32, Shape{1 << 20}, 0)};
  const FileSizeLimit limit(100'000);
  EXPECT_THAT([&] { write_safetensors_folder(folder.path(), {}, tensors); },
              ThrowsMessage<Error>(HasSubstr("model.safetensors: cannot write")));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace pare
