// Any text as a tokenizer.json (up to a zero byte; after it a tokenizer_config.json): refused with one line, or a
// tokenizer that encodes a text, and encodes it the same after its data went through GGUF and through a tokenizer.json
// of our own.
// covers: src/text/tokenizer_json.cc src/text/json_read.cc src/text/json_parts.cc src/text/special_tokens.cc
// covers: src/text/regex_syntax.cc
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/error.h"
#include "text/tokenizer.h"

namespace {

constexpr std::string_view kText =
    "Hello  world's <s>1234</s>\n\n\t <mask> ab aab\u00e9\u0301 e\u0301 \u65e5\u672c\xff\xe2\x82 \u2581x a|b (c) [d]";

std::vector<int32_t> encode(const pare::Tokenizer& tokenizer) {
  return tokenizer.encode(kText, {.add_special = true, .parse_special = true});
}

/// What was refused on the way is no tokenizer; what was not must encode as before.
template <class Convert>
void check_through(const pare::Tokenizer& tokenizer, const std::vector<int32_t>& ids, Convert convert) {
  std::vector<int32_t> again;
  try {
    again = encode(pare::Tokenizer(convert(tokenizer.data())));
  } catch (const pare::Error&) {
    return;
  }
  if (again != ids) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::string_view json = input.substr(0, input.find('\0'));
  const std::string_view config = json.size() < size ? input.substr(json.size() + 1) : std::string_view();
  try {
    const pare::Tokenizer tokenizer(pare::parse_tokenizer_json(json, config, "input"));
    const std::vector<int32_t> ids = encode(tokenizer);
    std::string streamed;
    for (const int32_t id : ids) streamed += tokenizer.decode_one(id, true);
    if (!streamed.ends_with(tokenizer.decode(ids, true))) std::abort();
    (void)tokenizer.encode(kText, {.add_special = false, .parse_special = false});
    check_through(tokenizer, ids, [](const pare::TokenizerData& from) {
      pare::GgufMetadata metadata("written");
      pare::write_tokenizer_gguf(from, metadata);
      return pare::read_tokenizer_gguf(metadata);
    });
    check_through(tokenizer, ids, [](const pare::TokenizerData& from) {
      const pare::TokenizerFiles files = pare::to_tokenizer_files(from);
      return pare::parse_tokenizer_json(files.tokenizer_json, files.tokenizer_config_json, "written");
    });
  } catch (const pare::Error&) {
  }
  return 0;
}
