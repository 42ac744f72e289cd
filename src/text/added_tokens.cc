#include "text/added_tokens.h"

#include <algorithm>

#include "text/unicode.h"

namespace pare {
namespace {

/// Where the character before `end` begins.
size_t character_before(std::string_view text, size_t end) {
  do {
    --end;
  } while (end > 0 && (static_cast<uint8_t>(text[end]) & 0xc0) == 0x80);
  return end;
}

bool stands_alone(std::string_view text, size_t begin, size_t end) {
  const bool before = begin > 0 && is_word_character(decode_utf8(text.substr(character_before(text, begin))).code);
  return !before && (end == text.size() || !is_word_character(decode_utf8(text.substr(end)).code));
}

size_t spaces_before(std::string_view text, size_t begin, size_t least) {
  while (begin > least) {
    const size_t before = character_before(text, begin);
    if (!is_white_space(decode_utf8(text.substr(before)).code)) break;
    begin = before;
  }
  return std::max(begin, least);
}

size_t spaces_after(std::string_view text, size_t end) {
  while (end < text.size()) {
    const Utf8Char next = decode_utf8(text.substr(end));
    if (!is_white_space(next.code)) break;
    end += next.length;
  }
  return end;
}

}  // namespace

std::vector<int32_t> symbol_pieces(const TokenizerData& data) {
  std::vector<int32_t> ids;
  if (data.kind != TokenizerKind::kSentencePieceBpe) return ids;
  for (size_t id = 0; id < data.types.size(); ++id) {
    if (data.types[id] != TokenType::kUserDefined) continue;
    const auto at = std::lower_bound(data.added.begin(), data.added.end(), static_cast<int32_t>(id),
                                     [](const AddedToken& token, int32_t value) { return token.id < value; });
    if (at == data.added.end() || at->id != static_cast<int32_t>(id)) ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

AddedTokens::AddedTokens(const TokenizerData& data, const Normalizer& normalizer) : tokens_(data.added) {
  std::vector<TokenMatcher::Entry> plain, normalized;
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const std::string& text = data.pieces[static_cast<size_t>(tokens_[i].id)];
    if (tokens_[i].normalized) {
      std::string storage;
      normalized.push_back({normalizer.normalize(to_valid_utf8(text, storage)), static_cast<int32_t>(i)});
    } else {
      plain.push_back({text, static_cast<int32_t>(i)});
    }
  }
  for (const int32_t id : symbol_pieces(data)) {
    normalized.push_back({data.pieces[static_cast<size_t>(id)], static_cast<int32_t>(tokens_.size())});
    tokens_.push_back({.id = id});
  }
  plain_ = TokenMatcher(std::move(plain));
  normalized_ = TokenMatcher(std::move(normalized));
}

void AddedTokens::cut(const TokenMatcher& matcher, std::string_view text, bool parse_special, Visit visit) const {
  size_t done = 0, search = 0;
  while (const auto found = matcher.find(text, search)) {
    const AddedToken& token = tokens_[static_cast<size_t>(found->value)];
    search = found->end;
    if (token.special && !parse_special) continue;
    if (token.single_word && !stands_alone(text, found->begin, found->end)) continue;
    const size_t begin = token.lstrip ? spaces_before(text, found->begin, done) : found->begin;
    const size_t end = token.rstrip ? spaces_after(text, found->end) : found->end;
    if (done < begin) visit({text.substr(done, begin - done), -1, done == 0});
    visit({text.substr(begin, end - begin), token.id, begin == 0});
    done = end;
  }
  if (done < text.size()) visit({text.substr(done), -1, done == 0});
}

}  // namespace pare
