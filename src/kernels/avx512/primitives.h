#pragma once
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/packing.h"

// Primitives of 16 lanes in one AVX-512 register (F, BW, DQ, VL); see generic/scalar.h for what each means.

#define PARE_INLINE __attribute__((always_inline)) inline

namespace pare::kernels {
namespace {

struct Avx512 {
  using V = __m512;

  // 32 registers: 24 accumulators leave room for four vectors of weights and one of activations.
  static constexpr int kTileRows = 4, kTileInputs = 6, kTileRowsOfOne = 8;
  static constexpr int kBlockGroups = 2, kBlockRowGroups = 4, kBlockInputs = 6;
  static constexpr int kAttendVectors = 24, kAttendQueries = 12;
  static constexpr int64_t kPanelInputs = 24, kPanelRows = 64, kPanelColumns = 1024, kPanelInputRows = 128;
  static constexpr int64_t kBlockPanelInputs = 16, kBlockPanelColumns = 2048, kBlockPanelInputRows = 192;

  static PARE_INLINE V set1(float x) { return _mm512_set1_ps(x); }
  static PARE_INLINE V zero() { return _mm512_setzero_ps(); }
  static PARE_INLINE V load(const float* p) { return _mm512_loadu_ps(p); }
  static PARE_INLINE void store(float* p, V v) { _mm512_storeu_ps(p, v); }
  static PARE_INLINE __m256i half_vector(const std::byte* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static PARE_INLINE V load_f16(const std::byte* p) { return _mm512_cvtph_ps(half_vector(p)); }
  static PARE_INLINE void store_f16(std::byte* p, V v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  static PARE_INLINE V load_bf16(const std::byte* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half_vector(p)), 16));
  }
  static PARE_INLINE __m128i bytes(const std::byte* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
  static PARE_INLINE V load_int8(const std::byte* p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes(p))); }
  static PARE_INLINE V load_low_nibbles(const std::byte* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_and_si128(bytes(p), _mm_set1_epi8(15))));
  }
  static PARE_INLINE V load_high_nibbles(const std::byte* p) {
    return _mm512_cvtepi32_ps(_mm512_srli_epi32(_mm512_cvtepu8_epi32(bytes(p)), 4));
  }
  static PARE_INLINE V add(V a, V b) { return _mm512_add_ps(a, b); }
  static PARE_INLINE V sub(V a, V b) { return _mm512_sub_ps(a, b); }
  static PARE_INLINE V mul(V a, V b) { return _mm512_mul_ps(a, b); }
  static PARE_INLINE V div(V a, V b) { return _mm512_div_ps(a, b); }
  static PARE_INLINE V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
  static PARE_INLINE V magnitude(V v) { return _mm512_abs_ps(v); }
  static PARE_INLINE V max(V a, V b) { return _mm512_max_ps(a, b); }
  static PARE_INLINE V min(V a, V b) { return _mm512_min_ps(a, b); }
  static PARE_INLINE V keep_first(V v, int64_t n, V other) {
    const uint32_t bits = n >= 16 ? 0xffffu : n <= 0 ? 0u : (1u << n) - 1;
    return _mm512_mask_mov_ps(other, static_cast<__mmask16>(bits), v);
  }
  static PARE_INLINE V scale_exponent(V v, V t) {
    return _mm512_scalef_ps(v, _mm512_sub_ps(t, _mm512_set1_ps(0x1.8p23f)));  // rounds once, too
  }
  static PARE_INLINE uint32_t not_below(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_NLT_UQ); }
  static PARE_INLINE V where_below(V v, V a, V b) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), v);
  }
  static PARE_INLINE __m256 upper(V v) { return _mm512_extractf32x8_ps(v, 1); }
  static PARE_INLINE float fold_add(V v) {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v), upper(v));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
  static PARE_INLINE float fold_max(V v) {
    const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(v), upper(v));
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
  }
  /// Folds of four vectors at once: each step adds the halves of two vectors side by side.
  static PARE_INLINE void fold_add4(V a, V b, V c, V d, float* to) {
    const V ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    const V cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
    // 128-bit quarters: a, a, b, b; the evens and odds of both give a, b, c, d of 4 lanes each.
    const V abcd = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    const V two = _mm512_add_ps(abcd, _mm512_permute_ps(abcd, 0x4e));
    const V one = _mm512_add_ps(two, _mm512_movehdup_ps(two));
    const __m512i firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    _mm_storeu_ps(to, _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, one)));
  }
};

PARE_INLINE __m512i broadcast4(const int8_t* x) {
  int32_t four;
  __builtin_memcpy(&four, x, 4);
  return _mm512_set1_epi32(four);
}

/// Codes of 4 columns of 16 rows in a register.
template <bool kSignedCodes>
struct Avx512Codes {
  using P = Avx512;
  using Bytes = __m512i;
  static constexpr bool kSigned = kSignedCodes;
  static PARE_INLINE Bytes load(const std::byte* p) { return _mm512_loadu_si512(p); }
  static PARE_INLINE Bytes keep(Bytes v) {
    asm("" : "+v"(v));  // or each use would load it again
    return v;
  }
  static PARE_INLINE void store(std::byte* p, Bytes v) { _mm512_storeu_si512(p, v); }
  template <int kShift, int kMask>
  static PARE_INLINE Bytes field(Bytes v) {
    if constexpr (kShift > 0) v = _mm512_srli_epi16(v, kShift);
    if constexpr (kShift < 0) v = _mm512_slli_epi16(v, -kShift);
    return _mm512_and_si512(v, _mm512_set1_epi8(static_cast<char>(kMask)));
  }
  template <int kShift, int kMask>
  static PARE_INLINE Bytes with_field(Bytes code, Bytes v) {
    if constexpr (kShift > 0) v = _mm512_srli_epi16(v, kShift);
    if constexpr (kShift < 0) v = _mm512_slli_epi16(v, -kShift);
    return _mm512_ternarylogic_epi64(v, _mm512_set1_epi8(static_cast<char>(kMask)), code, 0xea);  // v & mask | code
  }
  static PARE_INLINE Bytes full(Bytes v) { return kSigned ? _mm512_xor_si512(v, _mm512_set1_epi8(-128)) : v; }
  static PARE_INLINE Bytes table(Bytes v) {
    const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kIq4Values));
    return _mm512_shuffle_epi8(full(_mm512_xor_si512(_mm512_broadcast_i32x4(values), _mm512_set1_epi8(-128))), v);
  }
};

/// vpmaddubsw adds two products of unsigned and signed bytes in int16, which holds kRoom of them for small codes. Full
/// codes: |w| times x with w's sign, at most 2 * 128 * 127 = 32512. There is no vpsignb: x is negated under a mask
/// (where w is 0 its magnitude is, too).
struct Avx512Int8 : Avx512Codes<true> {
  /// Tiles of ternary products: 16-row groups and activation rows; from how many of these a panel pays, and its
  /// columns.
  static constexpr int kTernaryGroups = 2, kTernaryRowGroups = 4, kTernaryRowSums = 1, kTernaryInputs = 6;
  static constexpr int64_t kTernaryPanelInputs = 8, kTernaryPanelColumns = 576;
  template <bool kFull, int kLargest, int kSteps>
  struct Sum {
    static constexpr int kRoom = kFull ? 1 : 32767 / (2 * 127 * kLargest);
    __m512i narrow, wide;  // int16, int32
    PARE_INLINE void clear() { wide = _mm512_setzero_si512(); }
    PARE_INLINE void restore(const int32_t* p) { wide = _mm512_loadu_si512(p); }
    PARE_INLINE void save(int32_t* p) const { _mm512_storeu_si512(p, wide); }
    template <int kShift>
    PARE_INLINE void begin(const int32_t& start) {
      wide = _mm512_slli_epi32(_mm512_set1_epi32(start), kShift);
    }
    template <int kStep>
    PARE_INLINE void add(const Bytes& w, const int8_t* codes) {
      const __m512i x = broadcast4(codes);
      __m512i pairs;
      if constexpr (kFull) {
        const __m512i signed_x = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(w), _mm512_setzero_si512(), x);
        pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(w), signed_x);
      } else {
        pairs = _mm512_maddubs_epi16(w, x);
      }
      narrow = kStep % kRoom == 0 ? pairs : _mm512_add_epi16(narrow, pairs);
      if constexpr (kStep % kRoom == kRoom - 1 || kStep == kSteps - 1)
        wide = _mm512_add_epi32(wide, _mm512_madd_epi16(narrow, _mm512_set1_epi16(1)));
    }
    PARE_INLINE P::V floats() const { return _mm512_cvtepi32_ps(wide); }
  };
};

}  // namespace
}  // namespace pare::kernels
