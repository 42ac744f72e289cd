#include "kernels/head.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "base/half.h"
#include "kernels/packing.h"
#include "kernels_testing.h"

namespace pare::kernels {
namespace {

std::vector<SplitCode> split_types() {
  constexpr auto kAll = split_codes();
  return {kAll.begin(), kAll.end()};
}

/// The bound of each row in float64, from the file's blocks: middle + radius, and the radius.
struct Bound {
  double most = 0, radius = 0;
};
std::vector<Bound> reference(const SplitCode& split, const std::vector<std::byte>& bytes, int64_t rows, int64_t columns,
                             const std::vector<float>& input) {
  const BlockForm& form = *find_block_form(split.type);
  const InputFormatInfo& format = input_format(InputFormat::kInt8Block, kCpuNone);
  std::vector<Int8Block> x(static_cast<size_t>(format.row_bytes(columns)) / sizeof(Int8Block));
  format.prepare(input.data(), columns, reinterpret_cast<std::byte*>(x.data()));
  const int rest = (1 << split.rest_bits) - 1;
  std::vector<Bound> bounds(static_cast<size_t>(rows));
  const std::byte* from = bytes.data();
  for (Bound& bound : bounds) {
    for (int64_t first = 0; first < columns; first += form.columns, from += info(split.type).block_bytes) {
      BlockParts parts{};
      form.split(from, parts);
      for (int k = 0; k < form.columns; ++k) {
        const Int8Block& block = x[static_cast<size_t>((first + k) / 32)];
        const double activation = static_cast<double>(block.codes[(first + k) % 32]) * static_cast<double>(block.scale);
        const double scale = static_cast<double>(f16_to_float(parts.d)) *
                             (form.scale_bits ? static_cast<double>(parts.scales[k / form.unit]) : 1.0);
        bound.most += scale * ((parts.codes[k] & ~rest) + rest / 2.0 - form.offset) * activation;
        bound.radius += std::abs(scale) * rest / 2 * std::abs(activation);
      }
    }
    bound.most += bound.radius;
  }
  return bounds;
}

/// No bound is below a product that it is for; of what is no number there is none.
void check(const Packing& packing, const std::vector<std::byte>& bytes, int64_t rows, int64_t columns,
           const std::vector<float>& input) {
  SCOPED_TRACE(packing.name());
  Product product(packing, packing.source, bytes, rows, columns);
  const auto exact = product.multiply(input, 1), most = product.bounds(input);
  for (size_t row = 0; row < exact.size(); ++row) {
    const float bound = most[row / kInterleavedRows];
    if (std::isnan(exact[row])) {
      ASSERT_EQ(bound, std::numeric_limits<float>::infinity()) << "row " << row;
    } else {
      ASSERT_GE(bound, exact[row]) << "row " << row;
    }
  }
}

TEST(Head, BoundsAreThoseOfTheLeadingBits) {
  Random random(fresh_seed());
  for (const SplitCode& split : split_types()) {
    for (const auto& [rows, around] : {std::pair{1, 32}, {16, 96}, {17, 288}, {75, 2048}, {130, 1056}, {37, 8640}}) {
      const int64_t columns = fitting(split.type, around);
      const auto bytes = encoded(split.type, normal_values(random, rows * columns, 1 / std::sqrt(double(columns))));
      const auto input = normal_values(random, columns);
      const auto expected = reference(split, bytes, rows, columns, input);
      for (const Packing* packing : split_packings_here(split.type)) {
        check(*packing, bytes, rows, columns, input);
        const auto most = Product(*packing, split.type, bytes, rows, columns).bounds(input);
        for (size_t group = 0; group < most.size(); ++group) {
          double largest = -std::numeric_limits<double>::infinity(), radius = 0;
          for (size_t row = group * 16; row < std::min<size_t>(group * 16 + 16, expected.size()); ++row) {
            largest = std::max(largest, expected[row].most);
            radius = std::max(radius, expected[row].radius);
          }
          // Rows past the last are zeros.
          if (group + 1 == most.size() && rows % 16) largest = std::max(largest, 0.0);
          EXPECT_GE(most[group], largest) << packing->name();
          EXPECT_LE(most[group], largest + 0.02 * radius) << packing->name();
        }
      }
    }
  }
}

TEST(Head, NothingExceedsItsBound) {
  Random random(fresh_seed());
  for (const SplitCode& split : split_types())
    for (int round = 0; round < 24; ++round) {
      const int64_t rows = 1 + static_cast<int64_t>(random.below(70)), columns = fitting(split.type, 32 * (1 + round));
      std::vector<std::byte> bytes(static_cast<size_t>(info(split.type).bytes(rows * columns)));
      for (auto& b : bytes) b = static_cast<std::byte>(random.next());
      const auto input = normal_values(random, columns, std::exp(random.normal() * 10));
      for (const Packing* packing : split_packings_here(split.type)) check(*packing, bytes, rows, columns, input);
    }
}

// Activations that have the sign of what a row's rest adds reach its bound.
TEST(Head, BoundsAreReached) {
  Random random(fresh_seed());
  for (const SplitCode& split : split_types()) {
    const BlockForm& form = *find_block_form(split.type);
    const int64_t columns = 16384;
    const int rest = (1 << split.rest_bits) - 1;
    const auto bytes = encoded(split.type, normal_values(random, columns));
    std::vector<float> input;
    for (int64_t b = 0; b < columns / form.columns; ++b) {
      BlockParts parts{};
      form.split(bytes.data() + b * info(split.type).block_bytes, parts);
      for (int k = 0; k < form.columns; ++k) {
        const float scale =
            f16_to_float(parts.d) * (form.scale_bits ? static_cast<float>(parts.scales[k / form.unit]) : 1);
        const int low = parts.codes[k] & rest;
        input.push_back(low == 0 ? std::copysign(1.0f, -scale) : low == rest ? std::copysign(1.0f, scale) : 0);
      }
    }
    const Bound expected = reference(split, bytes, 1, columns, input)[0];
    ASSERT_GT(expected.most, 0) << "rows past the last are zeros";
    for (const Packing* packing : split_packings_here(split.type)) {
      Product product(*packing, split.type, bytes, 1, columns);
      const float exact = product.multiply(input, 1)[0], bound = product.bounds(input)[0];
      EXPECT_GE(bound, exact) << packing->name();
      EXPECT_LE(bound, exact + 0.03 * expected.radius) << packing->name();
    }
  }
}

TEST(Head, ExtremeActivations) {
  Random random(fresh_seed());
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (const SplitCode& split : split_types()) {
    const int64_t rows = 19, columns = fitting(split.type, 96);
    const auto bytes = encoded(split.type, normal_values(random, rows * columns));
    for (float extreme : {0.0f, 1e-40f, 0x1p-100f, 1e30f, std::numeric_limits<float>::max(), kInf, -kInf,
                          std::numeric_limits<float>::quiet_NaN()}) {
      auto input = normal_values(random, columns);
      input[static_cast<size_t>(random.below(static_cast<uint64_t>(columns)))] = extreme;
      for (const Packing* packing : split_packings_here(split.type)) check(*packing, bytes, rows, columns, input);
      std::fill(input.begin(), input.end(), extreme);
      for (const Packing* packing : split_packings_here(split.type)) check(*packing, bytes, rows, columns, input);
    }
  }
}

TEST(Head, TypesThatAreNotSplitAreAsElsewhere) {
  for (const DTypeInfo& type : all_dtypes()) {
    for (CpuFeatures path : paths_here()) {
      const Packing& packing = output_packing_for(type.type, path);
      const bool split = type.type == DType::kQ6_K || type.type == DType::kQ8_0;
      EXPECT_EQ(packing.bounds != nullptr, split) << type.name;
      if (split) {
        EXPECT_LT(packing.bounds->leading_bytes(64, 512), packing.packed_bytes(64, 512));
      } else {
        EXPECT_EQ(&packing, &packing_for(type.type, path)) << type.name;
      }
    }
  }
}

}  // namespace
}  // namespace pare::kernels
