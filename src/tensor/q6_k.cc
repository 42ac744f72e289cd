#include "base/half.h"
#include "tensor/blocks.h"
#include "tensor/codecs.h"
#include "tensor/fit.h"

namespace pare {
namespace {

// 16 groups of 16 values: value = d * scale * (q - 32), six bits a q. Each half of 128 values has 64 bytes of `low`,
// value i in half i / 64 of byte i % 64, and 32 bytes of `high`, value i in bits 2 * (i / 32) of byte i % 32.
struct Block {
  static constexpr int kValues = kSuperBlock;
  uint8_t low[128];
  uint8_t high[64];
  int8_t scales[16];
  uint16_t d;  // f16
};
static_assert(sizeof(Block) == 210);

void pack(const int* q, Block& block) {
  for (int half = 0; half < 2; ++half, q += 128) {
    for (int i = 0; i < 64; ++i) block.low[half * 64 + i] = static_cast<uint8_t>((q[i] & 15) | (q[i + 64] & 15) << 4);
    for (int i = 0; i < 32; ++i) {
      block.high[half * 32 + i] =
          static_cast<uint8_t>(q[i] >> 4 | q[i + 32] >> 4 << 2 | q[i + 64] >> 4 << 4 | q[i + 96] >> 4 << 6);
    }
  }
}

// More tries lower the error of Gaussian rows by less than 1 percent.
constexpr Search kSearch{4, 1.0f, 1};

Block encode_block(const float* from) {
  Block block{};
  ScaledGroups<16, 16> groups;
  fit_scaled_groups<Steps<-32, 31>, Steps<-128, 127>>(from, kSearch, groups);
  block.d = groups.d;
  int q[kSuperBlock];
  for (int g = 0; g < 16; ++g) {
    block.scales[g] = static_cast<int8_t>(groups.multiple[g]);
    for (int i = 0; i < 16; ++i) q[g * 16 + i] = static_cast<int>(groups.q[g * 16 + i]) + 32;
  }
  pack(q, block);
  return block;
}

}  // namespace

void encode_q6_k(const float* from, std::byte* to, int64_t count) { encode_blocks(from, to, count, encode_block); }

}  // namespace pare
