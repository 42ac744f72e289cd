#include "formats/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "formats/json_walk.h"
#include "formats/names.h"
#include "formats/safetensors_types.h"

namespace pare {
namespace {

static_assert(std::endian::native == std::endian::little, "numbers are copied from the file as they stand");

/// Types of the specification that no DType expresses.
struct ForeignType {
  std::string_view name;
  uint64_t bits;
};
constexpr std::array kForeignTypes = {
    ForeignType{"BOOL", 8},    ForeignType{"U8", 8},      ForeignType{"I8", 8},   ForeignType{"F8_E4M3", 8},
    ForeignType{"F8_E5M2", 8}, ForeignType{"F8_E8M0", 8}, ForeignType{"F4", 4},   ForeignType{"F6_E2M3", 6},
    ForeignType{"F6_E3M2", 6}, ForeignType{"I16", 16},    ForeignType{"U16", 16}, ForeignType{"I32", 32},
    ForeignType{"U32", 32},    ForeignType{"I64", 64},    ForeignType{"U64", 64}, ForeignType{"F64", 64},
    ForeignType{"C64", 64},
};

constexpr size_t kMostMetadata = 100'000;  // an entry takes much more memory than bytes

/// A tensor's entry in the header as it stands there.
struct Entry {
  std::string dtype;
  std::vector<int64_t> shape;
  std::vector<uint64_t> offsets;
  bool has_dtype = false, has_shape = false, has_offsets = false;
};

/// Bytes of `count` values of `bits` each; nothing if they overflow or end within a byte.
std::optional<uint64_t> bytes_of(int64_t count, uint64_t bits) {
  uint64_t total = 0;
  if (__builtin_mul_overflow(static_cast<uint64_t>(count), bits, &total) || total % 8 != 0) return {};
  return total / 8;
}

/// Turns the header's JSON into tensors, whose bytes are given as offsets until the whole header is known.
class HeaderListener : public JsonListener {
 public:
  struct Extent {
    uint64_t begin, end;
  };

  explicit HeaderListener(const std::string& file) : file_(file) {}

  void begin(const JsonPlace& place, bool array) override {
    const size_t depth = place.keys.size();
    if (depth == 0) return;  // the text starts with '{'
    if (depth == 1 && !array) {
      entry_ = {};
      return;
    }
    const bool list = array && depth == 2 && !place.in_array && !in_metadata(place);
    if (list && place.keys[1] == "shape") {
      entry_.has_shape = true;
    } else if (list && place.keys[1] == "data_offsets") {
      entry_.has_offsets = true;
    } else {
      unexpected(place, array ? "an array" : "an object");
    }
  }

  void scalar(const JsonPlace& place, const JsonScalar& value) override {
    const auto* text = std::get_if<std::string_view>(&value);
    const auto* number = std::get_if<uint64_t>(&value);
    if (place.keys.size() == 2 && in_metadata(place)) {
      if (!text) fail("{}: metadata {} is not a string", file_, quote_name(place.keys[1]));
      if (metadata.size() == kMostMetadata) fail("{}: more than {} entries of metadata", file_, kMostMetadata);
      metadata.emplace(place.keys[1], *text);
    } else if (place.keys.size() == 2 && !place.in_array && place.keys[1] == "dtype") {
      if (!text) fail("{}: tensor {}: dtype is not a string", file_, quote_name(place.keys[0]));
      entry_.dtype = *text;
      entry_.has_dtype = true;
    } else if (place.in_array && place.keys[1] == "shape") {
      add_dimension(place, number);
    } else if (place.in_array) {
      if (!number) fail("{}: tensor {}: data_offsets are not whole numbers", file_, quote_name(place.keys[0]));
      if (entry_.offsets.size() == 2) wrong_offset_count(place);
      entry_.offsets.push_back(*number);
    } else {
      unexpected(place, "a value");
    }
  }

  void end(const JsonPlace& place, bool) override {
    if (place.keys.size() == 1 && !in_metadata(place)) finish(place);
  }

  std::vector<SafetensorsTensor> tensors;
  std::vector<Extent> extents;  // in the tensor data, one for each tensor
  std::map<std::string, std::string> metadata;

 private:
  static bool in_metadata(const JsonPlace& place) { return place.keys[0] == kSafetensorsMetadata; }

  [[noreturn]] void unexpected(const JsonPlace& place, const char* what) const {
    std::string path;
    for (const std::string& key : place.keys) path += (path.empty() ? "" : " / ") + quote_name(key);
    fail("{}: header: {} at {}: expected tensors of dtype, shape and data_offsets only", file_, what, path);
  }
  [[noreturn]] void wrong_offset_count(const JsonPlace& place) const {
    fail("{}: tensor {}: data_offsets are not two numbers", file_, quote_name(place.keys[0]));
  }

  void add_dimension(const JsonPlace& place, const uint64_t* number) {
    if (!number || *number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      fail("{}: tensor {}: a dimension is not a whole number from 0 to 2^63 - 1", file_, quote_name(place.keys[0]));
    }
    if (entry_.shape.size() == Shape::kMaxRank) {
      fail("{}: tensor {}: more than {} dimensions", file_, quote_name(place.keys[0]), Shape::kMaxRank);
    }
    entry_.shape.push_back(static_cast<int64_t>(*number));
  }

  /// The bytes that type and shape ask for; sets the tensor's type.
  uint64_t needed_bytes(SafetensorsTensor& tensor) const {
    std::optional<uint64_t> bytes;
    if (const DTypeInfo* type = find_dtype_safetensors(entry_.dtype)) {
      tensor.view.type = type->type;
      if (const auto needed = checked_bytes(type->type, entry_.shape)) bytes = static_cast<uint64_t>(*needed);
    } else {
      const auto foreign = std::find_if(kForeignTypes.begin(), kForeignTypes.end(),
                                        [&](const ForeignType& row) { return row.name == entry_.dtype; });
      if (foreign == kForeignTypes.end()) {
        fail("{}: tensor {}: unknown dtype {}", file_, quote_name(tensor.name), quote_name(entry_.dtype));
      }
      tensor.foreign_type = entry_.dtype;
      if (const auto count = checked_count(entry_.shape)) bytes = bytes_of(*count, foreign->bits);
    }
    if (!bytes) {
      fail("{}: tensor {}: dimensions {} of {}: their size overflows or ends within a byte", file_,
           quote_name(tensor.name), fmt::join(entry_.shape, " x "), entry_.dtype);
    }
    return *bytes;
  }

  void finish(const JsonPlace& place) {
    SafetensorsTensor tensor;
    tensor.name = place.keys[0];
    if (tensor.name.empty() || !is_printable(tensor.name)) {
      fail("{}: tensor name {}: expected one or more characters, none a control character", file_,
           quote_name(tensor.name));
    }
    if (!entry_.has_dtype || !entry_.has_shape || !entry_.has_offsets) {
      fail("{}: tensor {}: {} is missing", file_, quote_name(tensor.name),
           !entry_.has_dtype   ? "dtype"
           : !entry_.has_shape ? "shape"
                               : "data_offsets");
    }
    if (entry_.offsets.size() != 2) wrong_offset_count(place);
    const uint64_t bytes = needed_bytes(tensor);
    const Extent extent{entry_.offsets[0], entry_.offsets[1]};
    if (extent.end < extent.begin || extent.end - extent.begin != bytes) {
      fail("{}: tensor {}: data_offsets {} to {}, expected {} bytes for {} of shape {}", file_, quote_name(tensor.name),
           extent.begin, extent.end, bytes, entry_.dtype, Shape(entry_.shape).to_string());
    }
    tensor.view.shape = Shape(entry_.shape);
    tensors.push_back(std::move(tensor));
    extents.push_back(extent);
  }

  const std::string& file_;
  Entry entry_;
};

/// The specification allows no holes: sorted by place, each tensor starts where the one before ends, and the last ends
/// with the file.
void check_extents(const HeaderListener& header, uint64_t data_size, const std::string& file) {
  std::vector<size_t> order(header.extents.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const auto &x = header.extents[a], &y = header.extents[b];
    return x.begin != y.begin ? x.begin < y.begin : x.end < y.end;
  });
  uint64_t end = 0;
  for (const size_t i : order) {
    const HeaderListener::Extent& extent = header.extents[i];
    if (extent.begin != end) {
      fail("{}: tensor {} starts at {} of the tensor data, expected {} ({})", file, quote_name(header.tensors[i].name),
           extent.begin, end, extent.begin < end ? "it overlaps another" : "nothing may lie between tensors");
    }
    end = extent.end;
  }
  if (end != data_size) fail("{}: tensors end at {} of the tensor data, which has {} bytes", file, end, data_size);
}

}  // namespace

SafetensorsFile SafetensorsFile::parse(std::span<const std::byte> bytes, const std::string& name) {
  uint64_t header_size = 0;
  if (bytes.size() < sizeof header_size) {
    fail("{}: {} bytes long, expected a safetensors file to start with 8 bytes of header size", name, bytes.size());
  }
  std::memcpy(&header_size, bytes.data(), sizeof header_size);
  const auto after_size = bytes.subspan(sizeof header_size);
  if (header_size > kSafetensorsMaxHeader) {
    fail("{}: header of {} bytes, expected at most {} (is it a safetensors file?)", name, header_size,
         kSafetensorsMaxHeader);
  }
  if (header_size > after_size.size()) {
    fail("{}: header of {} bytes, but only {} are left in the file", name, header_size, after_size.size());
  }
  const std::string_view json(reinterpret_cast<const char*>(after_size.data()), header_size);
  if (!json.starts_with('{')) fail("{}: header does not start with '{{'", name);
  HeaderListener header(name);
  walk_json(json, name + ": header", header);
  const auto data = after_size.subspan(header_size);
  check_extents(header, data.size(), name);
  SafetensorsFile file;
  file.tensors = std::move(header.tensors);
  file.metadata = std::move(header.metadata);
  for (size_t i = 0; i < file.tensors.size(); ++i) {
    const auto& [begin, end] = header.extents[i];
    file.tensors[i].view.bytes = data.subspan(begin, end - begin);
  }
  return file;
}

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  std::shared_ptr<const MappedFile> mapping = MappedFile::open(path);
  SafetensorsFile file = parse(mapping->bytes(), path.string());
  file.mappings.push_back(std::move(mapping));
  return file;
}

}  // namespace pare
