#include <cstring>

#include "base/half.h"
#include "tensor/blocks.h"
#include "tensor/codecs.h"

namespace pare {
namespace {

// Blocks of 32 values: a scale d (f16), then 16 bytes; byte i holds value i in its low and value i + 16 in its high
// four bits, each 0 to 15; value = d * (q - 8).
constexpr int kValues = 32;
constexpr int kBytes = 18;

void encode_block(const float* __restrict from, std::byte* __restrict to) {
  // The value of largest magnitude, the first if several, becomes exactly -8 * d: four bits reach to -8 but only to 7.
  const float d = furthest_from_zero(from, kValues) / -8.0f;
  const float inverse = reciprocal(d);
  uint8_t q[kValues];
  for (int i = 0; i < kValues; ++i) q[i] = static_cast<uint8_t>(cut(from[i] * inverse + 8.5f, 15));
  uint8_t packed[kValues / 2];
  for (int i = 0; i < kValues / 2; ++i) packed[i] = static_cast<uint8_t>(q[i] | q[i + kValues / 2] << 4);
  const uint16_t stored = float_to_f16(d);
  std::memcpy(to, &stored, sizeof stored);
  std::memcpy(to + sizeof stored, packed, sizeof packed);
}

}  // namespace

void encode_q4_0(const float* from, std::byte* to, int64_t count) {
  for (int64_t block = 0; block < count / kValues; ++block) encode_block(from + block * kValues, to + block * kBytes);
}

}  // namespace pare
