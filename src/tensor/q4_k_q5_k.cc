#include "base/half.h"
#include "tensor/blocks.h"
#include "tensor/codecs.h"
#include "tensor/fit_min.h"

namespace pare {
namespace {

// 8 groups of 32 values: value = d * scale * q - dmin * min, six bits each for scale and min, four bits (Q4_K) or five
// (Q5_K) for q. Each 32 bytes of `low` hold the low four bits of two groups, the first in the low halves. Bit g of
// high[i] is the fifth bit of value i of group g.
struct BlockQ4K {
  static constexpr int kValues = kSuperBlock;
  uint16_t d, dmin;  // f16
  uint8_t scales[12];
  uint8_t low[128];
};
static_assert(sizeof(BlockQ4K) == 144);

struct BlockQ5K {
  static constexpr int kValues = kSuperBlock;
  uint16_t d, dmin;  // f16
  uint8_t scales[12];
  uint8_t high[32];
  uint8_t low[128];
};
static_assert(sizeof(BlockQ5K) == 176);

struct ScaleAndMin {
  int scale, min;  // 0 to 63
};

/// Of groups 0 to 3, scales are the low six bits of bytes 0 to 3 and mins those of bytes 4 to 7. Of groups 4 to 7, the
/// low four bits are the halves of bytes 8 to 11, and the high two bits lie above those of the first groups.
void pack(ScaleAndMin packed, int group, uint8_t* scales) {
  if (group < 4) {
    scales[group] = static_cast<uint8_t>(packed.scale);
    scales[group + 4] = static_cast<uint8_t>(packed.min);
  } else {
    scales[group + 4] = static_cast<uint8_t>((packed.scale & 15) | (packed.min & 15) << 4);
    scales[group - 4] = static_cast<uint8_t>(scales[group - 4] | packed.scale >> 4 << 6);
    scales[group] = static_cast<uint8_t>(scales[group] | packed.min >> 4 << 6);
  }
}

// More tries lower the error of Gaussian rows by less than 1 percent.
constexpr Search kSearch{5, 0.3f, 1};

template <class Block, int kHigh>
Block encode_block(const float* from) {
  ScaledGroupsWithMin<8, 32> groups;
  fit_scaled_groups_with_min<kHigh, 63>(from, kSearch, groups);
  Block block{};
  block.d = groups.d;
  block.dmin = groups.dmin;
  for (int g = 0; g < 8; ++g) {
    pack({static_cast<int>(groups.scale[g]), static_cast<int>(groups.min[g])}, g, block.scales);
  }
  uint8_t q[kSuperBlock];
  for (int i = 0; i < kSuperBlock; ++i) q[i] = static_cast<uint8_t>(groups.q[i]);
  for (int pair = 0; pair < 4; ++pair) {
    const uint8_t* run = q + pair * 64;
    for (int i = 0; i < 32; ++i) {
      block.low[pair * 32 + i] = static_cast<uint8_t>((run[i] & 15) | (run[i + 32] & 15) << 4);
      if constexpr (requires { block.high; }) {
        block.high[i] =
            static_cast<uint8_t>(block.high[i] | run[i] >> 4 << (2 * pair) | run[i + 32] >> 4 << (2 * pair + 1));
      }
    }
  }
  return block;
}

}  // namespace

void encode_q4_k(const float* from, std::byte* to, int64_t count) {
  encode_blocks(from, to, count, encode_block<BlockQ4K, 15>);
}
void encode_q5_k(const float* from, std::byte* to, int64_t count) {
  encode_blocks(from, to, count, encode_block<BlockQ5K, 31>);
}

}  // namespace pare
