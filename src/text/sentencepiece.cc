#include <algorithm>
#include <bit>
#include <string>

#include "base/error.h"
#include "formats/names.h"
#include "text/normalizer.h"
#include "text/protobuf.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace pare {
namespace {

// Field numbers of sentencepiece_model.proto.
namespace model_field {
constexpr uint32_t kPieces = 1, kTrainerSpec = 2, kNormalizerSpec = 3, kDenormalizerSpec = 5;
}
namespace piece_field {
constexpr uint32_t kPiece = 1, kScore = 2, kType = 3;
}
namespace trainer_field {
constexpr uint32_t kModelType = 3, kWhitespaceAsSuffix = 24, kByteFallback = 35;
constexpr uint32_t kUnknownId = 40, kBosId = 41, kEosId = 42, kPaddingId = 43;
}  // namespace trainer_field
namespace normalizer_field {
constexpr uint32_t kCharsMap = 2, kAddDummyPrefix = 3, kRemoveExtraWhitespaces = 4, kEscapeWhitespaces = 5;
}

struct TrainerSpec {
  uint64_t model_type = 1;
  bool whitespace_as_suffix = false, byte_fallback = false;
  int64_t unknown = 0, bos = 1, eos = 2, padding = -1;
};

struct NormalizerSpec {
  std::string charsmap;
  bool add_dummy_prefix = true, remove_extra_whitespaces = true, escape_whitespaces = true;
};

TrainerSpec read_trainer_spec(std::string_view bytes, std::string_view where) {
  TrainerSpec spec;
  ProtoReader reader(bytes, where);
  while (const auto field = reader.next()) {
    if (field->kind != ProtoField::Kind::kNumber) continue;
    const auto id = static_cast<int64_t>(static_cast<int32_t>(field->value));
    switch (field->number) {
      case trainer_field::kModelType:
        spec.model_type = field->value;
        break;
      case trainer_field::kWhitespaceAsSuffix:
        spec.whitespace_as_suffix = field->value != 0;
        break;
      case trainer_field::kByteFallback:
        spec.byte_fallback = field->value != 0;
        break;
      case trainer_field::kUnknownId:
        spec.unknown = id;
        break;
      case trainer_field::kBosId:
        spec.bos = id;
        break;
      case trainer_field::kEosId:
        spec.eos = id;
        break;
      case trainer_field::kPaddingId:
        spec.padding = id;
        break;
      default:
        break;
    }
  }
  return spec;
}

NormalizerSpec read_normalizer_spec(std::string_view bytes, std::string_view where) {
  NormalizerSpec spec;
  ProtoReader reader(bytes, where);
  while (const auto field = reader.next()) {
    const bool number = field->kind == ProtoField::Kind::kNumber;
    const bool on = field->value != 0;
    if (!number && field->number == normalizer_field::kCharsMap) spec.charsmap = field->bytes;
    if (number && field->number == normalizer_field::kAddDummyPrefix) spec.add_dummy_prefix = on;
    if (number && field->number == normalizer_field::kRemoveExtraWhitespaces) spec.remove_extra_whitespaces = on;
    if (number && field->number == normalizer_field::kEscapeWhitespaces) spec.escape_whitespaces = on;
  }
  return spec;
}

void read_piece(std::string_view bytes, TokenizerData& data, std::string_view where) {
  std::string_view piece;
  uint32_t score_bits = 0;
  uint64_t type = 1;
  ProtoReader reader(bytes, where);
  while (const auto field = reader.next()) {
    const bool number = field->kind == ProtoField::Kind::kNumber;
    if (!number && field->number == piece_field::kPiece) piece = field->bytes;
    if (number && field->number == piece_field::kScore) score_bits = static_cast<uint32_t>(field->value);
    if (number && field->number == piece_field::kType) type = field->value;
  }
  const size_t id = data.pieces.size();
  std::string storage;
  if (piece.empty()) fail("{}: piece {} is empty", where, id);
  if (to_valid_utf8(piece, storage).data() != piece.data()) fail("{}: piece {} is not UTF-8", where, id);
  if (type < 1 || type > 6) fail("{}: piece {} has type {}, expected 1 to 6", where, id, type);
  // SentencePiece merges to an unused piece and then takes it apart again; no model is known that needs it.
  if (type == 5) {
    fail("{}: piece {} ({}) is unused: restricted vocabularies are not supported", where, id, quote_name(piece));
  }
  data.pieces.emplace_back(piece);
  data.scores.push_back(std::bit_cast<float>(score_bits));
  data.types.push_back(static_cast<TokenType>(type));
}

/// Lines of base64 and a number are how OpenAI's tiktoken and Meta's Llama 3 release keep a vocabulary, under the same
/// file name.
bool is_tiktoken(std::string_view text) {
  const std::string_view line = text.substr(0, std::min(text.find('\n'), size_t{200}));
  const size_t space = line.find(' ');
  const auto base64 = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '+' || c == '/' ||
           c == '=';
  };
  return space != std::string_view::npos && space > 0 && space + 1 < line.size() &&
         std::all_of(line.begin(), line.begin() + static_cast<ptrdiff_t>(space), base64) &&
         line.find_first_not_of("0123456789\r", space + 1) == std::string_view::npos;
}

void check_supported(const TrainerSpec& trainer, const NormalizerSpec& normalizer, std::string_view where) {
  if (trainer.model_type != 2) {
    const char* const names[] = {"0", "unigram", "bpe", "word", "char"};
    const std::string name = trainer.model_type < 5 ? names[trainer.model_type] : std::to_string(trainer.model_type);
    fail("{}: a SentencePiece model of type {}, which is not supported (only bpe is)", where, name);
  }
  if (trainer.whitespace_as_suffix) fail("{}: treat_whitespace_as_suffix is not supported", where);
  if (!normalizer.escape_whitespaces) fail("{}: a model without escape_whitespaces is not supported", where);
}

void add_roles(const TrainerSpec& trainer, TokenizerData& data, std::string_view where) {
  for (size_t i = 0; i < data.pieces.size(); ++i) {
    const auto id = static_cast<int32_t>(i);
    if (data.types[i] == TokenType::kUnknown) {
      if (data.unknown) fail("{}: pieces {} and {} are both the unknown token", where, *data.unknown, id);
      data.unknown = id;
    }
    const bool special = data.types[i] == TokenType::kUnknown || data.types[i] == TokenType::kControl;
    if (special) data.added.push_back({.id = id, .special = true});
  }
  if (!data.unknown) fail("{}: no piece is the unknown token", where);
  const auto control = [&](int64_t id) -> std::optional<int32_t> {
    if (id < 0 || id >= data.size() || data.types[static_cast<size_t>(id)] != TokenType::kControl) return std::nullopt;
    return static_cast<int32_t>(id);
  };
  data.bos = control(trainer.bos);
  data.eos = control(trainer.eos);
  data.padding = control(trainer.padding);
  // The library leaves this to its caller; every known model of this kind was trained with one.
  data.add_bos = data.bos.has_value();
  if (data.eos) data.end_of_generation = {*data.eos};
}

}  // namespace

TokenizerData parse_sentencepiece(std::span<const std::byte> bytes, std::string_view where) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (is_tiktoken(text)) {
    fail("{}: a tiktoken vocabulary, which has neither patterns nor special tokens; expected a tokenizer.json", where);
  }
  TokenizerData data;
  data.kind = TokenizerKind::kSentencePieceBpe;
  data.source = where;
  TrainerSpec trainer;
  NormalizerSpec normalizer;
  ProtoReader reader(text, where);
  while (const auto field = reader.next()) {
    if (field->kind != ProtoField::Kind::kBytes) continue;
    switch (field->number) {
      case model_field::kPieces:
        read_piece(field->bytes, data, where);
        break;
      case model_field::kTrainerSpec:
        trainer = read_trainer_spec(field->bytes, where);
        break;
      case model_field::kNormalizerSpec:
        normalizer = read_normalizer_spec(field->bytes, where);
        break;
      case model_field::kDenormalizerSpec:
        if (!read_normalizer_spec(field->bytes, where).charsmap.empty()) {
          fail("{}: a denormalizer is not supported", where);
        }
        break;
      default:
        break;
    }
  }
  if (data.pieces.empty()) fail("{}: not a SentencePiece model: it has no pieces", where);
  check_supported(trainer, normalizer, where);
  add_roles(trainer, data, where);
  data.byte_fallback = trainer.byte_fallback;
  const auto byte_pieces = std::count(data.types.begin(), data.types.end(), TokenType::kByte);
  if (data.byte_fallback && byte_pieces != 256) fail("{}: {} byte pieces, expected 256", where, byte_pieces);
  data.fuse_unknown = true;
  data.strip_decoded_space = normalizer.add_dummy_prefix;
  data.normalizer = sentencepiece_normalizer(std::move(normalizer.charsmap), normalizer.remove_extra_whitespaces,
                                             normalizer.add_dummy_prefix);
  return data;
}

}  // namespace pare
