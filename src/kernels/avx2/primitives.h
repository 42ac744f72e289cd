#pragma once
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/packing.h"

// Primitives of 16 lanes in two AVX registers; see generic/scalar.h for what each means.

#define PARE_INLINE __attribute__((always_inline)) inline

namespace pare::kernels {
namespace {

struct Avx2 {
  struct V {
    __m256 low, high;
  };

  // 16 registers: 12 accumulators leave room for two vectors of weights and one of activations.
  static constexpr int kTileRows = 2, kTileInputs = 3, kTileRowsOfOne = 4;
  static constexpr int kBlockGroups = 1, kBlockRowGroups = 1, kBlockInputs = 4;
  static constexpr int kAttendVectors = 6, kAttendQueries = 6;
  static constexpr int64_t kPanelInputs = 12, kPanelRows = 32, kPanelColumns = 1024, kPanelInputRows = 96;
  static constexpr int64_t kBlockPanelInputs = 16, kBlockPanelColumns = 1024, kBlockPanelInputRows = 96;

  static PARE_INLINE V set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static PARE_INLINE V zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static PARE_INLINE V load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static PARE_INLINE void store(float* p, V v) { _mm256_storeu_ps(p, v.low), _mm256_storeu_ps(p + 8, v.high); }
  static PARE_INLINE __m128i half_vector(const std::byte* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  }
  static PARE_INLINE V load_f16(const std::byte* p) {
    return {_mm256_cvtph_ps(half_vector(p)), _mm256_cvtph_ps(half_vector(p + 16))};
  }
  static PARE_INLINE void store_f16(std::byte* p, V v) {
    auto* to = reinterpret_cast<__m128i*>(p);
    _mm_storeu_si128(to, _mm256_cvtps_ph(v.low, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128(to + 1, _mm256_cvtps_ph(v.high, _MM_FROUND_TO_NEAREST_INT));
  }
  static PARE_INLINE __m256 from_bf16(__m128i halves) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
  }
  static PARE_INLINE V load_bf16(const std::byte* p) {
    return {from_bf16(half_vector(p)), from_bf16(half_vector(p + 16))};
  }
  static PARE_INLINE __m128i bytes(const std::byte* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
  static PARE_INLINE V from_int8(__m128i v) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(v)),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(v, 8)))};
  }
  static PARE_INLINE V load_int8(const std::byte* p) { return from_int8(bytes(p)); }
  static PARE_INLINE V load_low_nibbles(const std::byte* p) {
    return from_int8(_mm_and_si128(bytes(p), _mm_set1_epi8(15)));
  }
  static PARE_INLINE V load_high_nibbles(const std::byte* p) {
    return from_int8(_mm_and_si128(_mm_srli_epi16(bytes(p), 4), _mm_set1_epi8(15)));
  }
  static PARE_INLINE V add(V a, V b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
  static PARE_INLINE V sub(V a, V b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
  static PARE_INLINE V mul(V a, V b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
  static PARE_INLINE V div(V a, V b) { return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)}; }
  static PARE_INLINE V fma(V a, V b, V c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
  }
  static PARE_INLINE V magnitude(V v) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, v.low), _mm256_andnot_ps(sign, v.high)};
  }
  static PARE_INLINE V max(V a, V b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
  static PARE_INLINE V min(V a, V b) { return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)}; }
  static PARE_INLINE V keep_first(V v, int64_t n, V other) {
    const __m256i count = _mm256_set1_epi32(static_cast<int>(n > 16 ? 16 : n));
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i low = _mm256_cmpgt_epi32(count, lane);
    const __m256i high = _mm256_cmpgt_epi32(count, _mm256_add_epi32(lane, _mm256_set1_epi32(8)));
    return {_mm256_blendv_ps(other.low, v.low, _mm256_castsi256_ps(low)),
            _mm256_blendv_ps(other.high, v.high, _mm256_castsi256_ps(high))};
  }
  static PARE_INLINE __m256 scale_exponent(__m256 v, __m256 t) {
    const __m256i n = _mm256_sub_epi32(_mm256_castps_si256(t), _mm256_set1_epi32(0x4b400000));
    const __m256i half = _mm256_srai_epi32(n, 1), bias = _mm256_set1_epi32(127);
    const __m256i first = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    const __m256i second = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(n, half), bias), 23);
    return _mm256_mul_ps(_mm256_mul_ps(v, _mm256_castsi256_ps(first)), _mm256_castsi256_ps(second));
  }
  static PARE_INLINE V scale_exponent(V v, V t) {
    return {scale_exponent(v.low, t.low), scale_exponent(v.high, t.high)};
  }
  static PARE_INLINE uint32_t not_below(V a, V b) {
    const int low = _mm256_movemask_ps(_mm256_cmp_ps(a.low, b.low, _CMP_NLT_UQ));
    const int high = _mm256_movemask_ps(_mm256_cmp_ps(a.high, b.high, _CMP_NLT_UQ));
    return static_cast<uint32_t>(low | high << 8);
  }
  static PARE_INLINE V where_below(V v, V a, V b) {
    return {_mm256_and_ps(_mm256_cmp_ps(a.low, b.low, _CMP_LT_OQ), v.low),
            _mm256_and_ps(_mm256_cmp_ps(a.high, b.high, _CMP_LT_OQ), v.high)};
  }
  static PARE_INLINE float fold_add(V v) {
    const __m256 eight = _mm256_add_ps(v.low, v.high);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
  static PARE_INLINE float fold_max(V v) {
    const __m256 eight = _mm256_max_ps(v.low, v.high);
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
  }
  /// Folds of four vectors at once: each step adds the halves of two vectors side by side.
  static PARE_INLINE void fold_add4(V a, V b, V c, V d, float* to) {
    const __m256 a8 = _mm256_add_ps(a.low, a.high), b8 = _mm256_add_ps(b.low, b.high);
    const __m256 c8 = _mm256_add_ps(c.low, c.high), d8 = _mm256_add_ps(d.low, d.high);
    const __m256 ab = _mm256_add_ps(_mm256_permute2f128_ps(a8, b8, 0x20), _mm256_permute2f128_ps(a8, b8, 0x31));
    const __m256 cd = _mm256_add_ps(_mm256_permute2f128_ps(c8, d8, 0x20), _mm256_permute2f128_ps(c8, d8, 0x31));
    // 128-bit halves: (a, b) and (c, d), 4 lanes each; then 2 lanes of a, c | b, d.
    const __m256 acbd = _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
    const __m256 one = _mm256_add_ps(acbd, _mm256_movehdup_ps(acbd));  // a . c . | b . d .
    const __m128 ac = _mm256_castps256_ps128(one), bd = _mm256_extractf128_ps(one, 1);
    const __m128 abcd = _mm_shuffle_ps(ac, bd, 0x88);  // a c b d
    _mm_storeu_ps(to, _mm_shuffle_ps(abcd, abcd, 0xd8));
  }
};

PARE_INLINE __m256i broadcast4(const int8_t* x) {
  int32_t four;
  __builtin_memcpy(&four, x, 4);
  return _mm256_set1_epi32(four);
}

PARE_INLINE __m256i load_sums(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
PARE_INLINE void save_sums(int32_t* p, __m256i v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }

/// Codes of 4 columns of 16 rows in two registers.
template <bool kSignedCodes>
struct Avx2Codes {
  using P = Avx2;
  struct Bytes {
    __m256i low, high;
  };
  static constexpr bool kSigned = kSignedCodes;
  static PARE_INLINE Bytes load(const std::byte* p) {
    const auto* from = reinterpret_cast<const __m256i*>(p);
    return {_mm256_loadu_si256(from), _mm256_loadu_si256(from + 1)};
  }
  static PARE_INLINE Bytes keep(const Bytes& v) { return v; }
  static PARE_INLINE void store(std::byte* p, const Bytes& v) {
    auto* to = reinterpret_cast<__m256i*>(p);
    _mm256_storeu_si256(to, v.low);
    _mm256_storeu_si256(to + 1, v.high);
  }
  template <int kShift, int kMask>
  static PARE_INLINE __m256i field(__m256i v) {
    if constexpr (kShift > 0) v = _mm256_srli_epi16(v, kShift);
    if constexpr (kShift < 0) v = _mm256_slli_epi16(v, -kShift);
    return _mm256_and_si256(v, _mm256_set1_epi8(static_cast<char>(kMask)));
  }
  template <int kShift, int kMask>
  static PARE_INLINE Bytes field(const Bytes& v) {
    return {field<kShift, kMask>(v.low), field<kShift, kMask>(v.high)};
  }
  template <int kShift, int kMask>
  static PARE_INLINE Bytes with_field(const Bytes& code, const Bytes& v) {
    const Bytes more = field<kShift, kMask>(v);
    return {_mm256_or_si256(code.low, more.low), _mm256_or_si256(code.high, more.high)};
  }
  static PARE_INLINE __m256i full(__m256i v) { return kSigned ? _mm256_xor_si256(v, _mm256_set1_epi8(-128)) : v; }
  static PARE_INLINE Bytes full(const Bytes& v) { return {full(v.low), full(v.high)}; }
  static PARE_INLINE Bytes table(const Bytes& v) {
    const __m256i values = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(kIq4Values)));
    const __m256i stored = full(_mm256_xor_si256(values, _mm256_set1_epi8(-128)));
    return {_mm256_shuffle_epi8(stored, v.low), _mm256_shuffle_epi8(stored, v.high)};
  }
};

/// vpmaddubsw adds two products of unsigned and signed bytes in int16, which holds kRoom of them for small codes. Full
/// codes: |w| times x with w's sign, at most 2 * 128 * 127 = 32512.
struct Avx2Int8 : Avx2Codes<true> {
  /// Tiles of ternary products: 16-row groups and activation rows; from how many of these a panel pays, and its
  /// columns.
  static constexpr int kTernaryGroups = 1, kTernaryRowGroups = 1, kTernaryRowSums = 1, kTernaryInputs = 4;
  static constexpr int64_t kTernaryPanelInputs = 8, kTernaryPanelColumns = 384;
  template <bool kFull, int kLargest, int kSteps>
  struct Sum {
    static constexpr int kRoom = kFull ? 1 : 32767 / (2 * 127 * kLargest);
    struct Half {
      __m256i narrow, wide;  // int16, int32
      template <int kStep>
      PARE_INLINE void add(__m256i w, __m256i x) {
        const __m256i pairs =
            kFull ? _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w)) : _mm256_maddubs_epi16(w, x);
        narrow = kStep % kRoom == 0 ? pairs : _mm256_add_epi16(narrow, pairs);
        if constexpr (kStep % kRoom == kRoom - 1 || kStep == kSteps - 1)
          wide = _mm256_add_epi32(wide, _mm256_madd_epi16(narrow, _mm256_set1_epi16(1)));
      }
    } low, high;
    PARE_INLINE void clear() { low.wide = high.wide = _mm256_setzero_si256(); }
    PARE_INLINE void restore(const int32_t* p) { low.wide = load_sums(p), high.wide = load_sums(p + 8); }
    PARE_INLINE void save(int32_t* p) const { save_sums(p, low.wide), save_sums(p + 8, high.wide); }
    template <int kShift>
    PARE_INLINE void begin(const int32_t& start) {
      low.wide = high.wide = _mm256_slli_epi32(_mm256_set1_epi32(start), kShift);
    }
    template <int kStep>
    PARE_INLINE void add(const Bytes& w, const int8_t* codes) {
      const __m256i x = broadcast4(codes);
      low.template add<kStep>(w.low, x);
      high.template add<kStep>(w.high, x);
    }
    PARE_INLINE P::V floats() const { return {_mm256_cvtepi32_ps(low.wide), _mm256_cvtepi32_ps(high.wide)}; }
  };
};

/// Lookups for 32 rows by vpshufb, of a table in both halves of a register; see lut_matmul.inl.h.
struct Avx2Lookup {
  using Rows = __m256i;
  using Table = __m256i;
  static constexpr int kGroups = 2;
  static PARE_INLINE Rows load(const std::byte* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static PARE_INLINE void store(std::byte* p, Rows v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
  static PARE_INLINE Table table(const std::byte* p) { return _mm256_broadcastsi128_si256(Avx2::half_vector(p)); }
  static PARE_INLINE Rows set1(int x) { return _mm256_set1_epi8(static_cast<char>(x)); }
  static PARE_INLINE Rows low(Rows v) { return _mm256_and_si256(v, set1(15)); }
  static PARE_INLINE Rows high(Rows v) { return low(_mm256_srli_epi16(v, 4)); }
  static PARE_INLINE Rows find(Table t, Rows index) { return _mm256_shuffle_epi8(t, index); }
  static PARE_INLINE Rows add(Rows a, Rows b) { return _mm256_add_epi8(a, b); }
  static PARE_INLINE Rows twice(Rows v) { return add(v, v); }
  static PARE_INLINE Rows add_signed(Rows sum, Rows v, Rows sign) { return add(sum, _mm256_sign_epi8(v, sign)); }
  struct Sums {
    __m256i low, high;  // rows 0-7 and 16-23, 8-15 and 24-31
    PARE_INLINE void clear() { low = high = _mm256_setzero_si256(); }
    PARE_INLINE void add(Rows high_bytes, Rows low_bytes) {
      // low * 1 + high * 32 of neighbouring bytes.
      const __m256i factors = _mm256_set1_epi16(32 << 8 | 1);
      low = _mm256_add_epi16(low, _mm256_maddubs_epi16(factors, _mm256_unpacklo_epi8(low_bytes, high_bytes)));
      high = _mm256_add_epi16(high, _mm256_maddubs_epi16(factors, _mm256_unpackhi_epi8(low_bytes, high_bytes)));
    }
    static PARE_INLINE void add_eight(int32_t* totals, __m128i v) {
      save_sums(totals, _mm256_add_epi32(load_sums(totals), _mm256_cvtepi16_epi32(v)));
    }
    PARE_INLINE void add_to(int32_t* totals) const {
      add_eight(totals, _mm256_castsi256_si128(low));
      add_eight(totals + 8, _mm256_castsi256_si128(high));
      add_eight(totals + 16, _mm256_extracti128_si256(low, 1));
      add_eight(totals + 24, _mm256_extracti128_si256(high, 1));
    }
  };
};

}  // namespace
}  // namespace pare::kernels
