#include "base/half.h"
#include "tensor/blocks.h"
#include "tensor/codecs.h"
#include "tensor/fit_min.h"

namespace pare {
namespace {

// 16 groups of 16 values: value = d * scale * q - dmin * min. scales[g] holds the scale of group g in its low and the
// min in its high four bits. Each 32 bytes of q hold 128 values: value i in bits 2 * (i / 32) of byte i % 32.
struct Block {
  static constexpr int kValues = kSuperBlock;
  uint8_t scales[16];
  uint8_t q[64];
  uint16_t d, dmin;  // f16
};
static_assert(sizeof(Block) == 84);

// More tries lower the error of Gaussian rows by less than 1 percent.
constexpr Search kSearch{5, 0.2f, 1};

Block encode_block(const float* from) {
  ScaledGroupsWithMin<16, 16> groups;
  fit_scaled_groups_with_min<3, 15>(from, kSearch, groups);
  Block block{};
  block.d = groups.d;
  block.dmin = groups.dmin;
  for (int g = 0; g < 16; ++g) {
    block.scales[g] = static_cast<uint8_t>(static_cast<int>(groups.scale[g]) | static_cast<int>(groups.min[g]) << 4);
  }
  uint8_t q[kSuperBlock];
  for (int i = 0; i < kSuperBlock; ++i) q[i] = static_cast<uint8_t>(groups.q[i]);
  for (int half = 0; half < 2; ++half) {
    const uint8_t* run = q + half * 128;
    for (int i = 0; i < 32; ++i) {
      block.q[half * 32 + i] = static_cast<uint8_t>(run[i] | run[i + 32] << 2 | run[i + 64] << 4 | run[i + 96] << 6);
    }
  }
  return block;
}

}  // namespace

void encode_q2_k(const float* from, std::byte* to, int64_t count) { encode_blocks(from, to, count, encode_block); }

}  // namespace pare
