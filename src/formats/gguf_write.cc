#include <algorithm>
#include <span>
#include <unordered_set>

#include "base/error.h"
#include "formats/gguf.h"
#include "formats/gguf_types.h"
#include "formats/names.h"
#include "formats/produce.h"

namespace pare {
namespace {

// llama.cpp keeps 64 bytes for a name, the last of them 0.
constexpr size_t kLongestNameLlamaCppReads = kGgufMaxTensorNameBytes - 1;

/// Gathers the header in memory, so that its size is known without a file.
class HeaderWriter {
 public:
  const std::string& bytes() const { return bytes_; }

  template <class T>
  void number(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void text(std::string_view value) {
    number<uint64_t>(value.size());
    bytes_ += value;
  }
  template <class T>
  void scalar(const T& value) {
    if constexpr (std::is_same_v<T, std::string>) {
      text(value);
    } else if constexpr (std::is_same_v<T, bool>) {
      number<uint8_t>(value);
    } else {
      number(value);
    }
  }
  void value(const GgufValue& any) {
    std::visit([&](const auto& held) { typed_value(held); }, any);
  }

 private:
  template <class T>
  void typed_value(const T& held) {
    number(kGgufCode<T>);
    scalar(held);
  }
  template <class T>
  void typed_value(const std::vector<T>& held) {
    number(kGgufArray);
    number(kGgufCode<T>);
    number<uint64_t>(held.size());
    for (const auto& element : held) scalar<T>(element);
  }

  std::string bytes_;
};

/// Bytes of a tensor that can be written; Error if it cannot.
int64_t checked_tensor_bytes(const GgufTensorToWrite& tensor) {
  const std::string name = quote_name(tensor.name);
  if (tensor.name.empty() || tensor.name.size() > kLongestNameLlamaCppReads || !is_printable(tensor.name)) {
    fail("writing GGUF: tensor name {}: expected 1 to {} bytes of UTF-8 without control characters", name,
         kLongestNameLlamaCppReads);
  }
  std::vector<int64_t> dims;
  for (int i = 0; i < tensor.shape.rank(); ++i) dims.push_back(tensor.shape[i]);
  if (dims.size() > kGgufMaxRank || std::find(dims.begin(), dims.end(), 0) != dims.end()) {
    fail("writing GGUF: tensor {} has shape {}, expected at most {} dimensions of at least 1", name,
         tensor.shape.to_string(), kGgufMaxRank);
  }
  const DTypeInfo& type = info(tensor.type);
  const std::optional<int64_t> bytes = checked_bytes(tensor.type, dims);
  if (!bytes) {
    fail("writing GGUF: tensor {} of shape {} cannot be stored as {}, whose rows are whole blocks of {}", name,
         tensor.shape.to_string(), type.name, type.block_size);
  }
  return *bytes;
}

void write_metadata(HeaderWriter& header, const GgufMetadata& metadata) {
  for (const auto& [key, value] : metadata.entries()) {
    if (key.empty() || key.size() > kGgufMaxKeyBytes || !is_printable(key)) {
      fail("writing GGUF: key {}: expected 1 to {} bytes of UTF-8 without control characters", quote_name(key),
           kGgufMaxKeyBytes);
    }
    header.text(key);
    // The file that the metadata came from may have had another alignment.
    header.value(key == "general.alignment" ? GgufValue(kGgufDefaultAlignment) : value);
  }
}

uint64_t padded(uint64_t size) {
  return (size + kGgufDefaultAlignment - 1) / kGgufDefaultAlignment * kGgufDefaultAlignment;
}

/// All of a file but the tensors' bytes.
struct Layout {
  HeaderWriter header;
  std::vector<int64_t> sizes;  // of tensors
  uint64_t data_bytes = 0;     // each padded
};

Layout lay_out(const GgufMetadata& metadata, std::span<const GgufTensorToWrite> tensors) {
  Layout layout;
  std::unordered_set<std::string_view> seen;
  for (const GgufTensorToWrite& tensor : tensors) {
    layout.sizes.push_back(checked_tensor_bytes(tensor));
    if (!seen.insert(tensor.name).second) fail("writing GGUF: tensor {} stands twice", quote_name(tensor.name));
  }
  HeaderWriter& header = layout.header;
  for (const char c : kGgufMagic) header.number(c);
  header.number<uint32_t>(3);
  header.number<uint64_t>(tensors.size());
  header.number<uint64_t>(metadata.entries().size());
  write_metadata(header, metadata);
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Shape& shape = tensors[i].shape;
    header.text(tensors[i].name);
    header.number<uint32_t>(static_cast<uint32_t>(shape.rank()));
    for (int axis = shape.rank(); axis-- > 0;) header.number<uint64_t>(static_cast<uint64_t>(shape[axis]));
    header.number<uint32_t>(info(tensors[i].type).gguf_id);
    header.number<uint64_t>(layout.data_bytes);
    layout.data_bytes += padded(static_cast<uint64_t>(layout.sizes[i]));
  }
  return layout;
}

}  // namespace

void write_gguf(OutputFile& out, const GgufMetadata& metadata, std::span<const GgufTensorToWrite> tensors) {
  const Layout layout = lay_out(metadata, tensors);
  out.write(layout.header.bytes());
  out.pad_to(kGgufDefaultAlignment);
  for (size_t i = 0; i < tensors.size(); ++i) {
    copy_produced(out, tensors[i].produce, layout.sizes[i], "writing GGUF", tensors[i].name);
    out.pad_to(kGgufDefaultAlignment);  // the last tensor too: readers map whole multiples
  }
}

uint64_t gguf_bytes(const GgufMetadata& metadata, std::span<const GgufTensorToWrite> tensors) {
  const Layout layout = lay_out(metadata, tensors);
  return padded(layout.header.bytes().size()) + layout.data_bytes;
}

}  // namespace pare
