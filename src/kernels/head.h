#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/matmul.h"
#include "tensor/block_parts.h"

// Output matrices in two parts. Who chooses the likeliest tokens needs few logits, but reads the whole matrix for them.
// Here the codes of its weights are split into leading bits, which all rows read, and a rest, which only those rows do
// that the leading bits do not exclude.
//
// A code c of a unit (the columns that share a scale s) is 2^r * h + e with 0 <= e < 2^r, so with activation codes x of
// scale t and m = (2^r - 1) / 2 the unit adds to the logit
//   s t sum (c - offset) x = s t (2^r sum (h - offset / 2^r) x + m sum x) + s t sum (e - m) x,
// where the first part is known from the leading bits and the second is no larger than |s| t m sum |x|. Rows whose
// upper bound is below a logit that is known cannot be larger: nothing is lost, whatever the weights and activations.

namespace pare::kernels {

/// What a unit's activations contribute: to the sum of leading bits, to what is known beside it, to what is not.
struct UnitBounds {
  float scale, middle, radius;  // 2^r t, m t sum x, m t sum |x|
};

struct BoundArgs {
  MultiplyArgs of;          // for a single activation row; its output is not written
  const UnitBounds* units;  // [columns / unit]
  float* most;              // [weight rows / 16, rounded up] what the largest logit of 16 rows can be
};

/// What a packing in two parts can do beside products.
struct HeadBounds {
  /// Bytes that bounding all rows reads.
  int64_t (*leading_bytes)(int64_t rows, int64_t columns);
  /// units [columns / 16 or fewer] of a prepared row.
  void (*prepare)(const std::byte* input, int64_t columns, UnitBounds* units);
  /// Writes most[g] for the groups of 16 rows in [row_begin, row_end): infinity where something is no number. Rows past
  /// the last count as zeros.
  void (*bound)(const BoundArgs& args);
  /// The same, as Packing::multiply_one_stream reads.
  void (*bound_one_stream)(const BoundArgs& args);
};

/// A type whose codes are split for output matrices.
struct SplitCode {
  DType type;
  int rest_bits;
  const char* layout;
};

/// Units of 16 columns of Q6_K are left with 5 bits, of 32 of Q8_0 with 6: about the same share of a weight's deviation
/// is unknown then. Types of fewer bits would exclude next to nothing.
consteval auto split_codes() {
  return std::to_array<SplitCode>({{DType::kQ6_K, 1, "q6_k_split"}, {DType::kQ8_0, 2, "q8_0_split"}});
}

/// Units have at least so many columns.
inline constexpr int64_t kLeastUnit = 16;

/// What float32 may lose of a bound however small its terms are, beside bound_slack.
inline constexpr float kLeastSlack = 0x1p-100f;

/// What the radius is multiplied with, so that no rounding matters. A sum of n products rounds by at most about n *
/// 2^-24 times the sum of their magnitudes; both the bound and the product that it is for have one fused multiply-add a
/// unit and a few roundings of its factors, and the magnitudes add up to at most 1 + offset / m radii.
float bound_slack(const BlockForm& form, int rest_bits, int64_t columns);

/// HeadBounds::prepare of a type.
void prepare_unit_bounds(const BlockForm& form, int rest_bits, const std::byte* input, int64_t columns, UnitBounds* to);

/// Packings in two parts that run under the given features, best first for each type.
std::vector<const Packing*> split_packings(CpuFeatures features);
/// The packing for an output matrix: in two parts if its type has one, otherwise as for any other.
const Packing& output_packing_for(DType type, CpuFeatures features);

}  // namespace pare::kernels
