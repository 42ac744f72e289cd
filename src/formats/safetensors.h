#pragma once
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/function_ref.h"
#include "tensor/tensor.h"

namespace pare {

// safetensors (specification: the README of huggingface/safetensors): a JSON header, then tensors, row-major.

/// A tensor of a safetensors file. Types that no DType expresses (I64, U8, BOOL, ...) keep their name in
/// `foreign_type`.
struct SafetensorsTensor {
  std::string name;
  TensorView view;           // view.type is meaningless if foreign_type is set
  std::string foreign_type;  // "" for F32, F16, BF16
};

/// One file or the shards of a folder, opened and checked as the specification asks (header at most 100 MB, starts with
/// '{', no duplicate keys, no holes, no overlaps, checked multiplication; sizes as type and shape say).
struct SafetensorsFile {
  std::vector<std::shared_ptr<const MappedFile>> mappings;  // keep the views alive
  std::vector<SafetensorsTensor> tensors;
  std::map<std::string, std::string> metadata;  // "__metadata__" of the first file

  /// A single .safetensors file.
  static SafetensorsFile open(const std::filesystem::path& path);
  /// `model.safetensors`, or every shard of `model.safetensors.index.json`, of a folder. Throws Error naming a missing
  /// shard, a tensor that the index puts elsewhere, or one that two shards hold.
  static SafetensorsFile open_folder(const std::filesystem::path& folder);
  static SafetensorsFile parse(std::span<const std::byte> bytes, const std::string& name);
};

struct SafetensorsTensorToWrite {
  std::string name;
  DType type;  // one that has a safetensors name
  Shape shape;
  std::function<void(FunctionRef<void(std::span<const std::byte>)> sink)> produce;
  bool u8 = false;  // bytes (U8), which no DType expresses: type is meaningless
};

/// Writes one safetensors file to `out`, which the caller commits.
void write_safetensors(OutputFile& out, const std::map<std::string, std::string>& metadata,
                       std::span<const SafetensorsTensorToWrite> tensors);

/// Writes `model.safetensors`, or shards of at most max_shard_bytes with an index, into a folder.
void write_safetensors_folder(const std::filesystem::path& folder, const std::map<std::string, std::string>& metadata,
                              std::span<const SafetensorsTensorToWrite> tensors,
                              int64_t max_shard_bytes = 5'000'000'000);

}  // namespace pare
