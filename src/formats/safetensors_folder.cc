#include <algorithm>
#include <iterator>
#include <set>
#include <unordered_map>

#include "base/error.h"
#include "formats/names.h"
#include "formats/safetensors.h"
#include "formats/safetensors_types.h"

namespace pare {
namespace {

// The largest known (a trillion parameters in 100,000 tensors) are near 15 MB.
constexpr size_t kMaxIndexBytes = 64'000'000;

bool is_there(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

/// Adds a shard's tensors; Error if they stand elsewhere by the index or in an earlier shard.
void add_shard(SafetensorsFile& all, SafetensorsFile shard, const std::string& name,
               const std::map<std::string, std::string>& index, std::unordered_map<std::string, std::string>& holders) {
  for (const SafetensorsTensor& tensor : shard.tensors) {
    const auto [holder, fresh] = holders.emplace(tensor.name, name);
    if (!fresh) {
      fail("{}: tensor {} is in {} too", shard.mappings[0]->path().string(), quote_name(tensor.name),
           quote_name(holder->second));
    }
    const auto indexed = index.find(tensor.name);
    if (indexed != index.end() && indexed->second != name) {
      fail("{}: tensor {} is here, but the index puts it in {}", shard.mappings[0]->path().string(),
           quote_name(tensor.name), quote_name(indexed->second));
    }
  }
  if (all.mappings.empty()) all.metadata = std::move(shard.metadata);
  std::move(shard.tensors.begin(), shard.tensors.end(), std::back_inserter(all.tensors));
  std::move(shard.mappings.begin(), shard.mappings.end(), std::back_inserter(all.mappings));
}

}  // namespace

SafetensorsFile SafetensorsFile::open_folder(const std::filesystem::path& folder) {
  if (is_there(folder / kSafetensorsFile)) return open(folder / kSafetensorsFile);
  const auto index_path = folder / kSafetensorsIndex;
  if (!is_there(index_path)) {
    fail("{}: neither {} nor {} is there", folder.string(), kSafetensorsFile, kSafetensorsIndex);
  }
  const auto index = parse_safetensors_index(read_text_file(index_path, kMaxIndexBytes), index_path.string());
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : index) shards.insert(shard);
  for (const std::string& shard : shards) {
    if (!is_there(folder / shard)) {
      fail("{}: shard {} is missing, expected {} of them beside the index", index_path.string(), quote_name(shard),
           shards.size());
    }
  }
  SafetensorsFile all;
  std::unordered_map<std::string, std::string> holders;
  for (const std::string& shard : shards) add_shard(all, open(folder / shard), shard, index, holders);
  for (const auto& [tensor, shard] : index) {
    if (!holders.contains(tensor)) {
      fail("{}: tensor {} is not in its shard {}", index_path.string(), quote_name(tensor), quote_name(shard));
    }
  }
  return all;
}

}  // namespace pare
