#pragma once
#include "kernels/avx2/primitives.h"

namespace pare::kernels {
namespace {

/// vpdpbusd in AVX registers; see avx512vnni/primitives.h.
struct AvxVnniInt8 : Avx2Codes<false> {
  /// Tiles of ternary products: 16-row groups and activation rows; from how many of these a panel pays, and its
  /// columns.
  static constexpr int kTernaryGroups = 1, kTernaryRowGroups = 1, kTernaryRowSums = 4, kTernaryInputs = 5;
  static constexpr int64_t kTernaryPanelInputs = 8, kTernaryPanelColumns = 384;
  template <bool kFull, int kLargest, int kSteps>
  struct Sum {
    __m256i low, high;
    PARE_INLINE void clear() { low = high = _mm256_setzero_si256(); }
    PARE_INLINE void restore(const int32_t* p) { low = load_sums(p), high = load_sums(p + 8); }
    PARE_INLINE void save(int32_t* p) const { save_sums(p, low), save_sums(p + 8, high); }
    template <int kShift>
    PARE_INLINE void begin(const int32_t& start) {
      low = high = _mm256_slli_epi32(_mm256_set1_epi32(start), kShift);
    }
    template <int kStep>
    PARE_INLINE void add(const Bytes& w, const int8_t* codes) {
      const __m256i x = broadcast4(codes);
      low = _mm256_dpbusd_avx_epi32(low, w.low, x);
      high = _mm256_dpbusd_avx_epi32(high, w.high, x);
    }
    template <int kShift>
    PARE_INLINE void merge(const Sum& other) {
      low = _mm256_add_epi32(low, _mm256_srai_epi32(other.low, kShift));
      high = _mm256_add_epi32(high, _mm256_srai_epi32(other.high, kShift));
    }
    PARE_INLINE P::V floats() const { return {_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high)}; }
  };
};

}  // namespace
}  // namespace pare::kernels
