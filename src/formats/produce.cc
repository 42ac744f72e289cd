#include "formats/produce.h"

#include "base/error.h"
#include "formats/names.h"

namespace pare {

void copy_produced(OutputFile& out, const TensorProducer& produce, int64_t expected, std::string_view doing,
                   std::string_view name) {
  if (!produce) fail("{}: tensor {} has no bytes, expected {}", doing, quote_name(name), expected);
  uint64_t given = 0;
  const auto wanted = static_cast<uint64_t>(expected);
  produce([&](std::span<const std::byte> piece) {
    given += piece.size();
    if (given > wanted) fail("{}: tensor {} gave more than the {} bytes of its shape", doing, quote_name(name), wanted);
    out.write(piece);
  });
  if (given != wanted) fail("{}: tensor {} gave {} bytes, expected {}", doing, quote_name(name), given, wanted);
}

}  // namespace pare
