#include <limits>

#include "base/half.h"
#include "tensor/blocks.h"
#include "tensor/codecs.h"

namespace pare {
namespace {

// Q5_0: value = d * (q - 16). Q5_1: value = d * q + min. The low four bits of q lie as in Q4_0: byte i holds those of
// value i and of value i + 16; bit i of `high` is the fifth bit of value i.
struct BlockQ50 {
  static constexpr int kValues = 32;
  uint16_t d;  // f16
  uint8_t high[4];
  uint8_t low[16];
};
static_assert(sizeof(BlockQ50) == 22);

struct BlockQ51 {
  static constexpr int kValues = 32;
  uint16_t d, min;  // f16
  uint8_t high[4];
  uint8_t low[16];
};
static_assert(sizeof(BlockQ51) == 24);

/// From 32 values of q, 0 to 31.
void pack(const int32_t* q, uint8_t* __restrict high, uint8_t* __restrict low) {
  uint32_t bits = 0;
  for (int i = 0; i < 32; ++i) bits |= static_cast<uint32_t>(q[i]) >> 4 << i;
  std::memcpy(high, &bits, sizeof bits);
  for (int i = 0; i < 16; ++i) low[i] = static_cast<uint8_t>((q[i] & 15) | (q[i + 16] & 15) << 4);
}

BlockQ50 encode_q5_0_block(const float* from) {
  // As in Q4_0, the value of largest magnitude becomes exactly -16 * d.
  const float d = furthest_from_zero(from, 32) / -16.0f;
  const float inverse = reciprocal(d);
  BlockQ50 block{float_to_f16(d), {}, {}};
  int32_t q[32];
  for (int i = 0; i < 32; ++i) q[i] = cut(from[i] * inverse + 16.5f, 31);
  pack(q, block.high, block.low);
  return block;
}

BlockQ51 encode_q5_1_block(const float* from) {
  const bool finite = largest_magnitude(from, 32) < 0x7f800000;
  const auto [min, max] = range_of(from, 32);
  const float d = (max - min) / 31.0f;
  const float inverse = reciprocal(d);
  BlockQ51 block{float_to_f16(finite ? d : std::numeric_limits<float>::quiet_NaN()), float_to_f16(min), {}, {}};
  int32_t q[32];
  for (int i = 0; i < 32; ++i) q[i] = cut((from[i] - min) * inverse + 0.5f, 31);
  pack(q, block.high, block.low);
  return block;
}

}  // namespace

void encode_q5_0(const float* from, std::byte* to, int64_t count) { encode_blocks(from, to, count, encode_q5_0_block); }
void encode_q5_1(const float* from, std::byte* to, int64_t count) { encode_blocks(from, to, count, encode_q5_1_block); }

}  // namespace pare
