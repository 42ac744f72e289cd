#pragma once
#include <string>
#include <string_view>

#include "text/json_parts.h"
#include "text/tokenizer.h"

namespace pare {

/// What tokenizer_config.json says: bos, eos and padding tokens, chat_template.
void add_tokenizer_config(const JsonTree& config, TokenizerData& data, std::string_view where);
/// Its add_bos_token and add_eos_token, which count only where no tokenizer.json says what stands around the text.
void add_added_bos_eos(const JsonTree& config, TokenizerData& data, std::string_view where);
/// The tokens of special_tokens_map.json, as far as they are not known yet.
void add_special_tokens_map(const JsonTree& map, TokenizerData& data, std::string_view where);
/// bos_token_id and eos_token_id of generation_config.json or config.json: every eos ends generation.
void add_generation_config(const JsonTree& config, TokenizerData& data, std::string_view where);
void add_end_of_generation(TokenizerData& data, int32_t id);

}  // namespace pare
