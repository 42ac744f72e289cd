#include <limits>

#include "base/half.h"
#include "tensor/blocks.h"
#include "tensor/codecs.h"

namespace pare {
namespace {

// value = d * q + min. Byte i holds the q of value i in its low and of value i + 16 in its high four bits.
struct Block {
  static constexpr int kValues = 32;
  uint16_t d, min;  // f16
  uint8_t q[16];
};
static_assert(sizeof(Block) == 20);

Block encode_block(const float* from) {
  const bool finite = largest_magnitude(from, 32) < 0x7f800000;
  const auto [min, max] = range_of(from, 32);
  const float d = (max - min) / 15.0f;
  const float inverse = reciprocal(d);
  Block block{float_to_f16(finite ? d : std::numeric_limits<float>::quiet_NaN()), float_to_f16(min), {}};
  uint8_t q[32];
  for (int i = 0; i < 32; ++i) q[i] = static_cast<uint8_t>(cut((from[i] - min) * inverse + 0.5f, 15));
  for (int i = 0; i < 16; ++i) block.q[i] = static_cast<uint8_t>(q[i] | q[i + 16] << 4);
  return block;
}

}  // namespace

void encode_q4_1(const float* from, std::byte* to, int64_t count) { encode_blocks(from, to, count, encode_block); }

}  // namespace pare
