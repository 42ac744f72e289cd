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

void decode_tq1_0_block(const BlockTq1& block, float* __restrict to) {
  const float d = f16_to_float(block.d);
  const uint8_t* from = block.q;
  for (const Run run : kRuns) {
    uint8_t power = 1;
    for (int digit = 0; digit < run.digits; ++digit, power = static_cast<uint8_t>(power * 3), to += run.bytes) {
      for (int i = 0; i < run.bytes; ++i) {
        const int fraction = from[i] * power & 255;
        to[i] = d * static_cast<float>((fraction * 3 >> 8) - 1);
      }
    }
    from += run.bytes;
  }
}

void decode_tq2_0_block(const BlockTq2& block, float* __restrict to) {
  const float d = f16_to_float(block.d);
  for (int run = 0; run < 8; ++run) {
    for (int i = 0; i < 32; ++i) {
      to[run * 32 + i] = d * static_cast<float>((block.q[run / 4 * 32 + i] >> (run % 4 * 2) & 3) - 1);
    }
  }
}

void decode_q2_0_block(const BlockQ2& block, float* __restrict to) {
  const float d = f16_to_float(block.d);
  for (int i = 0; i < 64; ++i) to[i] = d * static_cast<float>((block.q[i / 4] >> (i % 4 * 2) & 3) - 1);
}

}  // namespace

void decode_tq1_0(const std::byte* from, float* to, int64_t count) {
  decode_blocks(from, to, count, decode_tq1_0_block);
}
void decode_tq2_0(const std::byte* from, float* to, int64_t count) {
  decode_blocks(from, to, count, decode_tq2_0_block);
}
void decode_q2_0(const std::byte* from, float* to, int64_t count) { decode_blocks(from, to, count, decode_q2_0_block); }

}  // namespace pare
