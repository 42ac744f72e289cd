// Formats and storage types for the Python tests, which compare them with the libraries that define them.
//
//   tool_formats gguf FILE                       JSON: version, alignment, metadata and tensors with their bytes in hex
//   tool_formats gguf-copy FROM TO               read and written again
//   tool_formats safetensors FILE_OR_FOLDER      JSON, as above
//   tool_formats safetensors-copy FROM TO        read and written again as one file
//   tool_formats safetensors-shards FROM FOLDER MAX_BYTES
//   tool_formats decode TYPE | encode TYPE       standard input to standard output: stored bytes, float32
//   tool_formats peak FILE_OR_FOLDER             JSON: tensors, seconds to open, peak resident bytes
#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <type_traits>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "formats/gguf.h"
#include "formats/safetensors.h"

namespace pare {
namespace {

std::string hex(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte byte : bytes) text += fmt::format("{:02x}", static_cast<unsigned>(byte));
  return text;
}

Json shape_json(const Shape& shape) {
  Json dims = Json::array();
  for (int i = 0; i < shape.rank(); ++i) dims.push_back(shape[i]);
  return dims;
}

/// Strings as hex, since they may hold any bytes, and floats in C's hexadecimal notation, since JSON has no NaN.
template <class T>
Json scalar_json(const T& value) {
  if constexpr (std::is_same_v<T, std::string>) {
    return hex(std::as_bytes(std::span(value)));
  } else if constexpr (std::is_floating_point_v<T>) {
    return fmt::format("{:a}", value);
  } else {
    return value;
  }
}

template <class T>
Json value_json(const char* type, const T& value) {
  return {{"type", type}, {"value", scalar_json(value)}};
}
template <class T>
Json value_json(const char* type, const std::vector<T>& values) {
  Json elements = Json::array();
  for (const auto& value : values) elements.push_back(scalar_json<T>(value));
  return {{"type", std::string("array of ") + type}, {"value", elements}};
}

template <class T>
const char* name_of(const T*) {
  if constexpr (std::is_same_v<T, std::string>) return "STRING";
  if constexpr (std::is_same_v<T, bool>) return "BOOL";
  if constexpr (std::is_floating_point_v<T>) return sizeof(T) == 4 ? "FLOAT32" : "FLOAT64";
  constexpr const char* kSigned[] = {"INT8", "INT16", "", "INT32", "", "", "", "INT64"};
  constexpr const char* kUnsigned[] = {"UINT8", "UINT16", "", "UINT32", "", "", "", "UINT64"};
  return (std::is_signed_v<T> ? kSigned : kUnsigned)[sizeof(T) - 1];
}
template <class T>
const char* name_of(const std::vector<T>*) {
  return name_of(static_cast<const T*>(nullptr));
}

Json gguf_json(const std::string& path) {
  const GgufFile file = GgufFile::open(path);
  Json json{{"version", file.version}, {"alignment", file.alignment}};
  json["metadata"] = Json::object();
  for (const auto& [key, any] : file.metadata.entries()) {
    json["metadata"][key] = std::visit([](const auto& value) { return value_json(name_of(&value), value); }, any);
  }
  json["tensors"] = Json::array();
  for (const GgufTensor& tensor : file.tensors) {
    json["tensors"].push_back({{"name", tensor.name},
                               {"type", tensor.i2_s ? "i2_s" : info(tensor.view.type).name},
                               {"shape", shape_json(tensor.view.shape)},
                               {"bytes", hex(tensor.view.bytes)}});
  }
  return json;
}

SafetensorsFile open_safetensors(const std::string& path) {
  return std::filesystem::is_directory(path) ? SafetensorsFile::open_folder(path) : SafetensorsFile::open(path);
}

Json safetensors_json(const std::string& path) {
  const SafetensorsFile file = open_safetensors(path);
  Json json{{"metadata", file.metadata}};
  json["tensors"] = Json::array();
  for (const SafetensorsTensor& tensor : file.tensors) {
    const bool foreign = !tensor.foreign_type.empty();
    json["tensors"].push_back({{"name", tensor.name},
                               {"type", foreign ? tensor.foreign_type : info(tensor.view.type).safetensors},
                               {"shape", shape_json(tensor.view.shape)},
                               {"bytes", hex(tensor.view.bytes)}});
  }
  return json;
}

auto producer(const TensorView& view) {
  return [bytes = view.bytes](FunctionRef<void(std::span<const std::byte>)> sink) { sink(bytes); };
}

void copy_gguf(const std::string& from, const std::string& to) {
  const GgufFile file = GgufFile::open(from);
  std::vector<GgufTensorToWrite> tensors;
  for (const GgufTensor& tensor : file.tensors) {
    if (tensor.i2_s) fail("{}: tensor {} is I2_S, which is not written", from, tensor.name);
    tensors.push_back({tensor.name, tensor.view.type, tensor.view.shape, producer(tensor.view)});
  }
  OutputFile out(to);
  write_gguf(out, file.metadata, tensors);
  out.commit();
}

std::vector<SafetensorsTensorToWrite> tensors_to_write(const SafetensorsFile& file) {
  std::vector<SafetensorsTensorToWrite> tensors;
  for (const SafetensorsTensor& tensor : file.tensors) {
    tensors.push_back({tensor.name, tensor.view.type, tensor.view.shape, producer(tensor.view)});
  }
  return tensors;
}

void copy_safetensors(const std::string& from, const std::string& to) {
  const SafetensorsFile file = open_safetensors(from);
  OutputFile out(to);
  write_safetensors(out, file.metadata, tensors_to_write(file));
  out.commit();
}

void shard_safetensors(const std::string& from, const std::string& folder, const std::string& max_bytes) {
  const SafetensorsFile file = open_safetensors(from);
  std::filesystem::create_directories(folder);
  write_safetensors_folder(folder, file.metadata, tensors_to_write(file), std::stoll(max_bytes));
}

void convert(const std::string& type_name, bool decode) {
  const DTypeInfo* type = find_dtype(type_name);
  if (!type) fail("unknown type {}", type_name);
  const std::string input{std::istreambuf_iterator<char>(std::cin), {}};
  const auto* bytes = reinterpret_cast<const std::byte*>(input.data());
  const auto size = static_cast<int64_t>(input.size());
  const int64_t count = decode ? size / type->block_bytes * type->block_size : size / int64_t{sizeof(float)};
  std::vector<float> values(static_cast<size_t>(count));
  std::vector<std::byte> stored(static_cast<size_t>(type->bytes(count)));
  if (decode) {
    type->decode(bytes, values.data(), count);
    std::fwrite(values.data(), sizeof(float), values.size(), stdout);
  } else {
    info(DType::kF32).decode(bytes, values.data(), count);
    type->encode(values.data(), stored.data(), count);
    std::fwrite(stored.data(), 1, stored.size(), stdout);
  }
}

/// Of this program alone: getrusage counts what the process that started it held, too.
long peak_resident_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stol(line.substr(6)) * 1024;
  }
  fail("/proc/self/status: no VmHWM");
}

Json peak_json(const std::string& path) {
  const auto start = std::chrono::steady_clock::now();
  const size_t tensors =
      path.ends_with(".gguf") ? GgufFile::open(path).tensors.size() : open_safetensors(path).tensors.size();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  return {{"tensors", tensors}, {"seconds", seconds.count()}, {"peak_bytes", peak_resident_bytes()}};
}

int run(const std::vector<std::string>& args) {
  const std::string command = args.empty() ? "" : args[0];
  if (command == "gguf" && args.size() == 2) {
    std::cout << gguf_json(args[1]) << '\n';
  } else if (command == "gguf-copy" && args.size() == 3) {
    copy_gguf(args[1], args[2]);
  } else if (command == "safetensors" && args.size() == 2) {
    std::cout << safetensors_json(args[1]) << '\n';
  } else if (command == "safetensors-copy" && args.size() == 3) {
    copy_safetensors(args[1], args[2]);
  } else if (command == "safetensors-shards" && args.size() == 4) {
    shard_safetensors(args[1], args[2], args[3]);
  } else if ((command == "decode" || command == "encode") && args.size() == 2) {
    convert(args[1], command == "decode");
  } else if (command == "peak" && args.size() == 2) {
    std::cout << peak_json(args[1]) << '\n';
  } else {
    std::cerr << "usage: see the head of tests/tools/formats.cc\n";
    return 2;
  }
  return 0;
}

}  // namespace
}  // namespace pare

int main(int argc, char** argv) {
  try {
    return pare::run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
