#include "text/tokenizer.h"

#include <algorithm>

#include "base/error.h"
#include "formats/names.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/unicode.h"

namespace pare {
namespace {

constexpr size_t kCachePays = 4096;  // bytes of text

void check_id(std::optional<int32_t> id, const TokenizerData& data, const char* what) {
  if (id && (*id < 0 || *id >= data.size())) {
    fail("the tokenizer's {} token has id {}, expected one below {}", what, *id, data.size());
  }
}

TokenizerData checked(TokenizerData data) {
  if (data.pieces.size() > size_t{1} << 30) fail("a tokenizer of {} pieces", data.pieces.size());
  if (data.types.size() != data.pieces.size()) {
    fail("the tokenizer has {} pieces and {} types", data.pieces.size(), data.types.size());
  }
  if (!data.scores.empty() && data.scores.size() != data.pieces.size()) {
    fail("the tokenizer has {} pieces and {} scores", data.pieces.size(), data.scores.size());
  }
  check_id(data.bos, data, "bos");
  check_id(data.eos, data, "eos");
  check_id(data.unknown, data, "unknown");
  check_id(data.padding, data, "padding");
  for (const int32_t id : data.end_of_generation) check_id(id, data, "end-of-generation");
  for (const AddedToken& token : data.added) check_id(token.id, data, "added");
  const auto not_rising = [](const AddedToken& a, const AddedToken& b) { return a.id >= b.id; };
  if (std::adjacent_find(data.added.begin(), data.added.end(), not_rising) != data.added.end()) {
    fail("the tokenizer's added tokens are not in the order of their ids");
  }
  if (data.add_bos && !data.bos) fail("the tokenizer adds a bos token and has none");
  if (data.add_eos && !data.eos) fail("the tokenizer adds an eos token and has none");
  return data;
}

/// What each id stands for in decoded text.
std::vector<std::string> bytes_by_id(const TokenizerData& data) {
  std::vector<std::string> out(data.pieces.size());
  std::vector<bool> added(data.pieces.size());
  for (const AddedToken& token : data.added) added[static_cast<size_t>(token.id)] = true;
  for (size_t id = 0; id < out.size(); ++id) {
    const std::string& piece = data.pieces[id];
    if (data.types[id] == TokenType::kUnused) continue;
    if (data.kind == TokenizerKind::kByteLevelBpe) {
      out[id] = added[id] ? piece : bytes_of_piece(piece).value_or(piece);
      continue;
    }
    if (const auto byte = byte_of_fallback_piece(piece); byte && data.types[id] == TokenType::kByte) {
      out[id] = static_cast<char>(*byte);
      continue;
    }
    for (size_t at = 0; at < piece.size();) {
      const bool space = piece.compare(at, kSpaceSymbol.size(), kSpaceSymbol) == 0;
      out[id] += space ? ' ' : piece[at];
      at += space ? kSpaceSymbol.size() : 1;
    }
  }
  return out;
}

TokenMatcher symbol_matcher(const TokenizerData& data) {
  std::vector<TokenMatcher::Entry> entries;
  for (const int32_t id : symbol_pieces(data)) entries.push_back({data.pieces[static_cast<size_t>(id)], id});
  return TokenMatcher(std::move(entries));
}

}  // namespace

struct Tokenizer::Impl {
  explicit Impl(TokenizerData from)
      : data(checked(std::move(from))),
        bytes(bytes_by_id(data)),
        special(data.pieces.size()),
        normalizer(data.normalizer, symbol_matcher(data)),
        added(data, normalizer),
        pre_tokenizer(data.pre_tokenizer),
        model(data, bytes) {
    for (size_t id = 0; id < special.size(); ++id) {
      special[id] = data.types[id] == TokenType::kControl || data.types[id] == TokenType::kUnknown;
    }
    for (const AddedToken& token : data.added) special[static_cast<size_t>(token.id)] = token.special;
  }

  const std::string& bytes_of(int32_t id, bool keep_special) const {
    static const std::string nothing;
    if (id < 0 || id >= data.size()) fail("token id {} is out of range, expected one below {}", id, data.size());
    const auto at = static_cast<size_t>(id);
    return special[at] && !keep_special ? nothing : bytes[at];
  }

  TokenizerData data;
  std::vector<std::string> bytes;
  std::vector<bool> special;
  Normalizer normalizer;
  AddedTokens added;
  PreTokenizer pre_tokenizer;
  BpeModel model;
};

Tokenizer::Tokenizer(TokenizerData data) {
  const std::string source = data.source;
  try {
    impl_ = std::make_unique<Impl>(std::move(data));
  } catch (const Error& error) {
    if (source.empty()) throw;
    fail("{}: {}", source, error.what());
  }
}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

const TokenizerData& Tokenizer::data() const { return impl_->data; }

std::vector<int32_t> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  const Impl& own = *impl_;
  std::string valid, normalized;
  text = to_valid_utf8(text, valid);
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 3 + 2);
  if (options.add_special && own.data.add_bos) ids.push_back(*own.data.bos);
  PreTokenizer::Run words(own.pre_tokenizer);
  BpeModel::Run model(own.model, text.size() >= kCachePays);
  own.added.cut_plain(text, options.parse_special, [&](const AddedTokens::Part& outer) {
    if (outer.id >= 0) return ids.push_back(outer.id);
    std::string_view plain = outer.text;
    if (!own.normalizer.empty()) plain = normalized = own.normalizer.normalize(plain);
    own.added.cut_normalized(plain, options.parse_special, [&](const AddedTokens::Part& part) {
      if (part.id >= 0) return ids.push_back(part.id);
      words.split(part.text, outer.first && part.first, [&](std::string_view word) { model.encode(word, ids); });
    });
  });
  if (options.add_special && own.data.add_eos) ids.push_back(*own.data.eos);
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool keep_special) const {
  std::string out;
  for (const int32_t id : ids) out += impl_->bytes_of(id, keep_special);
  if (impl_->data.strip_decoded_space && out.starts_with(' ')) out.erase(0, 1);
  return out;
}

std::string Tokenizer::decode_one(int32_t id, bool keep_special) const { return impl_->bytes_of(id, keep_special); }

bool Tokenizer::ends_generation(int32_t id) const {
  const auto& ends = impl_->data.end_of_generation;
  return std::find(ends.begin(), ends.end(), id) != ends.end() || impl_->data.eos == id;
}

void pad_vocabulary(TokenizerData& data, int64_t size) {
  if (size > int64_t{1} << 30) fail("a vocabulary of {} tokens", size);
  for (int64_t id = data.size(); id < size; ++id) {
    data.pieces.push_back(fmt::format("[PAD{}]", id));
    data.types.push_back(TokenType::kUnused);
    if (!data.scores.empty()) data.scores.push_back(0);
  }
}

}  // namespace pare
