#pragma once
#include <filesystem>
#include <string>
#include <string_view>

#include "formats/gguf.h"

namespace pare {

// What people want to know of a model: its name, licence, authors. Hugging Face keeps it in the front matter of
// README.md (the model card), GGUF in keys general.*; here it has GGUF's names.

/// The front matter of a model card: scalars and lists of scalars of the keys that GGUF has a place for. What else YAML
/// can say is left aside, as is a card that is not UTF-8.
GgufMetadata parse_card(std::string_view text);
/// Of a folder's README.md; empty if there is none.
GgufMetadata read_card(const std::filesystem::path& folder);
/// Those keys of a GGUF file.
GgufMetadata card_of(const GgufMetadata& metadata);
/// A README.md; "" if the card says nothing.
std::string write_card(const GgufMetadata& card);

}  // namespace pare
