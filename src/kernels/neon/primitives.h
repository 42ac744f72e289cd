#pragma once
#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#include "kernels/packing.h"

// Primitives of 16 lanes in four NEON registers, of any ARMv8 CPU; see generic/scalar.h for what each means.

#define PARE_INLINE __attribute__((always_inline)) inline

namespace pare::kernels {
namespace {

struct Neon {
  struct V {
    float32x4_t part[4];
  };

  // 32 registers: 16 accumulators leave room for two vectors of weights and one of activations.
  static constexpr int kTileRows = 2, kTileInputs = 2, kTileRowsOfOne = 4;
  static constexpr int kBlockGroups = 1, kBlockRowGroups = 1, kBlockInputs = 2;
  static constexpr int kAttendVectors = 5, kAttendQueries = 5;
  static constexpr int64_t kPanelInputs = 12, kPanelRows = 32, kPanelColumns = 512, kPanelInputRows = 96;
  static constexpr int64_t kBlockPanelInputs = 16, kBlockPanelColumns = 1024, kBlockPanelInputRows = 96;

  /// An operation on each part of vectors.
  template <float32x4_t kOperation(float32x4_t, float32x4_t)>
  static PARE_INLINE V each(const V& a, const V& b) {
    return {kOperation(a.part[0], b.part[0]), kOperation(a.part[1], b.part[1]), kOperation(a.part[2], b.part[2]),
            kOperation(a.part[3], b.part[3])};
  }

  static PARE_INLINE V set1(float x) {
    const float32x4_t four = vdupq_n_f32(x);
    return {four, four, four, four};
  }
  static PARE_INLINE V zero() { return set1(0); }
  static PARE_INLINE V load(const float* p) {
    return {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)};
  }
  static PARE_INLINE void store(float* p, const V& v) {
    vst1q_f32(p, v.part[0]), vst1q_f32(p + 4, v.part[1]), vst1q_f32(p + 8, v.part[2]), vst1q_f32(p + 12, v.part[3]);
  }
  static PARE_INLINE uint8x16_t bytes(const std::byte* p) { return vld1q_u8(reinterpret_cast<const uint8_t*>(p)); }
  static PARE_INLINE V load_f16(const std::byte* p) {
    const float16x8_t low = vreinterpretq_f16_u8(bytes(p)), high = vreinterpretq_f16_u8(bytes(p + 16));
    return {vcvt_f32_f16(vget_low_f16(low)), vcvt_high_f32_f16(low), vcvt_f32_f16(vget_low_f16(high)),
            vcvt_high_f32_f16(high)};
  }
  static PARE_INLINE void store_f16(std::byte* p, const V& v) {
    const float16x8_t low = vcvt_high_f16_f32(vcvt_f16_f32(v.part[0]), v.part[1]),
                      high = vcvt_high_f16_f32(vcvt_f16_f32(v.part[2]), v.part[3]);
    auto* to = reinterpret_cast<uint8_t*>(p);
    vst1q_u8(to, vreinterpretq_u8_f16(low)), vst1q_u8(to + 16, vreinterpretq_u8_f16(high));
  }
  static PARE_INLINE V load_bf16(const std::byte* p) {
    const uint16x8_t low = vreinterpretq_u16_u8(bytes(p)), high = vreinterpretq_u16_u8(bytes(p + 16));
    return {vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(low), 16)), vreinterpretq_f32_u32(vshll_high_n_u16(low, 16)),
            vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(high), 16)),
            vreinterpretq_f32_u32(vshll_high_n_u16(high, 16))};
  }
  static PARE_INLINE V from_int8(int8x16_t v) {
    const int16x8_t low = vmovl_s8(vget_low_s8(v)), high = vmovl_high_s8(v);
    return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_high_s16(low)),
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_high_s16(high))};
  }
  static PARE_INLINE V load_int8(const std::byte* p) { return from_int8(vreinterpretq_s8_u8(bytes(p))); }
  static PARE_INLINE V load_low_nibbles(const std::byte* p) {
    return from_int8(vreinterpretq_s8_u8(vandq_u8(bytes(p), vdupq_n_u8(15))));
  }
  static PARE_INLINE V load_high_nibbles(const std::byte* p) {
    return from_int8(vreinterpretq_s8_u8(vshrq_n_u8(bytes(p), 4)));
  }
  static PARE_INLINE V add(const V& a, const V& b) { return each<vaddq_f32>(a, b); }
  static PARE_INLINE V sub(const V& a, const V& b) { return each<vsubq_f32>(a, b); }
  static PARE_INLINE V mul(const V& a, const V& b) { return each<vmulq_f32>(a, b); }
  static PARE_INLINE V div(const V& a, const V& b) { return each<vdivq_f32>(a, b); }
  static PARE_INLINE V fma(const V& a, const V& b, const V& c) {
    return {vfmaq_f32(c.part[0], a.part[0], b.part[0]), vfmaq_f32(c.part[1], a.part[1], b.part[1]),
            vfmaq_f32(c.part[2], a.part[2], b.part[2]), vfmaq_f32(c.part[3], a.part[3], b.part[3])};
  }
  // fmax and fmin make NaN of NaN, and order -0 before 0.
  static PARE_INLINE float32x4_t larger(float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
  static PARE_INLINE float32x4_t smaller(float32x4_t a, float32x4_t b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
  static PARE_INLINE V magnitude(const V& v) {
    return {vabsq_f32(v.part[0]), vabsq_f32(v.part[1]), vabsq_f32(v.part[2]), vabsq_f32(v.part[3])};
  }
  static PARE_INLINE V max(const V& a, const V& b) { return each<larger>(a, b); }
  static PARE_INLINE V min(const V& a, const V& b) { return each<smaller>(a, b); }
  static PARE_INLINE V keep_first(const V& v, int64_t n, const V& other) {
    const int32x4_t count = vdupq_n_s32(static_cast<int32_t>(n > 16 ? 16 : n));
    const int32x4_t lane = {0, 1, 2, 3};
    const auto kept = [&](int i) {
      return vbslq_f32(vcgtq_s32(count, vaddq_s32(lane, vdupq_n_s32(4 * i))), v.part[i], other.part[i]);
    };
    return {kept(0), kept(1), kept(2), kept(3)};
  }
  static PARE_INLINE float32x4_t scale_exponent(float32x4_t v, float32x4_t t) {
    const int32x4_t n = vsubq_s32(vreinterpretq_s32_f32(t), vdupq_n_s32(0x4b400000));
    const int32x4_t half = vshrq_n_s32(n, 1), bias = vdupq_n_s32(127);
    const int32x4_t first = vshlq_n_s32(vaddq_s32(half, bias), 23);
    const int32x4_t second = vshlq_n_s32(vaddq_s32(vsubq_s32(n, half), bias), 23);
    return vmulq_f32(vmulq_f32(v, vreinterpretq_f32_s32(first)), vreinterpretq_f32_s32(second));
  }
  static PARE_INLINE V scale_exponent(const V& v, const V& t) { return each<scale_exponent>(v, t); }
  static PARE_INLINE uint32_t not_below(const V& a, const V& b) {
    const uint32x4_t bit = {1, 2, 4, 8};
    uint32_t below = 0;
    for (int i = 0; i < 4; ++i) below |= vaddvq_u32(vandq_u32(vcltq_f32(a.part[i], b.part[i]), bit)) << 4 * i;
    return ~below & 0xffffu;
  }
  static PARE_INLINE V where_below(const V& v, const V& a, const V& b) {
    const auto part = [&](int i) {
      return vreinterpretq_f32_u32(vandq_u32(vcltq_f32(a.part[i], b.part[i]), vreinterpretq_u32_f32(v.part[i])));
    };
    return {part(0), part(1), part(2), part(3)};
  }
  static PARE_INLINE float32x4_t fold_to4(const V& v) {
    return vaddq_f32(vaddq_f32(v.part[0], v.part[2]), vaddq_f32(v.part[1], v.part[3]));
  }
  static PARE_INLINE float fold_add(const V& v) {
    const float32x4_t four = fold_to4(v);
    return vpadds_f32(vadd_f32(vget_low_f32(four), vget_high_f32(four)));
  }
  static PARE_INLINE float fold_max(const V& v) {
    const float32x4_t four = larger(larger(v.part[0], v.part[2]), larger(v.part[1], v.part[3]));
    const float32x4_t two = larger(four, vextq_f32(four, four, 2));
    return vgetq_lane_f32(larger(two, vdupq_laneq_f32(two, 1)), 0);
  }
  /// The first halves of a and b plus the second: two lanes of each.
  static PARE_INLINE float32x4_t fold_to2(float32x4_t a, float32x4_t b) {
    const float64x2_t a2 = vreinterpretq_f64_f32(a), b2 = vreinterpretq_f64_f32(b);
    return vaddq_f32(vreinterpretq_f32_f64(vzip1q_f64(a2, b2)), vreinterpretq_f32_f64(vzip2q_f64(a2, b2)));
  }
  static PARE_INLINE void fold_add4(const V& a, const V& b, const V& c, const V& d, float* to) {
    vst1q_f32(to, vpaddq_f32(fold_to2(fold_to4(a), fold_to4(b)), fold_to2(fold_to4(c), fold_to4(d))));
  }
};

/// For dot products, whose sums leave registers to more activation rows than int16 ones do.
struct NeonDot : Neon {
  static constexpr int kBlockInputs = 3;
};

/// Codes of 4 columns of 16 rows in four registers.
template <class Primitives, bool kSignedCodes>
struct NeonCodes {
  using P = Primitives;
  struct Bytes {
    uint8x16_t part[4];  // 4 rows each
  };
  static constexpr bool kSigned = kSignedCodes;
  template <uint8x16_t kOperation(uint8x16_t)>
  static PARE_INLINE Bytes each(const Bytes& v) {
    return {kOperation(v.part[0]), kOperation(v.part[1]), kOperation(v.part[2]), kOperation(v.part[3])};
  }
  static PARE_INLINE Bytes load(const std::byte* p) {
    return {P::bytes(p), P::bytes(p + 16), P::bytes(p + 32), P::bytes(p + 48)};
  }
  static PARE_INLINE Bytes keep(const Bytes& v) { return v; }
  static PARE_INLINE void store(std::byte* p, const Bytes& v) {
    auto* to = reinterpret_cast<uint8_t*>(p);
    vst1q_u8(to, v.part[0]), vst1q_u8(to + 16, v.part[1]), vst1q_u8(to + 32, v.part[2]), vst1q_u8(to + 48, v.part[3]);
  }
  template <int kShift, int kMask>
  static PARE_INLINE uint8x16_t field(uint8x16_t v) {
    if constexpr (kShift > 0) v = vshrq_n_u8(v, kShift);
    if constexpr (kShift < 0) v = vshlq_n_u8(v, -kShift);
    // Shifts leave zeros; what they leave beside the field is cleared where there is any.
    constexpr int kLeft = kShift > 0 ? 0xff >> kShift : 0xff << -kShift & 0xff;
    return (kLeft & ~kMask) == 0 ? v : vandq_u8(v, vdupq_n_u8(kMask));
  }
  template <int kShift, int kMask>
  static PARE_INLINE Bytes field(const Bytes& v) {
    return each<field<kShift, kMask>>(v);
  }
  template <int kShift, int kMask>
  static PARE_INLINE Bytes with_field(const Bytes& code, const Bytes& v) {
    const Bytes more = field<kShift, kMask>(v);
    return {vorrq_u8(code.part[0], more.part[0]), vorrq_u8(code.part[1], more.part[1]),
            vorrq_u8(code.part[2], more.part[2]), vorrq_u8(code.part[3], more.part[3])};
  }
  static PARE_INLINE uint8x16_t full(uint8x16_t v) { return kSigned ? veorq_u8(v, vdupq_n_u8(0x80)) : v; }
  static PARE_INLINE Bytes full(const Bytes& v) { return each<full>(v); }
  static PARE_INLINE uint8x16_t table(uint8x16_t v) {
    const uint8x16_t values = vreinterpretq_u8_s8(vld1q_s8(kIq4Values));
    return vqtbl1q_u8(kSigned ? values : veorq_u8(values, vdupq_n_u8(0x80)), v);
  }
  static PARE_INLINE Bytes table(const Bytes& v) { return each<table>(v); }
};

/// The 16 activation codes of which step kStep of a unit multiplies the lane kStep % 4: loaded once for four steps.
template <int kStep>
PARE_INLINE int8x16_t four_steps(const int8_t* codes) {
  return vld1q_s8(codes - kStep % 4 * kStepColumns);
}

/// 16 int32 sums, and what the engines do with them alike.
struct NeonSums {
  int32x4_t part[4];
  PARE_INLINE void set(int32_t x) { part[0] = part[1] = part[2] = part[3] = vdupq_n_s32(x); }
  PARE_INLINE void clear() { set(0); }
  PARE_INLINE void restore(const int32_t* p) {
    part[0] = vld1q_s32(p), part[1] = vld1q_s32(p + 4), part[2] = vld1q_s32(p + 8), part[3] = vld1q_s32(p + 12);
  }
  PARE_INLINE void save(int32_t* p) const {
    vst1q_s32(p, part[0]), vst1q_s32(p + 4, part[1]), vst1q_s32(p + 8, part[2]), vst1q_s32(p + 12, part[3]);
  }
  template <int kShift>
  PARE_INLINE void begin(const int32_t& start) {
    set(start * (1 << kShift));
  }
  PARE_INLINE Neon::V floats() const {
    return {vcvtq_f32_s32(part[0]), vcvtq_f32_s32(part[1]), vcvtq_f32_s32(part[2]), vcvtq_f32_s32(part[3])};
  }
};

/// Products of bytes are int16, a row's four in four lanes, which hold the sums of kRoom steps and of neighbours; only
/// then are they widened. Full codes have room for one: 2 * 128 * 127 = 32512.
struct NeonInt8 : NeonCodes<Neon, true> {
  /// Tiles of ternary products: 16-row groups and activation rows; from how many of these a panel pays, and its
  /// columns.
  static constexpr int kTernaryGroups = 1, kTernaryRowGroups = 1, kTernaryRowSums = 1, kTernaryInputs = 2;
  static constexpr int64_t kTernaryPanelInputs = 8, kTernaryPanelColumns = 384;
  template <bool kFull, int kLargest, int kSteps>
  struct Sum : NeonSums {
    static constexpr int kRoom = kFull ? 1 : 32767 / (2 * 127 * kLargest);
    int16x8_t low[4], high[4];
    template <int kStep>
    PARE_INLINE void add(const Bytes& w, const int8_t* codes) {
      const int8x16_t x =
          vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(four_steps<kStep>(codes)), kStep % 4));
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const int8x16_t v = vreinterpretq_s8_u8(w.part[i]);
        if constexpr (kStep % kRoom == 0) {
          low[i] = vmull_s8(vget_low_s8(v), vget_low_s8(x));
          high[i] = vmull_high_s8(v, x);
        } else {
          low[i] = vmlal_s8(low[i], vget_low_s8(v), vget_low_s8(x));
          high[i] = vmlal_high_s8(high[i], v, x);
        }
        if constexpr (kStep % kRoom == kRoom - 1 || kStep == kSteps - 1)
          part[i] = vpadalq_s16(part[i], vpaddq_s16(low[i], high[i]));
      }
    }
  };
};

/// Lookups for 32 rows by tbl; see lut_matmul.inl.h.
struct NeonLookup {
  struct Rows {
    int8x16_t part[2];
  };
  using Table = int8x16_t;
  static constexpr int kGroups = 2;
  template <class F>
  static PARE_INLINE Rows map(F f) {
    return {f(0), f(1)};
  }
  static PARE_INLINE Rows load(const std::byte* p) { return {table(p), table(p + 16)}; }
  static PARE_INLINE void store(std::byte* p, const Rows& v) {
    auto* to = reinterpret_cast<int8_t*>(p);
    vst1q_s8(to, v.part[0]), vst1q_s8(to + 16, v.part[1]);
  }
  static PARE_INLINE Table table(const std::byte* p) { return vreinterpretq_s8_u8(Neon::bytes(p)); }
  static PARE_INLINE Rows set1(int8_t x) { return {vdupq_n_s8(x), vdupq_n_s8(x)}; }
  static PARE_INLINE Rows low(const Rows& v) {
    return map([&](int i) { return vandq_s8(v.part[i], vdupq_n_s8(15)); });
  }
  static PARE_INLINE Rows high(const Rows& v) {
    return map([&](int i) { return vreinterpretq_s8_u8(vshrq_n_u8(vreinterpretq_u8_s8(v.part[i]), 4)); });
  }
  static PARE_INLINE Rows find(Table t, const Rows& index) {
    return map([&](int i) { return vqtbl1q_s8(t, vreinterpretq_u8_s8(index.part[i])); });
  }
  static PARE_INLINE Rows add(const Rows& a, const Rows& b) {
    return map([&](int i) { return vaddq_s8(a.part[i], b.part[i]); });
  }
  static PARE_INLINE Rows twice(const Rows& v) { return add(v, v); }
  static PARE_INLINE Rows add_signed(const Rows& sum, const Rows& v, const Rows& sign) {
    // -1 or 1.
    const auto one = [&](int i) { return vorrq_s8(vshrq_n_s8(sign.part[i], 7), vdupq_n_s8(1)); };
    return map([&](int i) { return vmlaq_s8(sum.part[i], v.part[i], one(i)); });
  }
  struct Sums {
    int16x8_t part[4];
    PARE_INLINE void clear() { part[0] = part[1] = part[2] = part[3] = vdupq_n_s16(0); }
    PARE_INLINE void add(const Rows& high, const Rows& low) {
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i) {
        const int8x16_t h = high.part[i], l = low.part[i];
        part[2 * i] = vaddw_s8(vmlal_s8(part[2 * i], vget_low_s8(h), vdup_n_s8(32)), vget_low_s8(l));
        part[2 * i + 1] = vaddw_high_s8(vmlal_high_s8(part[2 * i + 1], h, vdupq_n_s8(32)), l);
      }
    }
    PARE_INLINE void add_to(int32_t* totals) const {
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        int32_t* to = totals + 8 * i;
        vst1q_s32(to, vaddw_s16(vld1q_s32(to), vget_low_s16(part[i])));
        vst1q_s32(to + 4, vaddw_high_s16(vld1q_s32(to + 4), part[i]));
      }
    }
  };
};

}  // namespace
}  // namespace pare::kernels
