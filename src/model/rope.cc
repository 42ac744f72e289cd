#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

namespace pare {
namespace {

/// 1 / theta^(2i / dims), rounded to float32 where transformers rounds.
std::vector<float> plain_frequencies(double theta, int dims) {
  std::vector<float> inverse(static_cast<size_t>(dims) / 2);
  for (size_t i = 0; i < inverse.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(dims);
    inverse[i] = 1.0f / static_cast<float>(std::pow(theta, static_cast<double>(exponent)));
  }
  return inverse;
}

double yarn_mscale(double scale, double mscale) { return scale <= 1 ? 1 : 0.1 * mscale * std::log(scale) + 1; }

/// YaRN (arXiv 2309.00071): interpolates slow components, keeps fast ones, blends between.
RopeFrequencies yarn(const RopeConfig& rope) {
  const RopeScaling& s = rope.scaling;
  const double dims = rope.dims, original = static_cast<double>(s.original_context);
  const auto correction = [&](double rotations) {
    return dims * std::log(original / (rotations * 2 * std::numbers::pi)) / (2 * std::log(rope.theta));
  };
  double low = correction(s.beta_fast), high = correction(s.beta_slow);
  if (s.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dims - 1);
  if (low == high) high += 0.001;
  RopeFrequencies result;
  result.inverse.resize(static_cast<size_t>(rope.dims) / 2);
  for (size_t i = 0; i < result.inverse.size(); ++i) {
    const auto power = static_cast<float>(
        std::pow(rope.theta, static_cast<double>(static_cast<float>(2 * i) / static_cast<float>(rope.dims))));
    const float ramp =
        std::clamp((static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low), 0.0f, 1.0f);
    const float keep = 1 - ramp;
    result.inverse[i] = 1.0f / (static_cast<float>(s.factor) * power) * (1 - keep) + 1.0f / power * keep;
  }
  double factor = yarn_mscale(s.factor, 1);
  if (s.mscale.value_or(0) != 0 && s.mscale_all_dim.value_or(0) != 0) {
    factor = yarn_mscale(s.factor, *s.mscale) / yarn_mscale(s.factor, *s.mscale_all_dim);
  }
  result.attention_factor = static_cast<float>(s.attention_factor.value_or(factor));
  return result;
}

/// LongRoPE (arXiv 2402.13753): one divisor a component, from the short or the long list.
RopeFrequencies longrope(const RopeConfig& rope, int64_t sequence_length) {
  const RopeScaling& s = rope.scaling;
  const auto& factors = sequence_length > s.original_context ? s.long_factor : s.short_factor;
  RopeFrequencies result;
  result.inverse.resize(static_cast<size_t>(rope.dims) / 2);
  for (size_t i = 0; i < result.inverse.size(); ++i) {
    const auto power = static_cast<float>(
        std::pow(rope.theta, static_cast<double>(static_cast<float>(2 * i) / static_cast<float>(rope.dims))));
    result.inverse[i] = 1.0f / (static_cast<float>(factors[i]) * power);
  }
  const double inferred =
      s.factor <= 1 ? 1 : std::sqrt(1 + std::log(s.factor) / std::log(static_cast<double>(s.original_context)));
  result.attention_factor = static_cast<float>(s.attention_factor.value_or(inferred));
  return result;
}

/// Llama 3.1: long wavelengths are interpolated, short ones kept, those between blended.
std::vector<float> llama3(const RopeConfig& rope) {
  const RopeScaling& s = rope.scaling;
  std::vector<float> inverse = plain_frequencies(rope.theta, rope.dims);
  const auto original = static_cast<float>(s.original_context);
  const auto low = static_cast<float>(s.low_frequency_factor), high = static_cast<float>(s.high_frequency_factor);
  const auto factor = static_cast<float>(s.factor);
  for (float& f : inverse) {
    const float wavelength = static_cast<float>(2 * std::numbers::pi) / f;
    if (wavelength > original / low) {
      f /= factor;
    } else if (wavelength >= original / high) {
      const float smooth = (original / wavelength - low) / (high - low);
      f = (1 - smooth) * f / factor + smooth * f;
    }
  }
  return inverse;
}

/// Sine and cosine of an angle of at most about 1e9, to a few units of 1e-16.
std::pair<double, double> sine_cosine(double angle) {
  // Cody-Waite: pi/2 in three parts whose products with a quadrant number below 2^30 are exact.
  constexpr double kPart1 = 0x1.921fb4p+0, kPart2 = 0x1.4442dp-24, kPart3 = 0x1.8469898cc5170p-48;
  const double quadrant = std::nearbyint(angle * (2 / std::numbers::pi));
  const double r = ((angle - quadrant * kPart1) - quadrant * kPart2) - quadrant * kPart3;
  const double r2 = r * r;
  // Taylor series: on |r| <= pi/4 the first dropped terms are below 1e-17.
  double sine = -1.0 / 1307674368000, cosine = -1.0 / 87178291200;
  for (double c : {1.0 / 6227020800, -1.0 / 39916800, 1.0 / 362880, -1.0 / 5040, 1.0 / 120, -1.0 / 6, 1.0})
    sine = sine * r2 + c;
  for (double c : {1.0 / 479001600, -1.0 / 3628800, 1.0 / 40320, -1.0 / 720, 1.0 / 24, -1.0 / 2, 1.0})
    cosine = cosine * r2 + c;
  sine *= r;
  switch (static_cast<int64_t>(quadrant) & 3) {
    case 0:
      return {sine, cosine};
    case 1:
      return {cosine, -sine};
    case 2:
      return {-sine, -cosine};
    default:
      return {-cosine, sine};
  }
}

}  // namespace

bool depends_on_length(const RopeConfig& rope) {
  return rope.scaling.kind == RopeScalingKind::kDynamic || rope.scaling.kind == RopeScalingKind::kLongRope;
}

RopeFrequencies rope_frequencies(const RopeConfig& rope, int64_t sequence_length) {
  const RopeScaling& s = rope.scaling;
  RopeFrequencies result;
  switch (s.kind) {
    case RopeScalingKind::kNone:
      result.inverse = plain_frequencies(rope.theta, rope.dims);
      break;
    case RopeScalingKind::kLinear:
      result.inverse = plain_frequencies(rope.theta, rope.dims);
      for (float& f : result.inverse) f /= static_cast<float>(s.factor);
      break;
    case RopeScalingKind::kDynamic: {  // NTK-aware: a larger base once the sequence outgrows the original context
      const auto original = static_cast<double>(s.original_context);
      const double length = static_cast<double>(std::max(sequence_length, s.original_context));
      const double stretch = s.factor * length / original - (s.factor - 1);
      const double dims = rope.dims;
      result.inverse = plain_frequencies(rope.theta * std::pow(stretch, dims / (dims - 2)), rope.dims);
      break;
    }
    case RopeScalingKind::kYarn:
      result = yarn(rope);
      break;
    case RopeScalingKind::kLongRope:
      result = longrope(rope, sequence_length);
      break;
    case RopeScalingKind::kLlama3:
      result.inverse = llama3(rope);
      break;
  }
  for (size_t i = 0; i < rope.frequency_factors.size(); ++i) result.inverse[i] /= rope.frequency_factors[i];
  return result;
}

void rope_row(const RopeFrequencies& frequencies, int64_t position, float* cos, float* sin) {
  for (size_t i = 0; i < frequencies.inverse.size(); ++i) {
    const float angle = static_cast<float>(position) * frequencies.inverse[i];
    const auto [s, c] = sine_cosine(static_cast<double>(angle));
    cos[i] = static_cast<float>(c) * frequencies.attention_factor;
    sin[i] = static_cast<float>(s) * frequencies.attention_factor;
  }
}

std::vector<float> llama3_divisors(const RopeConfig& rope) {
  const std::vector<float> plain = plain_frequencies(rope.theta, rope.dims), scaled = llama3(rope);
  std::vector<float> divisors(plain.size());
  for (size_t i = 0; i < plain.size(); ++i) divisors[i] = plain[i] / scaled[i];
  return divisors;
}

}  // namespace pare
