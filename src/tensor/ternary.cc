#include "tensor/ternary.h"

#include "base/error.h"
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

// Codes q, [kValues], to the bytes of a block.

void put_codes(const uint8_t* q, BlockTq1& block) {
  uint8_t* to = block.q;
  for (const Run run : kRuns) {
    for (int i = 0; i < run.bytes; ++i) {
      int number = 0;
      for (int digit = 0; digit < 5; ++digit) {
        number = number * 3 + (digit < run.digits ? q[digit * run.bytes + i] : 0);
      }
      to[i] = static_cast<uint8_t>((number * 256 + 242) / 243);
    }
    q += run.bytes * run.digits;
    to += run.bytes;
  }
}

void put_codes(const uint8_t* q, BlockTq2& block) {
  for (int half = 0; half < 2; ++half) {
    const uint8_t* run = q + half * 128;
    for (int i = 0; i < 32; ++i) {
      block.q[half * 32 + i] = static_cast<uint8_t>(run[i] | run[i + 32] << 2 | run[i + 64] << 4 | run[i + 96] << 6);
    }
  }
}

void put_codes(const uint8_t* q, BlockQ2& block) {
  for (int i = 0; i < 16; ++i) {
    const uint8_t* run = q + i * 4;
    block.q[i] = static_cast<uint8_t>(run[0] | run[1] << 2 | run[2] << 4 | run[3] << 6);
  }
}

/// As ggml's quantizers do it; Q2_0's fourth level, 2 * d, is never used.
template <class Block>
Block encode_block(const float* from) {
  uint8_t q[Block::kValues];
  Block block{};
  block.d = float_to_f16(quantize(from, Block::kValues, q));
  put_codes(q, block);
  return block;
}

template <class Block>
void encode_codes(const uint8_t* codes, uint16_t scale, std::byte* to, int64_t count) {
  for (int64_t k = 0; k < count; k += Block::kValues, to += sizeof(Block)) {
    Block block{};
    block.d = scale;
    put_codes(codes + k, block);
    std::memcpy(to, &block, sizeof block);
  }
}

}  // namespace

void encode_tq1_0(const float* from, std::byte* to, int64_t count) {
  encode_blocks(from, to, count, encode_block<BlockTq1>);
}
void encode_tq2_0(const float* from, std::byte* to, int64_t count) {
  encode_blocks(from, to, count, encode_block<BlockTq2>);
}
void encode_q2_0(const float* from, std::byte* to, int64_t count) {
  encode_blocks(from, to, count, encode_block<BlockQ2>);
}

void encode_ternary_codes(DType type, const uint8_t* codes, uint16_t scale, std::byte* to, int64_t count) {
  if (type == DType::kTQ1_0) return encode_codes<BlockTq1>(codes, scale, to, count);
  if (type == DType::kTQ2_0) return encode_codes<BlockTq2>(codes, scale, to, count);
  if (type == DType::kQ2_0) return encode_codes<BlockQ2>(codes, scale, to, count);
  fail("{} does not hold ternary codes", info(type).name);
}

namespace {

struct I2sForm {
  const char* name;
  int run;  // weights whose codes share no byte: four runs make a block
};
constexpr I2sForm kI2sForms[] = {{"x86", 32}, {"arm", 16}};
const I2sForm& form_of(I2sLayout layout) { return kI2sForms[static_cast<size_t>(layout)]; }

}  // namespace

const char* i2s_layout_name(I2sLayout layout) { return form_of(layout).name; }

std::optional<I2sLayout> find_i2s_layout(std::string_view name) {
  for (const I2sLayout layout : {I2sLayout::kX86, I2sLayout::kArm}) {
    if (name == form_of(layout).name) return layout;
  }
  return std::nullopt;
}

int64_t i2s_block_columns(I2sLayout layout) { return 4 * form_of(layout).run; }

void unpack_i2s(I2sLayout layout, const std::byte* from, uint8_t* codes, int64_t count) {
  const int run = form_of(layout).run;
  for (int64_t k = 0; k < count; k += 4 * run, from += run) {
    for (int quarter = 0; quarter < 4; ++quarter) {
      for (int i = 0; i < run; ++i)
        codes[k + quarter * run + i] = static_cast<uint8_t>(static_cast<uint8_t>(from[i]) >> (6 - 2 * quarter) & 3);
    }
  }
}

}  // namespace pare
