#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>

#include "base/half.h"
#include "tensor/blocks.h"

namespace pare {

// How the types with small scales for groups of a block find them: the scale (and the minimum) whose rounded values
// have the least squared error. Every value counts the same; without knowledge of what a weight is multiplied with,
// nothing else is known to be better.

/// Four groups, one in each lane: x[i] holds value i of each. Every group's sums then run in one order on every
/// machine. (g++ and clang have vectors as a type; they do not make these loops into vectors by themselves under IEEE
/// rules.)
using Lanes [[gnu::vector_size(16)]] = float;
constexpr int kLanes = 4;

inline Lanes all(float value) { return Lanes{} + value; }
inline Lanes larger(Lanes a, Lanes b) { return a > b ? a : b; }   // b where a is NaN
inline Lanes smaller(Lanes a, Lanes b) { return a < b ? a : b; }  // b where a is NaN
inline Lanes magnitude(Lanes a) { return larger(a, -a); }
inline float largest_lane(Lanes a) { return std::max(std::max(a[0], a[1]), std::max(a[2], a[3])); }
/// a / b, or 0 where b is 0.
inline Lanes divided(Lanes a, Lanes b) { return b == 0.0f ? Lanes{} : a / b; }

/// The integers kLow to kHigh as what values can be rounded to.
template <int kLow, int kHigh>
struct Steps {
  static constexpr float kEdge = kLow;  // the furthest from zero
  /// The nearest step, half to even; NaN gives kLow, so that casts to integers are defined.
  static Lanes nearest(Lanes value) {
    constexpr float kWhole = 12582912;  // 1.5 * 2^23: floats that large are integers, so adding it rounds
    return smaller(larger(value, all(kLow)), all(kHigh)) + kWhole - kWhole;
  }
};

/// The power of two to divide a block by, so that squares neither overflow nor vanish. 0 if its values are too small
/// for any scale in f16, NaN if one is NaN, infinite or far too large for any.
inline float unit_of(const float* from, int count) {
  const float unit = std::bit_cast<float>(largest_magnitude(from, count) & 0x7f800000);
  if (!(unit < 0x1p60f)) return std::numeric_limits<float>::quiet_NaN();
  return unit < 0x1p-60f ? 0.0f : unit;
}

/// Four groups of kLength values each that follow each other, times `factor`.
template <int kLength>
void load_groups(const float* from, Lanes factor, Lanes (&x)[kLength]) {
  for (int i = 0; i < kLength; ++i) {
    x[i] = Lanes{from[i], from[kLength + i], from[2 * kLength + i], from[3 * kLength + i]} * factor;
  }
}

/// Of each group, the best scale so far, and by how much it lowers the squared error.
struct BestScale {
  Lanes scale{}, gain{};

  /// For given q the best scale is sum(q x) / sum(q q); it lowers the squared error by sum(q x)^2 / sum(q q).
  void offer(Lanes qx, Lanes qq) {
    const Lanes fitted = divided(qx, qq);
    const Lanes gained = fitted * qx;
    scale = gained > gain ? fitted : scale;
    gain = larger(gained, gain);
  }
};

/// How hard to search. Each try costs about as much as reading the values once.
struct Search {
  int tries;    // on each side of the obvious scale
  float apart;  // how far, in steps of the grid at its edge
  int repairs;  // then: round to the best scale and solve for the rounded values
};

/// Offers what is best for x rounded to q with this inverse of the scale.
template <class Grid, int kLength>
void try_scale(const Lanes (&x)[kLength], Lanes inverse, BestScale& best) {
  Lanes qx{};
  Lanes qq{};
  for (int i = 0; i < kLength; ++i) {
    const Lanes q = Grid::nearest(x[i] * inverse);
    qx += q * x[i];
    qq += q * q;
  }
  best.offer(qx, qq);
}

/// The scale of each group: x is near scale * q. The obvious one takes the group's value of largest magnitude to the
/// grid's edge. Both signs are tried: grids reach further on one side.
template <class Grid, int kLength>
Lanes fit_scales(const Lanes (&x)[kLength], Search search) {
  Lanes furthest{};
  for (int i = 0; i < kLength; ++i) furthest = magnitude(x[i]) > magnitude(furthest) ? x[i] : furthest;
  const Lanes inverse = divided(all(1.0f), furthest);
  BestScale best;
  for (int k = -search.tries; k <= search.tries; ++k) {
    const float edge = Grid::kEdge + search.apart * static_cast<float>(k);
    try_scale<Grid>(x, inverse * edge, best);
    try_scale<Grid>(x, inverse * -edge, best);
  }
  for (int k = 0; k < search.repairs; ++k) try_scale<Grid>(x, divided(all(1.0f), best.scale), best);
  return best.scale;
}

/// Of each group, the squared error of x rounded to scale * q - min.
template <class Grid, int kLength>
Lanes squared_error(const Lanes (&x)[kLength], Lanes scale, Lanes min) {
  const Lanes inverse = divided(all(1.0f), scale);
  Lanes sum{};
  for (int i = 0; i < kLength; ++i) {
    const Lanes shifted = x[i] + min;
    const Lanes off = scale * Grid::nearest(shifted * inverse) - shifted;
    sum += off * off;
  }
  return sum;
}

/// What a block stores of groups with value = d * multiple * q.
template <int kGroups, int kLength>
struct ScaledGroups {
  uint16_t d = 0;                // f16
  float multiple[kGroups]{};     // integers
  float q[kGroups * kLength]{};  // integers
};

/// Of each group, the best of three multiples of d around scale / d.
template <class Grid, class Multiples, int kLength>
Lanes choose_multiples(const Lanes (&x)[kLength], float d, Lanes scale) {
  const Lanes nearest = Multiples::nearest(scale * reciprocal(d));
  Lanes best = nearest;
  Lanes least = squared_error<Grid>(x, best * d, Lanes{});
  for (const float off : {-1.0f, 1.0f}) {
    const Lanes multiple = Multiples::nearest(nearest + off);
    const Lanes error = squared_error<Grid>(x, multiple * d, Lanes{});
    best = error < least ? multiple : best;
    least = smaller(error, least);
  }
  return best;
}

/// Fits q in `Grid` and multiples in `Multiples`. All is 0 in blocks too small for
/// any scale, and d is NaN where a value is NaN, infinite or far too large.
template <class Grid, class Multiples, int kGroups, int kLength>
void fit_scaled_groups(const float* from, Search search, ScaledGroups<kGroups, kLength>& to) {
  const float unit = unit_of(from, kGroups * kLength);
  to.d = float_to_f16(unit);
  if (!(unit > 0)) return;
  Lanes x[kGroups / kLanes][kLength];
  Lanes wanted[kGroups / kLanes];
  for (int four = 0; four < kGroups / kLanes; ++four) {
    load_groups(from + four * kLanes * kLength, all(1.0f / unit), x[four]);
    wanted[four] = fit_scales<Grid>(x[four], search);
  }
  // The scale of largest magnitude gets the multiple furthest from zero.
  float scales[kGroups];
  std::memcpy(scales, wanted, sizeof scales);
  to.d = float_to_f16(furthest_from_zero(scales, kGroups) / Multiples::kEdge * unit);
  const float d = f16_to_float(to.d) / unit;
  for (int four = 0; four < kGroups / kLanes; ++four) {
    const Lanes multiple = choose_multiples<Grid, Multiples>(x[four], d, wanted[four]);
    const Lanes inverse = divided(all(1.0f), multiple * d);
    for (int lane = 0; lane < kLanes; ++lane) to.multiple[four * kLanes + lane] = multiple[lane];
    for (int i = 0; i < kLength; ++i) {
      const Lanes q = Grid::nearest(x[four][i] * inverse);
      for (int lane = 0; lane < kLanes; ++lane) to.q[(four * kLanes + lane) * kLength + i] = q[lane];
    }
  }
}

}  // namespace pare
