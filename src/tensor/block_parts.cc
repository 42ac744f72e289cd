#include "tensor/block_parts.h"

#include <algorithm>
#include <cstring>
#include <span>

#include "base/half.h"

#define PARE_INLINE __attribute__((always_inline)) inline

namespace pare {
namespace {

uint16_t half_at(const std::byte* p) {
  uint16_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return bits;
}

const uint8_t* bytes_at(const std::byte* p) { return reinterpret_cast<const uint8_t*>(p); }

uint8_t bits_of(int value, int shift, int count) { return static_cast<uint8_t>((value >> shift) & ((1 << count) - 1)); }

// Bytes are taken eight at a time, which compilers make vectors of.
constexpr uint64_t kOnes = 0x0101010101010101;
uint64_t eight_at(const uint8_t* p) {
  uint64_t eight;
  std::memcpy(&eight, p, sizeof eight);
  return eight;
}
void put_eight(uint64_t eight, uint8_t* to) { std::memcpy(to, &eight, sizeof eight); }

/// Codes of `width` bits, each byte holding one of every `bytes` columns: column c * bytes + i is field c of byte i.
PARE_INLINE void fields(const uint8_t* __restrict from, int bytes, int width, uint8_t* __restrict codes) {
  const uint64_t mask = kOnes * ((1u << width) - 1);
  for (int field = 0; field < 8 / width; ++field)
    for (int i = 0; i < bytes; i += 8) put_eight(eight_at(from + i) >> field * width & mask, codes + field * bytes + i);
}

/// One more bit for 256 codes, bit g of byte i for code 32 g + i: to stand at bit `place`.
PARE_INLINE void add_bits(const uint8_t* __restrict from, int place, uint8_t* __restrict codes) {
  for (int group = 0; group < 8; ++group)
    for (int i = 0; i < 32; i += 8) {
      uint8_t* const to = codes + 32 * group + i;
      put_eight(eight_at(to) | (eight_at(from + i) >> group & kOnes) << place, to);
    }
}

/// The fifth bit of 32 codes.
PARE_INLINE void add_fifth_bits(const std::byte* from, uint8_t* __restrict codes) {
  uint32_t bits;
  std::memcpy(&bits, from, sizeof bits);
  for (int i = 0; i < 32; ++i) codes[i] = static_cast<uint8_t>(codes[i] | (bits >> i & 1) << 4);
}

/// Eight scales and eight mins of 6 bits in 12 bytes: bytes 0 to 3 and 4 to 7 hold the first four of each in their low
/// bits, their two top bits those of the last four, whose low nibbles fill bytes 8 to 11.
void six_bit_scales(const uint8_t* from, BlockParts& parts) {
  for (int i = 0; i < 4; ++i) {
    const int scale = from[i], min = from[4 + i], low = from[8 + i];
    parts.scales[i] = static_cast<int8_t>(scale & 63);
    parts.mins[i] = static_cast<uint8_t>(min & 63);
    parts.scales[4 + i] = static_cast<int8_t>((low & 15) | (scale >> 6) << 4);
    parts.mins[4 + i] = static_cast<uint8_t>((low >> 4) | (min >> 6) << 4);
  }
}

/// Trit n of a byte that holds five: the leading base-3 digit of the fraction byte / 256, after n digits.
uint8_t trit(int byte, int n) {
  constexpr int kPowers[] = {1, 3, 9, 27, 81};
  return static_cast<uint8_t>((byte * kPowers[n] & 255) * 3 >> 8);
}

constexpr uint16_t kMinus = 0x8000;

}  // namespace

void split_q8_0(const std::byte* block, BlockParts& parts) {
  parts.d = half_at(block);
  fields(bytes_at(block + 2), 32, 8, parts.codes);
  for (uint8_t& code : std::span(parts.codes).first<32>()) code ^= 0x80;
}

void split_q4_0(const std::byte* block, BlockParts& parts) {
  parts.d = half_at(block);
  fields(bytes_at(block + 2), 16, 4, parts.codes);
}

void split_q4_1(const std::byte* block, BlockParts& parts) {
  parts.d = half_at(block);
  parts.m = half_at(block + 2) ^ kMinus;
  fields(bytes_at(block + 4), 16, 4, parts.codes);
}

void split_q5_0(const std::byte* block, BlockParts& parts) {
  parts.d = half_at(block);
  fields(bytes_at(block + 6), 16, 4, parts.codes);
  add_fifth_bits(block + 2, parts.codes);
}

void split_q5_1(const std::byte* block, BlockParts& parts) {
  parts.d = half_at(block);
  parts.m = half_at(block + 2) ^ kMinus;
  fields(bytes_at(block + 8), 16, 4, parts.codes);
  add_fifth_bits(block + 4, parts.codes);
}

// [16] scale and min nibbles, [64] codes, d, m.
void split_q2_k(const std::byte* block, BlockParts& parts) {
  for (int i = 0; i < 16; ++i) {
    parts.scales[i] = static_cast<int8_t>(bytes_at(block)[i] & 15);
    parts.mins[i] = bytes_at(block)[i] >> 4;
  }
  for (int half = 0; half < 2; ++half) fields(bytes_at(block + 16 + 32 * half), 32, 2, parts.codes + 128 * half);
  parts.d = half_at(block + 80);
  parts.m = half_at(block + 82);
}

// [32] third bits, [64] two low bits, [12] scales of 6 bits, d.
void split_q3_k(const std::byte* block, BlockParts& parts) {
  const uint8_t *top = bytes_at(block), *scales = bytes_at(block + 96);
  for (int half = 0; half < 2; ++half) fields(bytes_at(block + 32 + 32 * half), 32, 2, parts.codes + 128 * half);
  add_bits(top, 2, parts.codes);
  for (int i = 0; i < 16; ++i) {
    const int low = bits_of(scales[i % 8], i / 8 * 4, 4), high = bits_of(scales[8 + i % 4], i / 4 * 2, 2);
    parts.scales[i] = static_cast<int8_t>((low | high << 4) - 32);
  }
  parts.d = half_at(block + 108);
}

void split_q4_k(const std::byte* block, BlockParts& parts) {
  parts.d = half_at(block);
  parts.m = half_at(block + 2);
  six_bit_scales(bytes_at(block + 4), parts);
  for (int i = 0; i < 4; ++i) fields(bytes_at(block + 16 + 32 * i), 32, 4, parts.codes + 64 * i);
}

// d, m, [12] scales, [32] fifth bits, [128] nibbles.
void split_q5_k(const std::byte* block, BlockParts& parts) {
  parts.d = half_at(block);
  parts.m = half_at(block + 2);
  six_bit_scales(bytes_at(block + 4), parts);
  for (int i = 0; i < 4; ++i) fields(bytes_at(block + 48 + 32 * i), 32, 4, parts.codes + 64 * i);
  add_bits(bytes_at(block + 16), 4, parts.codes);
}

// [128] nibbles, [64] two top bits, [16] scales, d.
void split_q6_k(const std::byte* block, BlockParts& parts) {
  uint8_t top[256];
  for (int half = 0; half < 2; ++half) {
    fields(bytes_at(block + 64 * half), 64, 4, parts.codes + 128 * half);
    fields(bytes_at(block + 128 + 32 * half), 32, 2, top + 128 * half);
  }
  for (int i = 0; i < 256; i += 8) put_eight(eight_at(parts.codes + i) | eight_at(top + i) << 4, parts.codes + i);
  std::memcpy(parts.scales, block + 192, 16);
  parts.d = half_at(block + 208);
}

void split_iq4_nl(const std::byte* block, BlockParts& parts) { split_q4_0(block, parts); }

// d, [2] two top bits of each scale, [4] their low nibbles, [128] codes.
void split_iq4_xs(const std::byte* block, BlockParts& parts) {
  parts.d = half_at(block);
  const int high = half_at(block + 2);
  for (int i = 0; i < 8; ++i) {
    const int low = bits_of(bytes_at(block + 4)[i / 2], i % 2 * 4, 4);
    parts.scales[i] = static_cast<int8_t>((low | (high >> 2 * i & 3) << 4) - 32);
    fields(bytes_at(block + 8 + 16 * i), 16, 4, parts.codes + 32 * i);
  }
}

// [32] bytes of five trits, [16] more, [4] of four, d.
void split_tq1_0(const std::byte* block, BlockParts& parts) {
  const uint8_t* bytes = bytes_at(block);
  uint8_t* code = parts.codes;
  const auto take = [&](int count, int trits) {
    for (int n = 0; n < trits; ++n)
      for (int i = 0; i < count; ++i) *code++ = trit(bytes[i], n);
    bytes += count;
  };
  take(32, 5), take(16, 5), take(4, 4);
  parts.d = half_at(block + 52);
}

void split_tq2_0(const std::byte* block, BlockParts& parts) {
  for (int half = 0; half < 2; ++half) fields(bytes_at(block + 32 * half), 32, 2, parts.codes + 128 * half);
  parts.d = half_at(block + 64);
}

// d, [16] codes: four neighbours a byte.
void split_q2_0(const std::byte* block, BlockParts& parts) {
  parts.d = half_at(block);
  uint8_t bytes[16];
  std::memcpy(bytes, block + 2, sizeof bytes);
  for (int i = 0; i < 64; ++i) parts.codes[i] = bits_of(bytes[i / 4], i % 4 * 2, 2);
}

const BlockForm* find_block_form(DType type) {
  static constexpr auto kForms = block_forms();
  const auto* form = std::find_if(kForms.begin(), kForms.end(), [&](const BlockForm& one) { return one.type == type; });
  return form == kForms.end() ? nullptr : form;
}

namespace {

PARE_INLINE void join_here(const BlockForm& form, const BlockParts& parts, float* __restrict to) {
  const float d = f16_to_float(parts.d), m = f16_to_float(parts.m);
  for (int unit = 0; unit < form.columns / form.unit; ++unit) {
    const float scale = form.scale_bits ? d * static_cast<float>(parts.scales[unit]) : d;
    const float min = form.has_min && form.scale_bits ? m * static_cast<float>(parts.mins[unit]) : m;
    for (int k = unit * form.unit; k < (unit + 1) * form.unit; ++k) {
      const int code = form.table ? kIq4Values[parts.codes[k]] : parts.codes[k] - form.offset;
      const float value = scale * static_cast<float>(code);
      to[k] = form.has_min ? value - min : value;
    }
  }
}

}  // namespace

void join(const BlockForm& form, const BlockParts& parts, float* to) { join_here(form, parts, to); }

template <DType kType>
void decode_blocks(const std::byte* from, float* to, int64_t count) {
  constexpr BlockForm kForm = block_form(kType);  // known here, so that its loops become vectors
  BlockParts parts;
  for (int64_t k = 0; k < count; k += kForm.columns, from += info(kType).block_bytes) {
    kForm.split(from, parts);
    join_here(kForm, parts, to + k);
  }
}

template void decode_blocks<DType::kQ8_0>(const std::byte*, float*, int64_t);
template void decode_blocks<DType::kQ4_0>(const std::byte*, float*, int64_t);
template void decode_blocks<DType::kQ4_1>(const std::byte*, float*, int64_t);
template void decode_blocks<DType::kQ5_0>(const std::byte*, float*, int64_t);
template void decode_blocks<DType::kQ5_1>(const std::byte*, float*, int64_t);
template void decode_blocks<DType::kQ2_K>(const std::byte*, float*, int64_t);
template void decode_blocks<DType::kQ3_K>(const std::byte*, float*, int64_t);
template void decode_blocks<DType::kQ4_K>(const std::byte*, float*, int64_t);
template void decode_blocks<DType::kQ5_K>(const std::byte*, float*, int64_t);
template void decode_blocks<DType::kQ6_K>(const std::byte*, float*, int64_t);
template void decode_blocks<DType::kIQ4_NL>(const std::byte*, float*, int64_t);
template void decode_blocks<DType::kIQ4_XS>(const std::byte*, float*, int64_t);
template void decode_blocks<DType::kTQ1_0>(const std::byte*, float*, int64_t);
template void decode_blocks<DType::kTQ2_0>(const std::byte*, float*, int64_t);
template void decode_blocks<DType::kQ2_0>(const std::byte*, float*, int64_t);

}  // namespace pare
