#include "text/bpe.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "formats/names.h"
#include "text/unicode.h"

namespace pare {
namespace {

constexpr size_t kCachedWords = 16384;  // a megabyte
constexpr size_t kMaxScoredPiece = 1024;

/// Whether merging may make this piece: control pieces and the like only ever stand for themselves.
bool is_text(TokenType type) { return type == TokenType::kNormal || type == TokenType::kUserDefined; }

/// Whether a space symbol stands behind something else in the piece.
bool continues_with_space(std::string_view piece) {
  while (piece.starts_with(kSpaceSymbol)) piece.remove_prefix(kSpaceSymbol.size());
  return piece.find(kSpaceSymbol) != std::string_view::npos;
}

/// The character that a piece is, if it is one.
std::optional<char32_t> only_character(std::string_view piece) {
  if (piece.empty()) return std::nullopt;
  const Utf8Char first = decode_utf8(piece);
  const bool broken = first.code == kReplacementCharacter && first.length != 3;
  if (broken || first.length != piece.size()) return std::nullopt;
  return first.code;
}

PieceIndex unique_pieces(const TokenizerData& data) {
  PieceIndex ids(data.pieces.size());
  for (size_t id = 0; id < data.pieces.size(); ++id) {
    if (data.types[id] == TokenType::kUnused) continue;
    const auto own = static_cast<int32_t>(id);
    const int32_t first = ids.add(data.pieces[id], own);
    if (first != own) fail("the tokenizer's piece {} has the ids {} and {}", quote_name(data.pieces[id]), first, own);
  }
  return ids;
}

uint32_t hash_of(std::string_view text) {
  uint64_t hash = text.size();
  for (; text.size() >= 8; text.remove_prefix(8)) {
    uint64_t word;
    std::memcpy(&word, text.data(), 8);
    hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 29;
  }
  uint64_t word = 0;
  std::memcpy(&word, text.data(), text.size());
  hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
  return static_cast<uint32_t>(hash >> 40);
}

}  // namespace

BpeModel::BpeModel(const TokenizerData& data, std::span<const std::string> bytes)
    : kind_(data.kind),
      pieces_(static_cast<int32_t>(data.pieces.size())),
      unknown_(data.unknown.value_or(kNoSymbol)),
      fuse_unknown_(data.fuse_unknown),
      byte_fallback_(data.byte_fallback),
      ignore_merges_(data.ignore_merges) {
  const PieceIndex ids = unique_pieces(data);
  byte_symbol_.fill(kNoSymbol);
  last_byte_symbol_.fill(kNoSymbol);
  ascii_symbol_.fill(kNoSymbol);
  if (kind_ == TokenizerKind::kByteLevelBpe) {
    add_byte_symbols(data, ids);
  } else {
    add_character_symbols(data);
  }
  if (data.merges.empty() && !data.scores.empty()) {
    add_scored_merges(data);
  } else {
    add_ranked_merges(data, ids);
  }
  if (data.ignore_merges) {
    for (size_t id = 0; id < data.pieces.size(); ++id) {
      if (data.types[id] != TokenType::kNormal) continue;
      const bool byte_level = kind_ == TokenizerKind::kByteLevelBpe;
      whole_words_.add(byte_level ? bytes[id] : data.pieces[id], static_cast<int32_t>(id));
    }
  }
}

void BpeModel::add_byte_symbols(const TokenizerData& data, const PieceIndex& ids) {
  for (size_t byte = 0; byte < 256; ++byte) {
    std::string piece;
    append_utf8(piece, byte_level_character(static_cast<uint8_t>(byte)));
    byte_symbol_[byte] = ids.find(piece).value_or(kNoSymbol);
    piece += data.end_of_word_suffix;
    last_byte_symbol_[byte] = ids.find(piece).value_or(kNoSymbol);
  }
}

void BpeModel::set_symbol(char32_t character, int32_t symbol) {
  if (character < 128) {
    ascii_symbol_[character] = symbol;
  } else {
    character_symbol_[character] = symbol;
  }
}

int32_t BpeModel::symbol_of(char32_t character) const {
  if (character < 128) return ascii_symbol_[character];
  const auto found = character_symbol_.find(character);
  return found == character_symbol_.end() ? kNoSymbol : found->second;
}

void BpeModel::add_character_symbols(const TokenizerData& data) {
  for (size_t id = 0; id < data.pieces.size(); ++id) {
    const auto character = only_character(data.pieces[id]);
    if (character && is_text(data.types[id])) set_symbol(*character, static_cast<int32_t>(id));
  }
  if (!data.end_of_word_suffix.empty()) fail("an end-of-word suffix in a tokenizer without ByteLevel is not supported");
  for (size_t id = 0; id < data.pieces.size(); ++id) {
    if (data.types[id] != TokenType::kByte) continue;
    const auto byte = byte_of_fallback_piece(data.pieces[id]);
    if (!byte) fail("the byte piece {} is {}, expected <0x..>", id, quote_name(data.pieces[id]));
    byte_symbol_[*byte] = static_cast<int32_t>(id);
  }
}

void BpeModel::add_ranked_merges(const TokenizerData& data, const PieceIndex& ids) {
  table_.reserve(data.merges.size());
  cut_at_spaces_ = symbol_of(U'\u2581') != kNoSymbol;
  std::string joined;
  for (size_t rank = 0; rank < data.merges.size(); ++rank) {
    const auto [left, right] = data.merges[rank];
    if (left < 0 || left >= pieces_ || right < 0 || right >= pieces_) {
      fail("merge {} is of the ids {} and {}, expected ids below {}", rank, left, right, pieces_);
    }
    joined = data.pieces[static_cast<size_t>(left)];
    joined += data.pieces[static_cast<size_t>(right)];
    const auto result = ids.find(joined);
    if (!result) fail("merge {} makes {}, which is no piece", rank, quote_name(joined));
    table_.set(left, right, {static_cast<int32_t>(rank), *result});
    if (kind_ == TokenizerKind::kSentencePieceBpe) cut_at_spaces_ = cut_at_spaces_ && !continues_with_space(joined);
  }
}

void BpeModel::add_scored_merges(const TokenizerData& data) {
  std::vector<int32_t> order;
  PieceIndex text_ids(data.pieces.size());
  for (size_t id = 0; id < data.pieces.size(); ++id) {
    if (std::isnan(data.scores[id])) fail("the score of the tokenizer's piece {} is not a number", id);
    if (is_text(data.types[id])) order.push_back(static_cast<int32_t>(id));
    if (is_text(data.types[id])) text_ids.add(data.pieces[id], static_cast<int32_t>(id));
  }
  const auto score = [&](int32_t id) { return data.scores[static_cast<size_t>(id)]; };
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return score(a) > score(b); });
  cut_at_spaces_ = true;
  int32_t rank = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    // Pieces of the same score have the same rank: of them the leftmost is merged first.
    if (i > 0 && score(order[i]) != score(order[i - 1])) rank = static_cast<int32_t>(i);
    const std::string& piece = data.pieces[static_cast<size_t>(order[i])];
    if (piece.size() > kMaxScoredPiece) {
      fail("the tokenizer's piece {} has {} bytes, expected at most {}", order[i], piece.size(), kMaxScoredPiece);
    }
    add_splits_of(order[i], piece, rank, text_ids);
    cut_at_spaces_ = cut_at_spaces_ && !continues_with_space(piece);
  }
  cut_at_spaces_ = cut_at_spaces_ && symbol_of(U'\u2581') != kNoSymbol;
}

/// Every way to make a piece of two symbols is a merge.
void BpeModel::add_splits_of(int32_t id, std::string_view piece, int32_t rank, const PieceIndex& ids) {
  if (piece.empty()) return;
  for (size_t at = decode_utf8(piece).length; at < piece.size(); at += decode_utf8(piece.substr(at)).length) {
    const int32_t left = symbol_of(piece.substr(0, at), ids), right = symbol_of(piece.substr(at), ids);
    if (left != kNoSymbol && right != kNoSymbol) table_.set(left, right, {rank, id});
  }
}

int32_t BpeModel::symbol_of(std::string_view text, const PieceIndex& ids) {
  if (const auto character = only_character(text)) {
    if (const int32_t symbol = symbol_of(*character); symbol != kNoSymbol) return symbol;
    const auto extra = pieces_ + static_cast<int32_t>(extra_characters_.size());
    extra_characters_.emplace_back(text);
    set_symbol(*character, extra);
    return extra;
  }
  return ids.find(text).value_or(kNoSymbol);
}

void BpeModel::append_unknown(std::string_view character, std::vector<int32_t>& symbols) const {
  const auto symbol = [&](char byte) { return byte_symbol_[static_cast<uint8_t>(byte)]; };
  const bool bytes = byte_fallback_ && kind_ == TokenizerKind::kSentencePieceBpe &&
                     std::all_of(character.begin(), character.end(), [&](char c) { return symbol(c) != kNoSymbol; });
  if (bytes) {
    for (const char byte : character) symbols.push_back(symbol(byte));
  } else if (unknown_ != kNoSymbol && !(fuse_unknown_ && !symbols.empty() && symbols.back() == unknown_)) {
    symbols.push_back(unknown_);
  }
}

void BpeModel::split_bytes(std::string_view word, std::vector<int32_t>& symbols) const {
  for (size_t i = 0; i < word.size(); ++i) {
    const auto& table = i + 1 == word.size() ? last_byte_symbol_ : byte_symbol_;
    const int32_t symbol = table[static_cast<uint8_t>(word[i])];
    if (symbol != kNoSymbol) {
      symbols.push_back(symbol);
    } else {
      append_unknown(word.substr(i, 1), symbols);
    }
  }
}

void BpeModel::split_characters(std::string_view word, std::vector<int32_t>& symbols) const {
  for (size_t at = 0; at < word.size();) {
    const Utf8Char next = decode_utf8(word.substr(at));
    const int32_t symbol = symbol_of(next.code);
    if (symbol != kNoSymbol) {
      symbols.push_back(symbol);
    } else {
      append_unknown(word.substr(at, next.length), symbols);
    }
    at += next.length;
  }
}

void BpeModel::finish(std::span<const int32_t> symbols, std::vector<int32_t>& ids) const {
  if (extra_characters_.empty()) {
    ids.insert(ids.end(), symbols.begin(), symbols.end());
    return;
  }
  const size_t start = ids.size();
  for (const int32_t symbol : symbols) {
    if (symbol >= pieces_) {
      append_unknown(extra_characters_[static_cast<size_t>(symbol - pieces_)], ids);
    } else if (!(symbol == unknown_ && fuse_unknown_ && ids.size() > start && ids.back() == unknown_)) {
      ids.push_back(symbol);
    }
  }
}

BpeModel::Run::Run(const BpeModel& model, bool cached) : model_(model), merger_(model.table_) {
  if (cached) cache_.resize(kCachedWords);
}

void BpeModel::Run::encode(std::string_view word, std::vector<int32_t>& ids) {
  if (model_.ignore_merges_) {
    if (const auto whole = model_.whole_words_.find(word)) return ids.push_back(*whole);
  }
  if (model_.kind_ == TokenizerKind::kByteLevelBpe || !model_.cut_at_spaces_) return encode_cached(word, ids);
  // Spaces and what follows them up to the next spaces.
  const auto space_at = [&](size_t i) { return word.compare(i, kSpaceSymbol.size(), kSpaceSymbol) == 0; };
  for (size_t begin = 0; begin < word.size();) {
    size_t end = begin;
    while (end < word.size() && space_at(end)) end += kSpaceSymbol.size();
    end = std::min(word.find(kSpaceSymbol, end), word.size());
    encode_cached(word.substr(begin, end - begin), ids);
    begin = end;
  }
}

void BpeModel::Run::encode_cached(std::string_view word, std::vector<int32_t>& ids) {
  if (cache_.empty() || word.size() > sizeof(CachedWord::text)) return encode_uncached(word, ids);
  CachedWord& cached = cache_[hash_of(word) % kCachedWords];
  if (cached.count > 0 && std::string_view(cached.text, cached.length) == word) {
    ids.insert(ids.end(), cached.ids, cached.ids + cached.count);
    return;
  }
  const size_t start = ids.size();
  encode_uncached(word, ids);
  const size_t count = ids.size() - start;
  if (count == 0 || count > std::size(cached.ids)) return;
  cached.length = static_cast<uint8_t>(word.size());
  cached.count = static_cast<uint8_t>(count);
  std::memcpy(cached.text, word.data(), word.size());
  std::copy(ids.begin() + static_cast<ptrdiff_t>(start), ids.end(), cached.ids);
}

void BpeModel::Run::encode_uncached(std::string_view word, std::vector<int32_t>& ids) {
  symbols_.clear();
  if (model_.kind_ == TokenizerKind::kByteLevelBpe) {
    model_.split_bytes(word, symbols_);
  } else {
    model_.split_characters(word, symbols_);
  }
  merger_.merge(symbols_);
  model_.finish(symbols_, ids);
}

}  // namespace pare
