#include <bit>
#include <cstring>

#include "base/half.h"
#include "tensor/blocks.h"
#include "tensor/codecs.h"

namespace pare {
namespace {

// Blocks of 32 values: a scale d (f16), then 32 signed bytes q; value = d * q.
constexpr int kValues = 32;
constexpr int kBytes = 34;

void encode_block(const float* __restrict from, std::byte* __restrict to) {
  const float d = std::bit_cast<float>(largest_magnitude(from, kValues)) / 127.0f;
  const float inverse = reciprocal(d);
  int8_t q[kValues];
  for (int i = 0; i < kValues; ++i) q[i] = static_cast<int8_t>(round_half_away(from[i] * inverse));
  const uint16_t scale = float_to_f16(d);
  std::memcpy(to, &scale, sizeof scale);
  std::memcpy(to + sizeof scale, q, sizeof q);
}

}  // namespace

void encode_q8_0(const float* from, std::byte* to, int64_t count) {
  for (int64_t block = 0; block < count / kValues; ++block) encode_block(from + block * kValues, to + block * kBytes);
}

}  // namespace pare
