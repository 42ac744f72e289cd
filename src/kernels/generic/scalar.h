#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/packing.h"
#include "kernels/ternary.h"

// Primitives of 16 lanes without vector instructions: the twin that every other instruction set is compared with.
//
// What a primitives struct holds (each instruction set's primitives.h has one): a vector V of 16 float lanes however
// many registers that takes, the operations below, and the tile sizes that fit its registers. Everything has internal
// linkage, so that objects compiled for an instruction set lend nothing to others.

#define PARE_INLINE __attribute__((always_inline)) inline

namespace pare::kernels {
namespace {

/// a * b + c rounded once. The product of two floats is exact in double; rounding the sum to odd keeps enough to round
/// again to float (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding
/// to odd"). Faster than libm's on machines without the instruction.
PARE_INLINE float fused_multiply_add(float a, float b, float c) {
  const double product = static_cast<double>(a) * b, addend = c;
  double sum = product + addend;
  const double part = sum - product;
  const double error = (product - (sum - part)) + (addend - part);
  uint64_t bits = __builtin_bit_cast(uint64_t, sum);
  // NaN (from an infinite sum) compares false both ways: such sums are exact or NaN already.
  const bool away = sum > 0 ? error > 0 : error < 0;
  if ((error > 0 || error < 0) && (bits & 1) == 0) bits = away ? bits + 1 : bits - 1;
  sum = __builtin_bit_cast(double, bits);
  return static_cast<float>(sum);
}

PARE_INLINE float scalar_f16(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16, magnitude = half & 0x7fffu;
  if (magnitude >= 0x7c00u) return __builtin_bit_cast(float, sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  // Exact: 2^-14 <= |value| keeps its exponent; a subnormal becomes normal.
  const float value = __builtin_bit_cast(float, (magnitude << 13)) * 0x1p112f;
  return __builtin_bit_cast(float, sign | __builtin_bit_cast(uint32_t, value));
}

/// Rounds half to even.
PARE_INLINE uint16_t scalar_to_f16(float value) {
  const auto bits = __builtin_bit_cast(uint32_t, value);
  const uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // rounds to 65536 or more
  if (magnitude < 0x38800000u) {  // a subnormal: 0.5 is 2^23 times its unit, so the addition rounds to that
    const float aligned = __builtin_bit_cast(float, magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (__builtin_bit_cast(uint32_t, aligned) - 0x3f000000u));
  }
  return static_cast<uint16_t>(sign | (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13);
}

struct Scalar {
  struct V {
    float lane[16];
  };

  // Tiles: weight rows and activation rows of float products (and weight rows of a single one), 16-row groups and
  // activation rows of block products, vectors held by attention.
  static constexpr int kTileRows = 2, kTileInputs = 2, kTileRowsOfOne = 2;
  static constexpr int kBlockGroups = 1, kBlockRowGroups = 1, kBlockInputs = 2;
  static constexpr int kAttendVectors = 4, kAttendQueries = 2;
  /// Activation rows from which converting weights to float32 panels pays, and the panels' size: rows and columns of
  /// weights, rows of activations.
  static constexpr int64_t kPanelInputs = 8, kPanelRows = 4, kPanelColumns = 256, kPanelInputRows = 8;
  static constexpr int64_t kBlockPanelInputs = 8, kBlockPanelColumns = 512, kBlockPanelInputRows = 9;

  template <class F>
  static PARE_INLINE V map(F f) {
    V out;
    for (int i = 0; i < 16; ++i) out.lane[i] = f(i);
    return out;
  }
  static PARE_INLINE V set1(float x) {
    return map([&](int) { return x; });
  }
  static PARE_INLINE V zero() { return set1(0); }
  static PARE_INLINE V load(const float* p) {
    V out;
    std::memcpy(&out, p, 64);
    return out;
  }
  static PARE_INLINE void store(float* p, const V& v) { std::memcpy(p, &v, 64); }
  static PARE_INLINE V load_f16(const std::byte* p) {
    return map([&](int i) {
      uint16_t half;
      std::memcpy(&half, p + 2 * i, 2);
      return scalar_f16(half);
    });
  }
  static PARE_INLINE void store_f16(std::byte* p, const V& v) {
    for (int i = 0; i < 16; ++i) {
      const uint16_t half = scalar_to_f16(v.lane[i]);
      std::memcpy(p + 2 * i, &half, 2);
    }
  }
  static PARE_INLINE V load_bf16(const std::byte* p) {
    return map([&](int i) {
      uint16_t half;
      std::memcpy(&half, p + 2 * i, 2);
      return __builtin_bit_cast(float, static_cast<uint32_t>(half) << 16);
    });
  }
  static PARE_INLINE V load_int8(const std::byte* p) {
    return map([&](int i) { return static_cast<float>(static_cast<int8_t>(p[i])); });
  }
  static PARE_INLINE V load_low_nibbles(const std::byte* p) {
    return map([&](int i) { return static_cast<float>(static_cast<uint8_t>(p[i]) & 15); });
  }
  static PARE_INLINE V load_high_nibbles(const std::byte* p) {
    return map([&](int i) { return static_cast<float>(static_cast<uint8_t>(p[i]) >> 4); });
  }
  static PARE_INLINE V add(const V& a, const V& b) {
    return map([&](int i) { return a.lane[i] + b.lane[i]; });
  }
  static PARE_INLINE V sub(const V& a, const V& b) {
    return map([&](int i) { return a.lane[i] - b.lane[i]; });
  }
  static PARE_INLINE V mul(const V& a, const V& b) {
    return map([&](int i) { return a.lane[i] * b.lane[i]; });
  }
  static PARE_INLINE V div(const V& a, const V& b) {
    return map([&](int i) { return a.lane[i] / b.lane[i]; });
  }
  /// a * b + c, rounded once.
  static PARE_INLINE V fma(const V& a, const V& b, const V& c) {
    return map([&](int i) { return fused_multiply_add(a.lane[i], b.lane[i], c.lane[i]); });
  }
  static PARE_INLINE V magnitude(const V& v) {
    return map([&](int i) { return __builtin_fabsf(v.lane[i]); });
  }
  /// a > b ? a : b, so b where either is NaN.
  static PARE_INLINE V max(const V& a, const V& b) {
    return map([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  /// a < b ? a : b, so b where either is NaN.
  static PARE_INLINE V min(const V& a, const V& b) {
    return map([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  /// v in the first n lanes, other in the rest; any n.
  static PARE_INLINE V keep_first(const V& v, int64_t n, const V& other) {
    return map([&](int i) { return i < n ? v.lane[i] : other.lane[i]; });
  }
  /// v * 2^n where bits(t) = bits(1.5 * 2^23) + n, |n| <= 250, in two exact steps before the one that may round.
  static PARE_INLINE V scale_exponent(const V& v, const V& t) {
    return map([&](int i) {
      const int32_t n = static_cast<int32_t>(__builtin_bit_cast(uint32_t, t.lane[i]) - 0x4b400000u);
      const int32_t half = n >> 1;
      const auto power = [](int32_t e) { return __builtin_bit_cast(float, static_cast<uint32_t>(e + 127) << 23); };
      return v.lane[i] * power(half) * power(n - half);
    });
  }
  /// Bit i: not a < b in lane i, so set where either is NaN.
  static PARE_INLINE uint32_t not_below(const V& a, const V& b) {
    uint32_t bits = 0;
    for (int i = 0; i < 16; ++i) bits |= (a.lane[i] < b.lane[i] ? 0u : 1u) << i;
    return bits;
  }
  /// v where a < b, 0 elsewhere.
  static PARE_INLINE V where_below(const V& v, const V& a, const V& b) {
    return map([&](int i) { return a.lane[i] < b.lane[i] ? v.lane[i] : 0.0f; });
  }
  /// Lanes folded 8-4-2-1: i with i + 8, then i + 4, ...
  static PARE_INLINE float fold_add(V v) {
    for (int half = 8; half > 0; half /= 2)
      for (int i = 0; i < half; ++i) v.lane[i] += v.lane[i + half];
    return v.lane[0];
  }
  static PARE_INLINE float fold_max(V v) {
    for (int half = 8; half > 0; half /= 2)
      for (int i = 0; i < half; ++i) v.lane[i] = v.lane[i] > v.lane[i + half] ? v.lane[i] : v.lane[i + half];
    return v.lane[0];
  }
  /// fold_add of four vectors.
  static PARE_INLINE void fold_add4(const V& a, const V& b, const V& c, const V& d, float* to) {
    to[0] = fold_add(a), to[1] = fold_add(b), to[2] = fold_add(c), to[3] = fold_add(d);
  }
};

/// Codes of 4 columns of 16 rows; see block_matmul.inl.h.
struct ScalarInt8 {
  using P = Scalar;
  struct Bytes {
    uint8_t byte[64];
  };
  static constexpr bool kSigned = true;
  /// Tiles of ternary products: 16-row groups and activation rows; from how many of these a panel pays, and its
  /// columns.
  static constexpr int kTernaryGroups = 1, kTernaryRowGroups = 1, kTernaryRowSums = 1, kTernaryInputs = 2;
  static constexpr int64_t kTernaryPanelInputs = 8, kTernaryPanelColumns = 192;
  template <class F>
  static PARE_INLINE Bytes map(F f) {
    Bytes out;
    for (int i = 0; i < 64; ++i) out.byte[i] = static_cast<uint8_t>(f(i));
    return out;
  }
  static PARE_INLINE Bytes load(const std::byte* p) {
    Bytes out;
    std::memcpy(&out, p, 64);
    return out;
  }
  static PARE_INLINE const Bytes& keep(const Bytes& v) { return v; }
  static PARE_INLINE void store(std::byte* p, const Bytes& v) { std::memcpy(p, &v, 64); }
  template <int kShift, int kMask>
  static PARE_INLINE Bytes field(const Bytes& v) {
    return map([&](int i) { return (kShift > 0 ? v.byte[i] >> kShift : v.byte[i] << -kShift) & kMask; });
  }
  template <int kShift, int kMask>
  static PARE_INLINE Bytes with_field(const Bytes& code, const Bytes& v) {
    const Bytes more = field<kShift, kMask>(v);
    return map([&](int i) { return code.byte[i] | more.byte[i]; });
  }
  static PARE_INLINE Bytes full(const Bytes& v) {
    return map([&](int i) { return v.byte[i] ^ 0x80; });
  }
  static PARE_INLINE Bytes table(const Bytes& v) {
    return map([&](int i) { return kIq4Values[v.byte[i]]; });
  }
  template <int kVector>
  static PARE_INLINE Bytes t3_indices(const std::byte* strip) {
    return map([&](int i) { return t3_index(strip, kVector, i); });
  }
  template <int kStep>
  static PARE_INLINE Bytes t3_code(const Bytes& indices) {
    constexpr int kPowers[] = {1, 3, 9};
    return map([&](int i) { return indices.byte[i] / kPowers[kStep] % 3; });
  }
  template <bool kFull, int kLargest, int kSteps>
  struct Sum {
    int32_t lane[16];
    PARE_INLINE void restore(const int32_t* p) { std::memcpy(lane, p, sizeof lane); }
    PARE_INLINE void save(int32_t* p) const { std::memcpy(p, lane, sizeof lane); }
    PARE_INLINE void clear() { std::memset(lane, 0, sizeof lane); }
    template <int kShift>
    PARE_INLINE void begin(const int32_t& start) {
      for (int32_t& l : lane) l = start * (1 << kShift);
    }
    template <int kStep>
    PARE_INLINE void add(const Bytes& w, const int8_t* x) {
      for (int r = 0; r < 16; ++r)
        for (int i = 0; i < 4; ++i) {
          const uint8_t code = w.byte[4 * r + i];
          lane[r] += (kFull ? static_cast<int8_t>(code) : code) * x[i];
        }
    }
    PARE_INLINE P::V floats() const {
      return P::map([&](int i) { return static_cast<float>(lane[i]); });
    }
  };
};

/// Lookups for 32 rows; see lut_matmul.inl.h.
struct ScalarLookup {
  struct Rows {
    int8_t byte[32];
  };
  struct Table {
    int8_t entry[16];
  };
  static constexpr int kGroups = 1;
  template <class F>
  static PARE_INLINE Rows map(F f) {
    Rows out;
    for (int i = 0; i < 32; ++i) out.byte[i] = static_cast<int8_t>(f(i));
    return out;
  }
  static PARE_INLINE Rows load(const std::byte* p) {
    Rows out;
    std::memcpy(&out, p, 32);
    return out;
  }
  static PARE_INLINE void store(std::byte* p, const Rows& v) { std::memcpy(p, &v, 32); }
  static PARE_INLINE Table table(const std::byte* p) {
    Table out;
    std::memcpy(&out, p, 16);
    return out;
  }
  static PARE_INLINE Rows set1(int x) {
    return map([&](int) { return x; });
  }
  static PARE_INLINE Rows low(const Rows& v) {
    return map([&](int i) { return v.byte[i] & 15; });
  }
  static PARE_INLINE Rows high(const Rows& v) {
    return map([&](int i) { return v.byte[i] >> 4 & 15; });
  }
  static PARE_INLINE Rows find(const Table& t, const Rows& index) {
    return map([&](int i) { return t.entry[index.byte[i]]; });
  }
  static PARE_INLINE Rows add(const Rows& a, const Rows& b) {
    return map([&](int i) { return a.byte[i] + b.byte[i]; });
  }
  static PARE_INLINE Rows twice(const Rows& v) { return add(v, v); }
  static PARE_INLINE Rows add_signed(const Rows& sum, const Rows& v, const Rows& sign) {
    return map([&](int i) { return sign.byte[i] < 0 ? sum.byte[i] - v.byte[i] : sum.byte[i] + v.byte[i]; });
  }
  struct Sums {
    int16_t lane[32];
    PARE_INLINE void clear() { std::memset(lane, 0, sizeof lane); }
    PARE_INLINE void add(const Rows& high, const Rows& low) {
      for (int i = 0; i < 32; ++i) lane[i] = static_cast<int16_t>(lane[i] + 32 * high.byte[i] + low.byte[i]);
    }
    PARE_INLINE void add_to(int32_t* totals) const {
      for (int i = 0; i < 32; ++i) totals[i] += lane[i];
    }
  };
};

}  // namespace
}  // namespace pare::kernels
