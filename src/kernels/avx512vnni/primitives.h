#pragma once
#include "kernels/avx512/primitives.h"

namespace pare::kernels {
namespace {

/// vpdpbusd adds four products of unsigned weight codes and signed activation codes to an int32 lane, without
/// saturation. Codes are 128 (8) above their values: so many times the block's sum of activation codes is taken off in
/// float, exactly, since every term is an integer below 2^24: 32 * 255 * 127 + 128 * 32 * 127 < 1.6e6.
struct VnniQ8 {
  using P = Avx512;
  static constexpr int kBlockBytes = kQ8BlockBytes, kSteps = 8;
  using Acc = __m512i;
  using Weights = __m512i;
  static PARE_INLINE Acc begin(const Int8Block& x) { return _mm512_set1_epi32(x.minus_128_sum); }
  static PARE_INLINE Weights load(const std::byte* codes, int step) { return load_codes(codes + 64 * step); }
  static PARE_INLINE void step(Acc& acc, const Weights& w, const int8_t* codes, int step) {
    acc = _mm512_dpbusd_epi32(acc, w, broadcast4(codes + 4 * step));
  }
  static PARE_INLINE P::V finish(const Acc& acc) { return _mm512_cvtepi32_ps(acc); }
};

struct VnniQ4 {
  using P = Avx512;
  static constexpr int kBlockBytes = kQ4BlockBytes, kSteps = 4;
  using Acc = __m512i;
  using Weights = NibblePair;
  static PARE_INLINE Acc begin(const Int8Block& x) { return _mm512_set1_epi32(x.minus_8_sum); }
  static PARE_INLINE Weights load(const std::byte* codes, int step) { return load_nibbles(codes, step); }
  static PARE_INLINE void step(Acc& acc, const Weights& w, const int8_t* codes, int step) {
    acc = _mm512_dpbusd_epi32(acc, w.first, broadcast4(codes + 4 * step));
    acc = _mm512_dpbusd_epi32(acc, w.second, broadcast4(codes + 16 + 4 * step));
  }
  static PARE_INLINE P::V finish(const Acc& acc) { return _mm512_cvtepi32_ps(acc); }
};

}  // namespace
}  // namespace pare::kernels
