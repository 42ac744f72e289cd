#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace pare {

/// What a value of tokenizer.ggml.pre stands for: GGUF names pre-tokenizers instead of holding their patterns.
struct GgufPre {
  std::vector<PreTokenizerStep> steps;
  bool ignore_merges;
  bool add_bos;  // unless tokenizer.ggml.add_bos_token says otherwise
};

/// Throws Error for a name that is not known.
GgufPre gguf_pre(std::string_view name, std::string_view where);
/// The name that stands for the data's pre_tokenizer and ignore_merges, "" if none does.
std::string find_gguf_pre(const TokenizerData& data);

}  // namespace pare
