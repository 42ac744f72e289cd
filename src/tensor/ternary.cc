#include "base/half.h"
#include "tensor/blocks.h"
#include "tensor/codecs.h"

namespace pare {
namespace {

// TQ1_0: value = d * (q - 1), q of 0, 1 or 2: five to a byte, as the base-3 fraction 0.q0q1q2q3q4 in 256ths, rounded
// up. Times 3^n modulo 256 drops the first n digits, and times 3 / 256 then gives the next one. A run of 160 values
// lies in 32 bytes, one of 80 in 16 and the last, of 16, in 4 (four to a byte): digit n of byte i is value
// n * bytes + i of the run.
struct BlockTq1 {
  static constexpr int kValues = kSuperBlock;
  uint8_t q[52];
  uint16_t d;  // f16
};
static_assert(sizeof(BlockTq1) == 54);

struct Run {
  int bytes, digits;
};
constexpr Run kRuns[] = {{32, 5}, {16, 5}, {4, 4}};

// TQ2_0: value = d * (q - 1), two bits a q. Each 32 bytes hold 128 values: value i in bits 2 * (i / 32) of byte i % 32.
struct BlockTq2 {
  static constexpr int kValues = kSuperBlock;
  uint8_t q[64];
  uint16_t d;  // f16
};
static_assert(sizeof(BlockTq2) == 66);

// Q2_0: value = d * (q - 1), two bits a q, value i in bits 2 * (i % 4) of byte i / 4.
struct BlockQ2 {
  static constexpr int kValues = 64;
  uint16_t d;  // f16
  uint8_t q[16];
};
static_assert(sizeof(BlockQ2) == 18);

/// q of `count` values: the nearest of -d, 0 and d, where d is the largest magnitude. Returns d.
float quantize(const float* from, int count, uint8_t* __restrict q) {
  const float d = std::bit_cast<float>(largest_magnitude(from, count));
  const float inverse = reciprocal(d);
  for (int i = 0; i < count; ++i) q[i] = static_cast<uint8_t>(round_half_away(from[i] * inverse) + 1);
  return d;
}

BlockTq1 encode_tq1_0_block(const float* from) {
  uint8_t q[kSuperBlock];
  BlockTq1 block{};
  block.d = float_to_f16(quantize(from, kSuperBlock, q));
  const uint8_t* next = q;
  uint8_t* to = block.q;
  for (const Run run : kRuns) {
    for (int i = 0; i < run.bytes; ++i) {
      int number = 0;
      for (int digit = 0; digit < 5; ++digit) {
        number = number * 3 + (digit < run.digits ? next[digit * run.bytes + i] : 0);
      }
      to[i] = static_cast<uint8_t>((number * 256 + 242) / 243);
    }
    next += run.bytes * run.digits;
    to += run.bytes;
  }
  return block;
}

BlockTq2 encode_tq2_0_block(const float* from) {
  uint8_t q[kSuperBlock];
  BlockTq2 block{};
  block.d = float_to_f16(quantize(from, kSuperBlock, q));
  for (int half = 0; half < 2; ++half) {
    const uint8_t* run = q + half * 128;
    for (int i = 0; i < 32; ++i) {
      block.q[half * 32 + i] = static_cast<uint8_t>(run[i] | run[i + 32] << 2 | run[i + 64] << 4 | run[i + 96] << 6);
    }
  }
  return block;
}

/// As ggml's quantizer does it: the fourth level, 2 * d, is never used.
BlockQ2 encode_q2_0_block(const float* from) {
  uint8_t q[64];
  BlockQ2 block{};
  block.d = float_to_f16(quantize(from, 64, q));
  for (int i = 0; i < 16; ++i) {
    const uint8_t* run = q + i * 4;
    block.q[i] = static_cast<uint8_t>(run[0] | run[1] << 2 | run[2] << 4 | run[3] << 6);
  }
  return block;
}

}  // namespace

void encode_tq1_0(const float* from, std::byte* to, int64_t count) {
  encode_blocks(from, to, count, encode_tq1_0_block);
}
void encode_tq2_0(const float* from, std::byte* to, int64_t count) {
  encode_blocks(from, to, count, encode_tq2_0_block);
}
void encode_q2_0(const float* from, std::byte* to, int64_t count) { encode_blocks(from, to, count, encode_q2_0_block); }

}  // namespace pare
