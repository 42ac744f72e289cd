#pragma once
#include "tensor/fit.h"

namespace pare {

// As fit.h, for types with a minimum for each group: value = d * scale * q - dmin * min, q from 0 to kHigh.

/// Of each group, the best scale and minimum so far, and by how much they lower the squared error.
struct BestScaleAndMin {
  Lanes scale{}, min{}, gain{};

  /// For given q the best of both solve two linear equations. Minimums below 0 cannot be stored: then 0 is best.
  void offer(float count, Lanes sum_x, Lanes sum_q, Lanes qx, Lanes qq) {
    const Lanes determinant = count * qq - sum_q * sum_q;
    Lanes fitted_min = divided(sum_q * qx - qq * sum_x, determinant);
    const auto above = fitted_min > 0.0f;
    fitted_min = above ? fitted_min : Lanes{};
    const Lanes fitted = above ? divided(count * qx - sum_q * sum_x, determinant) : divided(qx, qq);
    const Lanes gained = fitted > 0.0f ? fitted * qx - fitted_min * sum_x : Lanes{};
    const auto better = gained > gain;
    scale = better ? fitted : scale;
    min = better ? fitted_min : min;
    gain = larger(gained, gain);
  }
};

/// Offers what is best for x rounded to q with this inverse of the scale and this minimum.
template <int kHigh, int kLength>
void try_scale_and_min(const Lanes (&x)[kLength], Lanes sum_x, Lanes inverse, Lanes min, BestScaleAndMin& best) {
  Lanes sum_q{};
  Lanes qx{};
  Lanes qq{};
  for (int i = 0; i < kLength; ++i) {
    const Lanes q = Steps<0, kHigh>::nearest((x[i] + min) * inverse);
    sum_q += q;
    qx += q * x[i];
    qq += q * q;
  }
  best.offer(kLength, sum_x, sum_q, qx, qq);
}

/// The scale and minimum of each group: x is near scale * q - min. The obvious scale takes the group's range to kHigh
/// steps.
template <int kHigh, int kLength>
BestScaleAndMin fit_scales_and_mins(const Lanes (&x)[kLength], Search search) {
  Lanes low{};
  Lanes high = x[0];
  Lanes sum_x{};
  for (int i = 0; i < kLength; ++i) {
    low = smaller(x[i], low);
    high = larger(x[i], high);
    sum_x += x[i];
  }
  BestScaleAndMin best;
  best.min = larger(sum_x / -static_cast<float>(kLength), Lanes{});
  best.gain = -best.min * sum_x;
  const Lanes inverse = divided(all(1.0f), high - low);
  for (int k = -search.tries; k <= search.tries; ++k) {
    const float steps = kHigh + search.apart * static_cast<float>(k);
    try_scale_and_min<kHigh>(x, sum_x, inverse * steps, -low, best);
  }
  for (int k = 0; k < search.repairs; ++k) {
    try_scale_and_min<kHigh>(x, sum_x, divided(all(1.0f), best.scale), best.min, best);
  }
  return best;
}

/// What a block stores.
template <int kGroups, int kLength>
struct ScaledGroupsWithMin {
  uint16_t d = 0, dmin = 0;                // f16
  float scale[kGroups]{}, min[kGroups]{};  // integers
  float q[kGroups * kLength]{};            // integers
};

struct Multiples {
  Lanes scale, min;
};

/// Of each group, the best of the nine pairs of multiples of d and dmin around what was fitted.
template <int kHigh, int kHighMultiple, int kLength>
Multiples choose_multiples(const Lanes (&x)[kLength], float d, float dmin, const BestScaleAndMin& fitted) {
  using Allowed = Steps<0, kHighMultiple>;
  const Lanes scale = Allowed::nearest(fitted.scale * reciprocal(d));
  const Lanes min = Allowed::nearest(fitted.min * reciprocal(dmin));
  Multiples best{scale, min};
  Lanes least = all(std::numeric_limits<float>::infinity());
  for (const float off : {0.0f, -1.0f, 1.0f}) {
    for (const float min_off : {0.0f, -1.0f, 1.0f}) {
      const Multiples pair{Allowed::nearest(scale + off), Allowed::nearest(min + min_off)};
      const Lanes error = squared_error<Steps<0, kHigh>>(x, pair.scale * d, pair.min * dmin);
      const auto better = error < least;
      best.scale = better ? pair.scale : best.scale;
      best.min = better ? pair.min : best.min;
      least = smaller(error, least);
    }
  }
  return best;
}

/// Fits q from 0 to kHigh, scale and min from 0 to kHighMultiple. All is 0 in blocks
/// too small for any scale, and d is NaN where a value is NaN, infinite or far too large.
template <int kHigh, int kHighMultiple, int kGroups, int kLength>
void fit_scaled_groups_with_min(const float* from, Search search, ScaledGroupsWithMin<kGroups, kLength>& to) {
  const float unit = unit_of(from, kGroups * kLength);
  to.d = float_to_f16(unit);
  if (!(unit > 0)) return;
  constexpr int kFours = kGroups / kLanes;
  Lanes x[kFours][kLength];
  BestScaleAndMin fitted[kFours];
  Lanes largest{};
  Lanes largest_min{};
  for (int four = 0; four < kFours; ++four) {
    load_groups(from + four * kLanes * kLength, all(1.0f / unit), x[four]);
    fitted[four] = fit_scales_and_mins<kHigh>(x[four], search);
    largest = larger(fitted[four].scale, largest);
    largest_min = larger(fitted[four].min, largest_min);
  }
  to.d = float_to_f16(largest_lane(largest) / kHighMultiple * unit);
  to.dmin = float_to_f16(largest_lane(largest_min) / kHighMultiple * unit);
  const float d = f16_to_float(to.d) / unit;
  const float dmin = f16_to_float(to.dmin) / unit;
  for (int four = 0; four < kFours; ++four) {
    const Multiples chosen = choose_multiples<kHigh, kHighMultiple>(x[four], d, dmin, fitted[four]);
    const Lanes inverse = divided(all(1.0f), chosen.scale * d);
    for (int lane = 0; lane < kLanes; ++lane) {
      to.scale[four * kLanes + lane] = chosen.scale[lane];
      to.min[four * kLanes + lane] = chosen.min[lane];
    }
    for (int i = 0; i < kLength; ++i) {
      const Lanes q = Steps<0, kHigh>::nearest((x[four][i] + chosen.min * dmin) * inverse);
      for (int lane = 0; lane < kLanes; ++lane) to.q[(four * kLanes + lane) * kLength + i] = q[lane];
    }
  }
}

}  // namespace pare
