// Any bytes as a SentencePiece model: refused with one line, or a tokenizer that encodes a text, and encodes it the
// same after its data went through GGUF.
// covers: src/text/sentencepiece.cc src/text/protobuf.h src/text/chars_map.cc
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/error.h"
#include "text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text =
      "Hello  world <s>1234</s>\n\n\t ab aab\u00e9 e\u0301 \u65e5\u672c\xff\xe2\x82 \u2581x \uff21\ufb01 ";
  try {
    const pare::Tokenizer tokenizer(pare::parse_sentencepiece(std::as_bytes(std::span(data, size)), "input"));
    const std::vector<int32_t> ids = tokenizer.encode(text);
    std::string streamed;
    for (const int32_t id : ids) streamed += tokenizer.decode_one(id, true);
    if (!streamed.ends_with(tokenizer.decode(ids, true))) std::abort();
    (void)tokenizer.encode(text, {.add_special = false, .parse_special = false});
    pare::GgufMetadata metadata("written");
    pare::write_tokenizer_gguf(tokenizer.data(), metadata);
    if (pare::Tokenizer(pare::read_tokenizer_gguf(metadata)).encode(text) != ids) std::abort();
  } catch (const pare::Error&) {
  }
  return 0;
}
