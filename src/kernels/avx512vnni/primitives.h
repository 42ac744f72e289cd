#pragma once
#include "kernels/avx512/primitives.h"

namespace pare::kernels {
namespace {

/// vpdpbusd adds four products of unsigned weight codes and signed activation codes to an int32 lane, without
/// saturation.
struct Avx512VnniInt8 : Avx512Codes<false> {
  /// Tiles of ternary products: 16-row groups and activation rows; from how many of these a panel pays, and its
  /// columns.
  static constexpr int kTernaryGroups = 4, kTernaryRowGroups = 8, kTernaryRowSums = 8, kTernaryInputs = 6;
  static constexpr int64_t kTernaryPanelInputs = 8, kTernaryPanelColumns = 576;
  template <bool kFull, int kLargest, int kSteps>
  struct Sum {
    __m512i all;
    PARE_INLINE void clear() { all = _mm512_setzero_si512(); }
    PARE_INLINE void restore(const int32_t* p) { all = _mm512_loadu_si512(p); }
    PARE_INLINE void save(int32_t* p) const { _mm512_storeu_si512(p, all); }
    template <int kShift>
    PARE_INLINE void begin(const int32_t& start) {
      all = _mm512_slli_epi32(_mm512_set1_epi32(start), kShift);
    }
    template <int kStep>
    PARE_INLINE void add(const Bytes& w, const int8_t* codes) {
      all = _mm512_dpbusd_epi32(all, w, broadcast4(codes));
    }
    template <int kShift>
    PARE_INLINE void merge(const Sum& other) {
      all = _mm512_add_epi32(all, _mm512_srai_epi32(other.all, kShift));
    }
    PARE_INLINE P::V floats() const { return _mm512_cvtepi32_ps(all); }
  };
};

}  // namespace
}  // namespace pare::kernels
