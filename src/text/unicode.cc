#include "text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <span>
#include <vector>

#include "base/error.h"

namespace pare {
namespace {

uint8_t byte_at(std::string_view text, size_t i) { return static_cast<uint8_t>(text[i]); }

/// The range that the second byte of a character may have, by its first: it rules out overlong forms, surrogates and
/// what lies beyond U+10FFFF (Unicode standard, table 3-7).
struct SecondByte {
  uint8_t least, most;
};
SecondByte second_byte_after(uint8_t first) {
  switch (first) {
    case 0xe0:
      return {0xa0, 0xbf};
    case 0xed:
      return {0x80, 0x9f};
    case 0xf0:
      return {0x90, 0xbf};
    case 0xf4:
      return {0x80, 0x8f};
    default:
      return {0x80, 0xbf};
  }
}

size_t length_by_first(uint8_t first) {
  if (first < 0x80) return 1;
  if (first < 0xc2 || first > 0xf4) return 0;
  return first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}

struct ByteLevelTable {
  std::array<char32_t, 256> character{};
  std::array<int16_t, 0x144> byte{};  // by character, -1 if it stands for none
  ByteLevelTable() {
    byte.fill(-1);
    char32_t next = 0x100;
    for (unsigned b = 0; b < 256; ++b) {
      const bool prints = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
      character[b] = prints ? b : next++;
      byte[character[b]] = static_cast<int16_t>(b);
    }
  }
};

const ByteLevelTable& byte_level_table() {
  static const ByteLevelTable table;
  return table;
}

/// Characters in canonical order. utf8proc's own ordering swaps neighbours, which takes forever on a long run of marks.
void order_canonically(std::span<int32_t> codes) {
  const auto combining_class = [](int32_t code) { return utf8proc_get_property(code)->combining_class; };
  for (size_t i = 0; i < codes.size();) {
    if (combining_class(codes[i]) == 0) {
      ++i;
      continue;
    }
    size_t end = i + 1;
    while (end < codes.size() && combining_class(codes[end]) != 0) ++end;
    std::stable_sort(codes.begin() + static_cast<ptrdiff_t>(i), codes.begin() + static_cast<ptrdiff_t>(end),
                     [&](int32_t a, int32_t b) { return combining_class(a) < combining_class(b); });
    i = end;
  }
}

/// Whether NFC leaves a text alone: nothing below U+0300 composes or decomposes without a mark from there on.
bool is_plainly_nfc(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) < 0xcc; });
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) < 0x80; });
}

}  // namespace

Utf8Char decode_utf8(std::string_view text) {
  const uint8_t first = byte_at(text, 0);
  if (first < 0x80) return {first, 1};
  const size_t length = length_by_first(first);
  if (length == 0) return {kReplacementCharacter, 1};
  const SecondByte second = second_byte_after(first);
  char32_t code = first & (0xffu >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    const uint8_t least = i == 1 ? second.least : 0x80, most = i == 1 ? second.most : 0xbf;
    if (i >= text.size() || byte_at(text, i) < least || byte_at(text, i) > most) return {kReplacementCharacter, i};
    code = code << 6 | (byte_at(text, i) & 0x3fu);
  }
  return {code, length};
}

void append_utf8(std::string& out, char32_t code) {
  const auto put = [&](char32_t bits) { out.push_back(static_cast<char>(bits)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xc0 | code >> 6), put(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    put(0xe0 | code >> 12), put(0x80 | (code >> 6 & 0x3f)), put(0x80 | (code & 0x3f));
  } else {
    put(0xf0 | code >> 18), put(0x80 | (code >> 12 & 0x3f)), put(0x80 | (code >> 6 & 0x3f)), put(0x80 | (code & 0x3f));
  }
}

std::string_view to_valid_utf8(std::string_view text, std::string& storage) {
  size_t valid = 0;
  const auto skip_valid = [&] {
    while (valid < text.size()) {
      if (byte_at(text, valid) < 0x80) {
        ++valid;
        continue;
      }
      const Utf8Char next = decode_utf8(text.substr(valid));
      // A real U+FFFD has three bytes, and no broken character has three that begin with EF BF.
      if (next.code == kReplacementCharacter && text.substr(valid, 3) != "\xef\xbf\xbd") return;
      valid += next.length;
    }
  };
  skip_valid();
  if (valid == text.size()) return text;
  storage.clear();
  size_t copied = 0;
  while (valid < text.size()) {
    storage.append(text.substr(copied, valid - copied));
    append_utf8(storage, kReplacementCharacter);
    valid += decode_utf8(text.substr(valid)).length;
    copied = valid;
    skip_valid();
  }
  storage.append(text.substr(copied));
  return storage;
}

bool is_white_space(char32_t code) {
  if (code < 0x80) return (code >= 9 && code <= 13) || code == ' ';
  return code == 0x85 || code == 0xa0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 ||
         code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000;
}

bool is_word_character(char32_t code) {
  if (code < 0x80) {
    return (code >= '0' && code <= '9') || (code >= 'a' && code <= 'z') || (code >= 'A' && code <= 'Z') || code == '_';
  }
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    // Circled and squared Latin letters are Alphabetic though they are symbols; the joiners hold words together.
    case UTF8PROC_CATEGORY_SO:
      return (code >= 0x24b6 && code <= 0x24e9) || (code >= 0x1f130 && code <= 0x1f149) ||
             (code >= 0x1f150 && code <= 0x1f169) || (code >= 0x1f170 && code <= 0x1f189);
    default:
      return code == 0x200c || code == 0x200d;
  }
}

void append_lowercase(std::string& out, char32_t code) {
  if (code == 0x130) {  // the one character whose lower case is two
    out += "i\u0307";
  } else {
    append_utf8(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code))));
  }
}

std::string normalize_unicode(std::string_view text, NormalForm form) {
  const bool composed = form == NormalForm::kNfc || form == NormalForm::kNfkc;
  if (form == NormalForm::kNfc ? is_plainly_nfc(text) : is_ascii(text)) return std::string(text);
  const bool compatible = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
  const auto decompose = static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0));
  std::vector<int32_t> codes;
  codes.reserve(text.size());
  while (!text.empty()) {
    const Utf8Char next = decode_utf8(text);
    text.remove_prefix(next.length);
    // No character decomposes into more than 18.
    std::array<int32_t, 32> parts{};
    int boundary = 0;
    const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(next.code), parts.data(),
                                               static_cast<utf8proc_ssize_t>(parts.size()), decompose, &boundary);
    if (count < 0 || count > static_cast<utf8proc_ssize_t>(parts.size())) {
      fail("U+{:04X} cannot be normalized", static_cast<uint32_t>(next.code));
    }
    codes.insert(codes.end(), parts.begin(), parts.begin() + count);
  }
  order_canonically(codes);
  auto length = static_cast<utf8proc_ssize_t>(codes.size());
  if (composed) {
    length = utf8proc_normalize_utf32(codes.data(), length,
                                      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    if (length < 0) fail("text cannot be normalized: {}", utf8proc_errmsg(length));
  }
  std::string out;
  out.reserve(static_cast<size_t>(length));
  for (const int32_t code : std::span(codes).first(static_cast<size_t>(length))) {
    append_utf8(out, static_cast<char32_t>(code));
  }
  return out;
}

char32_t byte_level_character(uint8_t byte) { return byte_level_table().character[byte]; }

std::optional<uint8_t> byte_of_character(char32_t code) {
  const auto& bytes = byte_level_table().byte;
  if (code >= bytes.size() || bytes[code] < 0) return std::nullopt;
  return static_cast<uint8_t>(bytes[code]);
}

std::optional<std::string> bytes_of_piece(std::string_view piece) {
  std::string out;
  while (!piece.empty()) {
    const Utf8Char next = decode_utf8(piece);
    const auto byte = byte_of_character(next.code);
    if (!byte) return std::nullopt;
    out.push_back(static_cast<char>(*byte));
    piece.remove_prefix(next.length);
  }
  return out;
}

std::string byte_level_text(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) append_utf8(out, byte_level_character(static_cast<uint8_t>(byte)));
  return out;
}

std::optional<uint8_t> byte_of_fallback_piece(std::string_view piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return std::nullopt;
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  const int high = digit(piece[3]), low = digit(piece[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<uint8_t>(high * 16 + low);
}

}  // namespace pare
