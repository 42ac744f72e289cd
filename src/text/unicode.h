#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace pare {

constexpr char32_t kReplacementCharacter = 0xfffd;
constexpr std::string_view kSpaceSymbol = "\u2581";  // what SentencePiece writes for a space

/// One character of UTF-8 text and the bytes it takes.
struct Utf8Char {
  char32_t code;
  size_t length;
};

/// The character at the start of text, which is not empty. What is no character reads as U+FFFD with the length of the
/// longest start of one (Unicode's "maximal subpart"), at least 1.
Utf8Char decode_utf8(std::string_view text);
void append_utf8(std::string& out, char32_t code);

/// The length of the character that starts with this byte of valid UTF-8.
inline size_t utf8_length(char first) {
  const auto byte = static_cast<unsigned char>(first);
  return byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

/// text itself if it is valid UTF-8; otherwise a copy in `storage` with U+FFFD for what is not.
std::string_view to_valid_utf8(std::string_view text, std::string& storage);

/// Unicode's White_Space.
bool is_white_space(char32_t code);
/// A word character of regular expressions: letters and what is like them, marks, digits, connectors.
bool is_word_character(char32_t code);
/// Lower case by Unicode's default mapping, without context.
void append_lowercase(std::string& out, char32_t code);

enum class NormalForm : uint8_t { kNfc, kNfd, kNfkc, kNfkd };
/// text, which is valid UTF-8, in a normal form.
std::string normalize_unicode(std::string_view text, NormalForm form);

/// GPT-2's character for a byte: itself where it prints, else one from U+0100 on.
char32_t byte_level_character(uint8_t byte);
/// The byte that a character stands for, nothing for a character that stands for none.
std::optional<uint8_t> byte_of_character(char32_t code);
/// The bytes that byte-level characters stand for; nothing if one of them stands for none.
std::optional<std::string> bytes_of_piece(std::string_view piece);
std::string byte_level_text(std::string_view bytes);

/// The byte that a piece "<0x0A>" stands for, nothing for another piece.
std::optional<uint8_t> byte_of_fallback_piece(std::string_view piece);

}  // namespace pare
