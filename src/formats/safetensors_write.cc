#include <algorithm>
#include <set>
#include <string_view>

#include "base/error.h"
#include "formats/json_walk.h"
#include "formats/names.h"
#include "formats/produce.h"
#include "formats/safetensors.h"
#include "formats/safetensors_types.h"

namespace pare {
namespace {

constexpr size_t kHeaderAlignment = 8;  // so that tensors of any type start at a multiple of their size

using Tensor = SafetensorsTensorToWrite;

const char* type_name(const Tensor& tensor) { return tensor.u8 ? "U8" : info(tensor.type).safetensors; }
int value_bytes(const Tensor& tensor) { return tensor.u8 ? 1 : info(tensor.type).block_bytes; }

int64_t checked_tensor_bytes(const Tensor& tensor) {
  if (!type_name(tensor)) {
    fail("writing safetensors: tensor {} is {}, expected a type that the format has", quote_name(tensor.name),
         info(tensor.type).name);
  }
  if (tensor.name.empty() || tensor.name == kSafetensorsMetadata || !is_printable(tensor.name)) {
    fail("writing safetensors: tensor name {}: expected UTF-8 without control characters", quote_name(tensor.name));
  }
  std::vector<int64_t> dims;
  for (int i = 0; i < tensor.shape.rank(); ++i) dims.push_back(tensor.shape[i]);
  const std::optional<int64_t> bytes = tensor.u8 ? checked_count(dims) : checked_bytes(tensor.type, dims);
  if (!bytes) {
    fail("writing safetensors: tensor {} of shape {} is too large", quote_name(tensor.name), tensor.shape.to_string());
  }
  return *bytes;
}

/// Larger types first, otherwise as given: without holes between tensors, that aligns each to its type's size.
std::vector<const Tensor*> file_order(std::span<const Tensor> tensors) {
  std::vector<const Tensor*> order;
  for (const Tensor& tensor : tensors) order.push_back(&tensor);
  std::stable_sort(order.begin(), order.end(),
                   [](const Tensor* a, const Tensor* b) { return value_bytes(*a) > value_bytes(*b); });
  return order;
}

std::string checked_literal(std::string_view text) {
  try {
    return json_literal(text);
  } catch (const std::exception&) {
    fail("writing safetensors: metadata {} is not UTF-8", quote_name(text));
  }
}

std::string make_header(const std::map<std::string, std::string>& metadata, const std::vector<const Tensor*>& order) {
  std::string json = "{";
  const auto separate = [&] { json += json.size() > 1 ? "," : ""; };
  if (!metadata.empty()) {
    std::string members;
    for (const auto& [key, value] : metadata) {
      members += (members.empty() ? "" : ",") + checked_literal(key) + ":" + checked_literal(value);
    }
    json += fmt::format("\"{}\":{{{}}}", kSafetensorsMetadata, members);
  }
  int64_t offset = 0;
  for (const Tensor* tensor : order) {
    const int64_t end = offset + checked_tensor_bytes(*tensor);
    separate();
    json += fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":{},\"data_offsets\":[{},{}]}}", json_literal(tensor->name),
                        type_name(*tensor), tensor->shape.to_string(), offset, end);
    offset = end;
  }
  json += "}";
  json.append((kHeaderAlignment - json.size() % kHeaderAlignment) % kHeaderAlignment, ' ');
  if (json.size() > kSafetensorsMaxHeader) {
    fail("writing safetensors: a header of {} bytes, expected at most {}", json.size(), kSafetensorsMaxHeader);
  }
  return json;
}

/// Runs of tensors that fit max_bytes together; a tensor larger than that stands alone.
std::vector<std::span<const Tensor>> split_into_shards(std::span<const Tensor> tensors, int64_t max_bytes) {
  std::vector<std::span<const Tensor>> shards;
  size_t first = 0;
  int64_t held = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const int64_t bytes = checked_tensor_bytes(tensors[i]);
    if (i > first && bytes > max_bytes - held) {
      shards.push_back(tensors.subspan(first, i - first));
      first = i;
      held = 0;
    }
    held += bytes;
  }
  shards.push_back(tensors.subspan(first));
  return shards;
}

void write_file(const std::filesystem::path& path, const std::map<std::string, std::string>& metadata,
                std::span<const Tensor> tensors) {
  OutputFile out(path);
  write_safetensors(out, metadata, tensors);
  out.commit();
}

void refuse_duplicates(std::span<const Tensor> tensors) {
  std::set<std::string_view> seen;
  for (const Tensor& tensor : tensors) {
    if (!seen.insert(tensor.name).second) fail("writing safetensors: tensor {} stands twice", quote_name(tensor.name));
  }
}

}  // namespace

void write_safetensors(OutputFile& out, const std::map<std::string, std::string>& metadata,
                       std::span<const SafetensorsTensorToWrite> tensors) {
  refuse_duplicates(tensors);
  const std::vector<const Tensor*> order = file_order(tensors);
  const std::string header = make_header(metadata, order);
  const uint64_t header_size = header.size();
  out.write(std::as_bytes(std::span(&header_size, 1)));
  out.write(header);
  for (const Tensor* tensor : order) {
    copy_produced(out, tensor->produce, checked_tensor_bytes(*tensor), "writing safetensors", tensor->name);
  }
}

void write_safetensors_folder(const std::filesystem::path& folder, const std::map<std::string, std::string>& metadata,
                              std::span<const SafetensorsTensorToWrite> tensors, int64_t max_shard_bytes) {
  refuse_duplicates(tensors);
  const auto shards = split_into_shards(tensors, max_shard_bytes);
  if (shards.size() == 1) return write_file(folder / kSafetensorsFile, metadata, tensors);
  int64_t total = 0;
  std::string map;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    write_file(folder / name, metadata, shards[i]);
    for (const Tensor& tensor : shards[i]) {
      total += checked_tensor_bytes(tensor);
      map += fmt::format("{}\n    {}: \"{}\"", map.empty() ? "" : ",", json_literal(tensor.name), name);
    }
  }
  OutputFile index(folder / kSafetensorsIndex);
  index.write(
      fmt::format("{{\n  \"metadata\": {{\"total_size\": {}}},\n  \"weight_map\": {{{}\n  }}\n}}\n", total, map));
  index.commit();
}

}  // namespace pare
