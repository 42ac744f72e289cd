#pragma once
#include "kernels/avx512/primitives.h"

namespace pare::kernels {
namespace {

/// vpdpbusd adds four products of unsigned weight codes and signed activation codes to an int32 lane, without
/// saturation.
struct Avx512VnniInt8 : Avx512Codes<false> {
  template <bool kFull, int kLargest, int kSteps>
  struct Sum {
    __m512i all;
    PARE_INLINE void clear() { all = _mm512_setzero_si512(); }
    template <int kShift>
    PARE_INLINE void begin(const int32_t& start) {
      all = _mm512_slli_epi32(_mm512_set1_epi32(start), kShift);
    }
    template <int kStep>
    PARE_INLINE void add(const Bytes& w, const int8_t* codes) {
      all = _mm512_dpbusd_epi32(all, w, broadcast4(codes));
    }
    PARE_INLINE P::V floats() const { return _mm512_cvtepi32_ps(all); }
  };
};

}  // namespace
}  // namespace pare::kernels
