#include <algorithm>
#include <array>

#include "base/half.h"
#include "tensor/block_parts.h"
#include "tensor/blocks.h"
#include "tensor/codecs.h"
#include "tensor/fit.h"

namespace pare {
namespace {

// IQ4_NL: value = d * kIq4Values[q], byte i holding values i and i + 16.
struct BlockNl {
  uint16_t d;  // f16
  uint8_t q[16];
};
static_assert(sizeof(BlockNl) == 18);

// IQ4_XS: 8 groups of 32 values: value = d * (scale - 32) * kIq4Values[q], six bits a scale. The low four bits of the
// scale of group g are half g % 2 of scales_low[g / 2], the high two are bits 2 * g of scales_high. Each 16 bytes of q
// hold a group as IQ4_NL does.
struct BlockXs {
  static constexpr int kValues = kSuperBlock;
  uint16_t d;  // f16
  uint16_t scales_high;
  uint8_t scales_low[4];
  uint8_t q[128];
};
static_assert(sizeof(BlockXs) == 136);

/// The level nearest to numbers from n / 2 to n / 2 + 1 / 2, at n + 256: two levels' middle is a whole number of
/// halves.
constexpr auto kNearest = [] {
  std::array<float, 512> nearest{};
  size_t level = 0;
  for (int n = -256; n < 256; ++n) {
    while (level < 15 && n >= kIq4Values[level] + kIq4Values[level + 1]) ++level;
    nearest[static_cast<size_t>(n + 256)] = kIq4Values[level];
  }
  return nearest;
}();

/// The levels as a grid to fit scales to.
struct Levels {
  static constexpr float kEdge = kIq4Values[0];
  /// The nearest level; NaN gives the first.
  static Lanes nearest(Lanes value) {
    using Indices [[gnu::vector_size(16)]] = int32_t;
    const Lanes halves = smaller(larger(value, all(-127)), all(127)) * 2.0f + 256.0f;
    const auto at = __builtin_convertvector(halves, Indices);
    return Lanes{kNearest[at[0]], kNearest[at[1]], kNearest[at[2]], kNearest[at[3]]};
  }
};

/// The four bits of a level.
uint8_t code_of(float level) {
  static constexpr auto kCodes = [] {
    std::array<uint8_t, 256> codes{};
    for (int i = 0; i < 16; ++i) codes[static_cast<size_t>(kIq4Values[i] + 128)] = static_cast<uint8_t>(i);
    return codes;
  }();
  return kCodes[static_cast<size_t>(static_cast<int>(level) + 128)];
}

void encode_32(const float* levels, uint8_t* q) {
  for (int i = 0; i < 16; ++i) {
    q[i] = static_cast<uint8_t>(code_of(levels[i]) | code_of(levels[i + 16]) << 4);
  }
}

// More tries lower the error of Gaussian rows by less than 1 percent.
constexpr Search kSearch{4, 5.0f, 1};

/// Four blocks at once. In a block too small for any scale d is 0; where a value is NaN, infinite or far too large, d
/// is NaN.
void encode_nl_blocks(const float* from, BlockNl* to) {
  Lanes unit;
  for (int lane = 0; lane < kLanes; ++lane) unit[lane] = unit_of(from + lane * 32, 32);
  Lanes x[32];
  load_groups(from, divided(all(1.0f), unit), x);
  const Lanes scale = fit_scales<Levels>(x, kSearch);
  Lanes d;
  for (int lane = 0; lane < kLanes; ++lane) {
    to[lane].d = float_to_f16(unit[lane] > 0 ? scale[lane] * unit[lane] : unit[lane]);
    d[lane] = f16_to_float(to[lane].d);
  }
  const Lanes inverse = divided(unit, d);
  float levels[kLanes][32];
  for (int i = 0; i < 32; ++i) {
    const Lanes level = Levels::nearest(x[i] * inverse);
    for (int lane = 0; lane < kLanes; ++lane) levels[lane][i] = level[lane];
  }
  for (int lane = 0; lane < kLanes; ++lane) encode_32(levels[lane], to[lane].q);
}

BlockXs encode_xs_block(const float* from) {
  ScaledGroups<8, 32> groups;
  fit_scaled_groups<Levels, Steps<-32, 31>>(from, kSearch, groups);
  BlockXs block{};
  block.d = groups.d;
  for (int g = 0; g < 8; ++g) {
    const int scale = static_cast<int>(groups.multiple[g]) + 32;
    block.scales_low[g / 2] = static_cast<uint8_t>(block.scales_low[g / 2] | (scale & 15) << (g % 2 * 4));
    block.scales_high = static_cast<uint16_t>(block.scales_high | scale >> 4 << (g * 2));
    encode_32(groups.q + g * 32, block.q + g * 16);
  }
  return block;
}

}  // namespace

void encode_iq4_nl(const float* from, std::byte* to, int64_t count) {
  while (count > 0) {
    const int64_t values = std::min<int64_t>(count, kLanes * 32);
    float padded[kLanes * 32]{};
    std::copy(from, from + values, padded);
    BlockNl blocks[kLanes];
    encode_nl_blocks(padded, blocks);
    const auto bytes = values / 32 * static_cast<int64_t>(sizeof(BlockNl));
    std::memcpy(to, blocks, static_cast<size_t>(bytes));
    from += values, to += bytes, count -= values;
  }
}
void encode_iq4_xs(const float* from, std::byte* to, int64_t count) { encode_blocks(from, to, count, encode_xs_block); }

}  // namespace pare
