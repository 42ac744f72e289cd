#include "formats/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <numeric>
#include <unordered_set>

#include "base/error.h"
#include "formats/gguf_types.h"
#include "formats/names.h"
#include "tensor/ternary.h"

namespace pare {
namespace {

static_assert(std::endian::native == std::endian::little, "numbers are copied from the file as they stand");

// The fewest bytes that a key with its value and a tensor's entry can take: bounds what a count may claim.
constexpr uint64_t kLeastKeyBytes = 8 + 1 + 4 + 1;
constexpr uint64_t kLeastTensorBytes = 8 + 1 + 4 + 4 + 8;
constexpr uint64_t kLeastStringBytes = 8;
constexpr uint64_t kMostKeys = 100'000;  // files have some fifty; an entry takes more memory than bytes
// The specification asks for a multiple of 8; past 16 MiB an alignment only makes a small file large.
constexpr uint32_t kLeastAlignment = 8;
constexpr uint32_t kLargestAlignment = 1u << 24;

/// Walks through the header. Before each read it is told what comes, so that errors can say it.
class Reader {
 public:
  Reader(std::span<const std::byte> bytes, const std::string& file) : bytes_(bytes), file_(file) {}

  /// What is read next: "the type of", "'general.name'".
  void expect(const char* what, std::string_view name = {}) {
    what_ = what;
    name_ = name;
  }
  /// "model.gguf: the type of 'general.name' at byte 52", for errors.
  std::string place(uint64_t position) const {
    return fmt::format("{}: {}{}{} at byte {}", file_, what_, name_.empty() ? "" : " ",
                       name_.empty() ? std::string() : quote_name(name_), position);
  }
  const std::string& file() const { return file_; }
  uint64_t position() const { return position_; }
  uint64_t left() const { return bytes_.size() - position_; }

  std::span<const std::byte> take(uint64_t size) {
    if (size > left()) fail("{}: expected {} bytes, but only {} are left", place(position_), size, left());
    const auto taken = bytes_.subspan(position_, size);
    position_ += size;
    return taken;
  }

  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }

  /// A number of things, each of which takes at least `least` bytes, or it is refused before anything is allocated.
  uint64_t count(uint64_t least) {
    const uint64_t at = position_;
    const auto claimed = number<uint64_t>();
    if (claimed > left() / least) {
      fail("{}: {} is claimed, but the {} bytes that follow hold at most {}", place(at), claimed, left(),
           left() / least);
    }
    return claimed;
  }

  std::string_view text(uint64_t longest = std::numeric_limits<uint64_t>::max()) {
    const uint64_t at = position_;
    const auto size = number<uint64_t>();
    if (size > longest) fail("{}: {} bytes long, expected at most {}", place(at), size, longest);
    const auto bytes = take(size);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

 private:
  std::span<const std::byte> bytes_;
  const std::string& file_;
  uint64_t position_ = 0;
  const char* what_ = "";
  std::string_view name_;
};

template <class T>
T read_scalar(Reader& reader) {
  if constexpr (std::is_same_v<T, std::string>) {
    return std::string(reader.text());
  } else if constexpr (std::is_same_v<T, bool>) {
    const uint64_t at = reader.position();
    const auto byte = reader.number<uint8_t>();
    if (byte > 1) fail("{}: a bool of value {}, expected 0 or 1", reader.place(at), byte);
    return byte == 1;
  } else {
    return reader.number<T>();
  }
}

template <class T>
std::vector<T> read_array(Reader& reader) {
  std::vector<T> result;
  if constexpr (std::is_same_v<T, std::string> || std::is_same_v<T, bool>) {
    const uint64_t count = reader.count(std::is_same_v<T, bool> ? 1 : kLeastStringBytes);
    result.reserve(count);
    for (uint64_t i = 0; i < count; ++i) result.push_back(read_scalar<T>(reader));
  } else {
    const uint64_t count = reader.count(sizeof(T));
    result.resize(count);
    const auto bytes = reader.take(count * sizeof(T));
    if (count > 0) std::memcpy(result.data(), bytes.data(), bytes.size());
  }
  return result;
}

/// Calls use.operator()<T>() with the C++ type that a gguf_metadata_value_type stands for.
template <class... Types>
struct TypeList {
  template <class Use>
  static void dispatch(uint32_t code, Use use) {
    ((code == kGgufCode<Types> ? use.template operator()<Types>() : void()), ...);
  }
};
using Scalars = TypeList<uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, uint64_t, int64_t, float, double, bool,
                         std::string>;

uint32_t read_value_type(Reader& reader, const char* what, std::string_view key) {
  reader.expect(what, key);
  const uint64_t at = reader.position();
  const auto code = reader.number<uint32_t>();
  if (code > kGgufLastCode) fail("{}: unknown number {}, expected 0 to {}", reader.place(at), code, kGgufLastCode);
  return code;
}

GgufValue read_value(Reader& reader, std::string_view key) {
  GgufValue value;
  const uint32_t code = read_value_type(reader, "the type of", key);
  if (code != kGgufArray) {
    reader.expect("the value of", key);
    Scalars::dispatch(code, [&]<class T>() { value = read_scalar<T>(reader); });
    return value;
  }
  const uint64_t at = reader.position();
  const uint32_t element = read_value_type(reader, "the element type of", key);
  if (element == kGgufArray) fail("{}: an array of arrays, expected numbers, bools or strings", reader.place(at));
  reader.expect("the array", key);
  Scalars::dispatch(element, [&]<class T>() { value = read_array<T>(reader); });
  return value;
}

std::string_view read_name(Reader& reader, const char* what, size_t longest) {
  reader.expect(what);
  const uint64_t at = reader.position();
  const std::string_view name = reader.text(longest);
  if (name.empty()) fail("{}: empty, expected 1 to {} bytes", reader.place(at), longest);
  if (!is_printable(name)) {
    fail("{}: {} is not UTF-8 without control characters", reader.place(at), quote_name(name));
  }
  return name;
}

GgufMetadata read_metadata(Reader& reader, uint64_t count) {
  std::vector<std::pair<std::string, GgufValue>> entries;
  entries.reserve(count);
  std::unordered_set<std::string_view> seen;
  for (uint64_t i = 0; i < count; ++i) {
    const std::string_view key = read_name(reader, "a key", kGgufMaxKeyBytes);
    if (!seen.insert(key).second) fail("{}: key {} stands twice", reader.file(), quote_name(key));
    entries.emplace_back(key, read_value(reader, key));
  }
  return {reader.file(), std::move(entries)};
}

/// Names of ggml's types that pare may lack, for the message that says so; "" where ggml has none or dropped it.
const char* ggml_type_name(uint32_t id) {
  static constexpr std::array kNames = {
      "F32",   "F16",    "Q4_0",  "Q4_1", "",     "",        "Q5_0",   "Q5_1",    "Q8_0",  "Q8_1",   "Q2_K",
      "Q3_K",  "Q4_K",   "Q5_K",  "Q6_K", "Q8_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S",
      "IQ2_S", "IQ4_XS", "I8",    "I16",  "I32",  "I64",     "F64",    "IQ1_M",   "BF16",  "",       "",
      "",      "TQ1_0",  "TQ2_0", "",     "",     "",        "MXFP4",  "NVFP4",   "Q1_0"};
  return id < kNames.size() ? kNames[id] : "";
}

struct TensorEntry {
  std::string_view name;
  DType type = DType::kF32;
  bool i2_s = false;
  Shape shape;
  uint64_t offset, bytes;  // in the tensor data
};

/// Dimensions outermost first; each at least 1.
std::vector<int64_t> read_dims(Reader& reader, std::string_view name) {
  reader.expect("the number of dimensions of", name);
  const uint64_t at = reader.position();
  const auto rank = reader.number<uint32_t>();
  if (rank > kGgufMaxRank) fail("{}: {} dimensions, expected at most {}", reader.place(at), rank, kGgufMaxRank);
  std::vector<int64_t> dims(rank);
  reader.expect("a dimension of", name);
  for (size_t i = rank; i-- > 0;) {
    const uint64_t dim_at = reader.position();
    const auto dim = reader.number<uint64_t>();
    constexpr auto kLargest = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    if (dim < 1 || dim > kLargest) fail("{}: {}, expected 1 to {}", reader.place(dim_at), dim, kLargest);
    dims[i] = static_cast<int64_t>(dim);
  }
  return dims;
}

/// Nothing for I2_S.
std::optional<DType> read_type(Reader& reader, std::string_view name) {
  reader.expect("the type of tensor", name);
  const uint64_t at = reader.position();
  const auto id = reader.number<uint32_t>();
  if (id == kGgufI2s) return std::nullopt;
  const DTypeInfo* type = find_dtype_gguf(id);
  if (!type) {
    const std::string known = ggml_type_name(id);
    fail("{}: {} ({}) is not supported, expected one of {}", reader.place(at), known.empty() ? "unknown type" : known,
         id, dtype_names());
  }
  return type->type;
}

/// Bytes of an I2_S tensor; nothing if its size overflows or ends within a block of the smaller layout.
std::optional<int64_t> checked_i2s_bytes(const std::vector<int64_t>& dims) {
  const auto count = checked_count(dims);
  if (!count || *count % i2s_block_columns(I2sLayout::kArm) != 0) return std::nullopt;
  return *count / 4 + kI2sTailBytes;
}

TensorEntry read_tensor_entry(Reader& reader, uint64_t alignment) {
  TensorEntry entry;
  entry.name = read_name(reader, "a tensor's name", kGgufMaxTensorNameBytes);
  const std::vector<int64_t> dims = read_dims(reader, entry.name);
  const std::optional<DType> known = read_type(reader, entry.name);
  entry.i2_s = !known;
  entry.type = known.value_or(DType::kF32);
  const DTypeInfo& type = info(entry.type);
  const int64_t columns = dims.empty() ? 1 : dims.back();
  if (columns % type.block_size != 0) {
    fail("{}: tensor {} has rows of {} values, expected a multiple of {}'s block of {}", reader.file(),
         quote_name(entry.name), columns, type.name, type.block_size);
  }
  const std::optional<int64_t> bytes = entry.i2_s ? checked_i2s_bytes(dims) : checked_bytes(entry.type, dims);
  if (!bytes) {
    fail("{}: tensor {} has dimensions {}, whose size overflows{}", reader.file(), quote_name(entry.name),
         fmt::join(dims, " x "), entry.i2_s ? " or is no multiple of I2_S's block of 64" : "");
  }
  entry.shape = Shape(dims);
  entry.bytes = static_cast<uint64_t>(*bytes);
  reader.expect("the offset of tensor", entry.name);
  const uint64_t at = reader.position();
  entry.offset = reader.number<uint64_t>();
  if (entry.offset % alignment != 0) {
    fail("{}: {}, expected a multiple of the alignment {}", reader.place(at), entry.offset, alignment);
  }
  return entry;
}

std::vector<TensorEntry> read_tensor_entries(Reader& reader, uint64_t count, uint64_t alignment) {
  std::vector<TensorEntry> entries;
  entries.reserve(count);
  std::unordered_set<std::string_view> seen;
  for (uint64_t i = 0; i < count; ++i) {
    entries.push_back(read_tensor_entry(reader, alignment));
    const std::string_view name = entries.back().name;
    if (!seen.insert(name).second) fail("{}: tensor {} stands twice", reader.file(), quote_name(name));
  }
  return entries;
}

void check_extents(const std::vector<TensorEntry>& entries, uint64_t size, const std::string& file) {
  for (const TensorEntry& entry : entries) {
    if (entry.offset > size || entry.bytes > size - entry.offset) {
      fail("{}: tensor {} needs {} bytes at offset {} of the tensor data, which ends after {}", file,
           quote_name(entry.name), entry.bytes, entry.offset, size);
    }
  }
  std::vector<size_t> order(entries.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return entries[a].offset < entries[b].offset; });
  for (size_t i = 1; i < order.size(); ++i) {
    const TensorEntry &before = entries[order[i - 1]], &after = entries[order[i]];
    if (before.offset + before.bytes > after.offset) {
      fail("{}: tensors {} and {} overlap: one ends at {} of the tensor data, the other starts at {}", file,
           quote_name(before.name), quote_name(after.name), before.offset + before.bytes, after.offset);
    }
  }
}

uint32_t read_version(Reader& reader) {
  reader.expect("the magic");
  const std::string file = reader.file();
  if (reader.left() < sizeof kGgufMagic ||
      std::memcmp(reader.take(sizeof kGgufMagic).data(), kGgufMagic, sizeof kGgufMagic) != 0) {
    fail("{}: not a GGUF file: expected it to start with \"GGUF\"", file);
  }
  reader.expect("the version");
  const auto version = reader.number<uint32_t>();
  if ((version & 0xffffu) == 0 && version != 0) fail("{}: a big-endian GGUF file, expected little-endian", file);
  if (version != 2 && version != 3) fail("{}: GGUF version {}, expected 2 or 3", file, version);
  return version;
}

uint64_t read_alignment(const GgufMetadata& metadata) {
  const GgufValue* value = metadata.find("general.alignment");
  if (!value) return kGgufDefaultAlignment;
  const auto* alignment = std::get_if<uint32_t>(value);
  if (!alignment) fail("{}: key 'general.alignment' is not a uint32", metadata.file());
  if (!std::has_single_bit(*alignment) || *alignment < kLeastAlignment || *alignment > kLargestAlignment) {
    fail("{}: key 'general.alignment' is {}, expected a power of two from {} to {}", metadata.file(), *alignment,
         kLeastAlignment, kLargestAlignment);
  }
  return *alignment;
}

void refuse_splits(const GgufMetadata& metadata) {
  const int64_t count = metadata.find_int("split.count").value_or(1);
  if (count > 1) {
    fail("{}: one of {} parts of a split model, expected a single file (llama-gguf-split --merge makes one)",
         metadata.file(), count);
  }
}

}  // namespace

GgufFile GgufFile::parse(std::span<const std::byte> bytes, const std::string& name) {
  Reader reader(bytes, name);
  GgufFile file;
  file.version = read_version(reader);
  reader.expect("the number of tensors");
  const uint64_t tensor_count = reader.count(kLeastTensorBytes);
  reader.expect("the number of keys");
  const uint64_t key_count = reader.count(kLeastKeyBytes);
  if (key_count > kMostKeys) fail("{}: {} keys, expected at most {}", name, key_count, kMostKeys);
  file.metadata = read_metadata(reader, key_count);
  refuse_splits(file.metadata);
  file.alignment = read_alignment(file.metadata);
  const std::vector<TensorEntry> entries = read_tensor_entries(reader, tensor_count, file.alignment);
  const uint64_t start = (reader.position() + file.alignment - 1) / file.alignment * file.alignment;
  // Without tensors the header may end the file, unpadded.
  const auto data = bytes.subspan(std::min<uint64_t>(start, bytes.size()));
  check_extents(entries, data.size(), name);
  file.tensors.reserve(entries.size());
  for (const TensorEntry& entry : entries) {
    file.tensors.push_back(
        {std::string(entry.name), {entry.type, entry.shape, data.subspan(entry.offset, entry.bytes)}, entry.i2_s});
  }
  return file;
}

GgufFile GgufFile::open(const std::filesystem::path& path) {
  std::shared_ptr<const MappedFile> mapping = MappedFile::open(path);
  GgufFile file = parse(mapping->bytes(), path.string());
  file.mapping = std::move(mapping);
  return file;
}

}  // namespace pare
