#include "kernels/matmul.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "base/error.h"
#include "kernels/packing.h"
#include "kernels_testing.h"

namespace pare::kernels {
namespace {

constexpr DType kFloatTypes[] = {DType::kF32, DType::kF16, DType::kBF16};
const std::vector<DType> kBlockTypes = [] {
  std::vector<DType> types;
  for (const BlockForm& form : block_forms()) types.push_back(form.type);
  return types;
}();
const std::vector<DType> kAllTypes = [] {
  std::vector<DType> types = kBlockTypes;
  for (const DType type : kFloatTypes) types.push_back(type);
  return types;
}();

/// Error budgets against float64 on the same stored weights and the same prepared activations: rounding of sums only.
/// Float types add K products in 16 lanes; block types K / 32 exact blocks.
double error_budget(DType type, int64_t columns) {
  const double terms =
      info(type).block_size == 1 ? static_cast<double>(columns) / 16 + 4 : static_cast<double>(columns) / 16;
  return 0x1p-24 * (2 * std::sqrt(terms) + 4);
}

struct Case {
  DType type;
  int64_t rows, columns, inputs;
  std::string name() const {
    return std::string(info(type).name) + " [" + std::to_string(rows) + ", " + std::to_string(columns) + "] x " +
           std::to_string(inputs);
  }
};

/// What the kernel is to sum, in float64.
std::vector<double> reference(const Case& c, const std::vector<float>& weights, const std::vector<float>& input) {
  std::vector<double> x(input.begin(), input.end());
  if (info(c.type).block_size > 1) {
    const InputFormatInfo& format = input_format(InputFormat::kInt8Block, kCpuNone);
    std::vector<Int8Block> row(static_cast<size_t>(format.row_bytes(c.columns)) / sizeof(Int8Block) + 1);
    for (int64_t i = 0; i < c.inputs; ++i) {
      format.prepare(input.data() + i * c.columns, c.columns, reinterpret_cast<std::byte*>(row.data()));
      for (int64_t k = 0; k < c.columns; ++k)
        x[static_cast<size_t>(i * c.columns + k)] =
            static_cast<double>(row[static_cast<size_t>(k / 32)].codes[k % 32]) *
            row[static_cast<size_t>(k / 32)].scale;
    }
  }
  std::vector<double> out;
  for (int64_t i = 0; i < c.inputs; ++i)
    for (int64_t r = 0; r < c.rows; ++r) {
      double sum = 0;
      for (int64_t k = 0; k < c.columns; ++k)
        sum += x[static_cast<size_t>(i * c.columns + k)] * weights[static_cast<size_t>(r * c.columns + k)];
      out.push_back(sum);
    }
  return out;
}

/// Every path gives generic's bits, and those are within budget of float64.
void check(const Case& c, const std::vector<std::byte>& bytes, const std::vector<float>& input, bool against_float64) {
  SCOPED_TRACE(c.name());
  const auto packings = packings_here(c.type);
  Product generic(*packings.back(), c.type, bytes, c.rows, c.columns);
  const std::vector<float> expected = generic.multiply(input, c.inputs);
  if (against_float64) {
    // The largest of few results may be small beside what was summed.
    const double few = 1 + 8 / static_cast<double>(c.rows * c.inputs);
    EXPECT_LE(relative_error(expected, reference(c, decoded(c.type, bytes), input)),
              few * error_budget(c.type, c.columns));
  }
  for (const Packing* packing : packings) {
    if (packing == packings.back()) continue;
    expect_same(Product(*packing, c.type, bytes, c.rows, c.columns).multiply(input, c.inputs), expected,
                packing->name());
    if (::testing::Test::HasFatalFailure()) return;
  }
}

void check_random(const Case& c, Random& random) {
  const auto bytes = encoded(c.type, normal_values(random, c.rows * c.columns, 1 / std::sqrt(double(c.columns))));
  check(c, bytes, normal_values(random, c.inputs * c.columns), true);
}

TEST(Matmul, FloatTypesOfEveryLength) {
  Random random(fresh_seed());
  for (DType type : kFloatTypes) {
    for (int64_t columns = 1; columns <= 70; ++columns)
      check_random(
          {type, 1 + static_cast<int64_t>(random.below(40)), columns, 1 + static_cast<int64_t>(random.below(20))},
          random);
    for (int64_t columns : {172, 768, 1000, 2049, 8640})
      check_random(
          {type, 1 + static_cast<int64_t>(random.below(12)), columns, 1 + static_cast<int64_t>(random.below(20))},
          random);
  }
}

TEST(Matmul, BlockTypesOfEveryLength) {
  Random random(fresh_seed());
  for (DType type : kBlockTypes)
    for (int64_t columns : {32, 64, 96, 160, 224, 288, 1024, 1056, 8640})
      check_random({type, 1 + static_cast<int64_t>(random.below(70)), fitting(type, columns),
                    1 + static_cast<int64_t>(random.below(20))},
                   random);
}

TEST(Matmul, EveryNumberOfRows) {
  Random random(fresh_seed());
  for (DType type : kAllTypes) {
    for (int64_t rows = 1; rows <= 40; ++rows) check_random({type, rows, fitting(type, 96), 3}, random);
    for (int64_t inputs = 1; inputs <= 40; ++inputs) check_random({type, 37, fitting(type, 96), inputs}, random);
  }
}

// Large enough for every blocking of rows, columns and activations to wrap, with remainders.
TEST(Matmul, LargerThanEveryBlock) {
  Random random(fresh_seed());
  check_random({DType::kF32, 71, 2340, 131}, random);
  check_random({DType::kF16, 69, 2072, 133}, random);
  check_random({DType::kBF16, 67, 1040, 201}, random);
  for (DType type : kBlockTypes) check_random({type, 37, fitting(type, 2080), 197}, random);
}

// A row of the result depends on its own rows only.
TEST(Matmul, TogetherAsAlone) {
  Random random(fresh_seed());
  for (DType type : kAllTypes) {
    const int64_t rows = 75, columns = fitting(type, 1056), inputs = 29;
    const auto bytes = encoded(type, normal_values(random, rows * columns));
    const auto input = normal_values(random, inputs * columns);
    for (const Packing* packing : packings_here(type)) {
      SCOPED_TRACE(packing->name());
      Product product(*packing, type, bytes, rows, columns);
      const auto together = product.multiply(input, inputs);
      for (int64_t i = 0; i < inputs; i += 7) {
        const std::vector<float> one(input.begin() + i * columns, input.begin() + (i + 1) * columns);
        const std::vector<float> expected(together.begin() + i * rows, together.begin() + (i + 1) * rows);
        expect_same(product.multiply(one, 1), expected, "one activation row");
        std::vector<float> parts;
        for (int64_t begin = 0; begin < rows; begin += packing->row_group) {
          const auto part = product.multiply_part(one, 1, begin, std::min(rows, begin + packing->row_group));
          parts.insert(parts.end(), part.begin(), part.end());
        }
        expect_same(parts, expected, "row groups apart");
      }
    }
  }
}

TEST(Matmul, UnpacksWhatTheTypeDecodes) {
  Random random(fresh_seed());
  for (DType type : kAllTypes) {
    const int64_t rows = 37, columns = fitting(type, 96);
    const auto bytes = encoded(type, normal_values(random, rows * columns));
    const auto values = decoded(type, bytes);
    for (const Packing* packing : packings_here(type)) {
      Product product(*packing, type, bytes, rows, columns);
      for (int64_t row = 0; row < rows; ++row)
        expect_same(product.unpack_row(row), {values.begin() + row * columns, values.begin() + (row + 1) * columns},
                    packing->name());
    }
  }
}

std::vector<std::byte> blocks_of(DType type, int64_t count, uint16_t scale, uint8_t code) {
  std::vector<std::byte> bytes;
  for (int64_t b = 0; b < count; ++b) {
    bytes.push_back(static_cast<std::byte>(scale & 0xff));
    bytes.push_back(static_cast<std::byte>(scale >> 8));
    bytes.insert(bytes.end(), static_cast<size_t>(info(type).block_bytes - 2), static_cast<std::byte>(code));
  }
  return bytes;
}

// The largest sums a block can have, of either sign; -128 is a code that encoders avoid but files may hold.
TEST(Matmul, ExtremeCodesDoNotOverflow) {
  const int64_t rows = 17, columns = 64;
  for (float x : {1.0f, -1.0f})
    for (int code : {-128, -127, 127, 0, -1}) {
      const std::vector<float> input(columns, x);
      for (DType type : {DType::kQ8_0, DType::kQ4_0, DType::kQ5_0}) {
        const auto bytes = blocks_of(type, rows * columns / 32, 0x3c00, static_cast<uint8_t>(code));
        check({type, rows, columns, 1}, bytes, input, true);
      }
    }
}

// Every bit pattern of codes and scales, subnormal and infinite scales among them.
TEST(Matmul, RandomBytesOfBlocks) {
  Random random(fresh_seed());
  for (DType type : kBlockTypes)
    for (int round = 0; round < 8; ++round) {
      const Case c{type, 33, fitting(type, 160), 1 + static_cast<int64_t>(random.below(9))};
      std::vector<std::byte> bytes(static_cast<size_t>(info(type).bytes(c.rows * c.columns)));
      for (auto& b : bytes) b = static_cast<std::byte>(random.next());
      check(c, bytes, normal_values(random, c.inputs * c.columns), false);
    }
}

TEST(Matmul, RandomBitsOfFloats) {
  Random random(fresh_seed());
  for (DType type : kFloatTypes)
    for (int round = 0; round < 8; ++round) {
      const Case c{type, 9, 75, 1 + static_cast<int64_t>(random.below(9))};
      std::vector<std::byte> bytes(static_cast<size_t>(info(type).bytes(c.rows * c.columns)));
      for (auto& b : bytes) b = static_cast<std::byte>(random.next());
      check(c, bytes, normal_values(random, c.inputs * c.columns), false);
    }
}

TEST(Matmul, ExtremeActivations) {
  Random random(fresh_seed());
  constexpr float kMax = std::numeric_limits<float>::max(), kInf = std::numeric_limits<float>::infinity();
  const float extremes[] = {0.0f,      -0.0f, 1e-45f, -1e-40f, 1e-30f, 0x1p-100f,
                            0x1p-101f, kMax,  -kMax,  kInf,    -kInf,  std::numeric_limits<float>::quiet_NaN(),
                            1.0f};
  for (DType type : kAllTypes) {
    const int64_t rows = 19, columns = fitting(type, 96), inputs = 13;
    const auto bytes = encoded(type, normal_values(random, rows * columns));
    for (int density : {1, 8, 200}) {
      auto input = normal_values(random, inputs * columns);
      for (int64_t i = 0; i < inputs; ++i)
        for (int64_t k = 0; k < columns; ++k)
          if (random.below(static_cast<uint64_t>(density)) == 0)
            input[static_cast<size_t>(i * columns + k)] = extremes[i];
      check({type, rows, columns, inputs}, bytes, input, false);
    }
  }
}

TEST(InputFormat, EveryPathPreparesTheSame) {
  Random random(fresh_seed());
  for (int64_t columns : {32, 64, 96, 2048, 8640}) {
    const InputFormatInfo& generic = input_format(InputFormat::kInt8Block, kCpuNone);
    auto input = normal_values(random, columns, std::exp(random.normal() * 10));
    if (columns == 96) input[40] = std::numeric_limits<float>::quiet_NaN();
    std::vector<Int8Block> expected(static_cast<size_t>(columns) / 32), got(expected);
    ASSERT_EQ(static_cast<size_t>(generic.row_bytes(columns)), expected.size() * sizeof(Int8Block));
    generic.prepare(input.data(), columns, reinterpret_cast<std::byte*>(expected.data()));
    for (CpuFeatures path : paths_here()) {
      input_format(InputFormat::kInt8Block, path)
          .prepare(input.data(), columns, reinterpret_cast<std::byte*>(got.data()));
      for (size_t b = 0; b < expected.size(); ++b) {
        const Int8Block &e = expected[b], &g = got[b];
        ASSERT_EQ(std::memcmp(e.codes, g.codes, 32), 0) << describe(path);
        ASSERT_TRUE(same_bits(e.scale, g.scale)) << describe(path);
        ASSERT_EQ(e.minus_sum, g.minus_sum) << describe(path);
        ASSERT_TRUE(same_bits(e.weighted_sum, g.weighted_sum)) << describe(path);
        for (int half : {0, 1}) {
          ASSERT_EQ(e.minus_half_sum[half], g.minus_half_sum[half]) << describe(path);
          ASSERT_TRUE(same_bits(e.weighted_half_sum[half], g.weighted_half_sum[half])) << describe(path);
        }
      }
    }
  }
}

TEST(InputFormat, BlocksAreNearestCodes) {
  Random random(fresh_seed());
  const auto input = normal_values(random, 3200);
  const InputFormatInfo& format = input_format(InputFormat::kInt8Block, kCpuNone);
  std::vector<Int8Block> blocks(static_cast<size_t>(format.row_bytes(3200)) / sizeof(Int8Block));
  format.prepare(input.data(), 3200, reinterpret_cast<std::byte*>(blocks.data()));
  for (size_t b = 0; b < 100; ++b) {
    float absmax = 0;
    int sum = 0, largest = 0;
    for (size_t k = 0; k < 32; ++k) absmax = std::max(absmax, std::abs(input[32 * b + k]));
    EXPECT_EQ(blocks[b].scale, absmax / 127);
    for (size_t k = 0; k < 32; ++k) {
      EXPECT_NEAR(blocks[b].codes[k], input[32 * b + k] * 127.0 / absmax, 0.5 + 1e-4);
      sum += blocks[b].codes[k];
      largest = std::max(largest, std::abs(int{blocks[b].codes[k]}));
    }
    EXPECT_EQ(blocks[b].minus_sum, -sum);
    EXPECT_EQ(blocks[b].minus_half_sum[0] + blocks[b].minus_half_sum[1], -sum);
    EXPECT_EQ(blocks[b].weighted_sum, blocks[b].scale * static_cast<float>(-sum));
    EXPECT_EQ(largest, 127);
  }
}

TEST(InputFormat, TiesGoToEvenCodes) {
  std::vector<float> input(32, 0.0f);
  input[0] = 127;  // codes are the values
  const float ties[] = {0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 126.5f};
  const int expected[] = {0, 2, 2, 0, -2, -2, 126};
  std::copy(std::begin(ties), std::end(ties), input.begin() + 1);
  for (CpuFeatures path : paths_here()) {
    Int8Block blocks[2];
    input_format(InputFormat::kInt8Block, path).prepare(input.data(), 32, reinterpret_cast<std::byte*>(blocks));
    for (size_t i = 0; i < 7; ++i) EXPECT_EQ(blocks[0].codes[i + 1], expected[i]) << describe(path);
  }
}

// A block with a NaN or an infinity makes NaN of every product that reads it, and of no other.
TEST(InputFormat, NonFiniteBlocksAreNan) {
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN(),
                    std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()})
    for (CpuFeatures path : paths_here()) {
      std::vector<float> input(64, 1.0f);
      input[37] = bad;
      Int8Block blocks[4];
      input_format(InputFormat::kInt8Block, path).prepare(input.data(), 64, reinterpret_cast<std::byte*>(blocks));
      EXPECT_EQ(blocks[0].minus_sum, -32 * 127);
      EXPECT_TRUE(std::isnan(blocks[1].scale));
      EXPECT_EQ(blocks[1].minus_sum, 0);
      EXPECT_TRUE(std::isnan(blocks[1].weighted_sum) && std::isnan(blocks[1].weighted_half_sum[1]));
      for (int8_t code : blocks[1].codes) EXPECT_EQ(code, 0);
    }
}

TEST(Dispatch, EveryTypeHasAKernelForEveryMachine) {
  for (const DTypeInfo& type : all_dtypes()) {
    const Packing& generic = packing_for(type.type, kCpuNone);
    EXPECT_NE(generic.name().find("generic"), std::string::npos);
    for (CpuFeatures path : paths_here()) {
      const Packing& packing = packing_for(type.type, path);
      EXPECT_EQ(std::string(packing.name()).rfind(std::string(type.name) + ".", 0), 0u) << packing.name();
      EXPECT_EQ(packing.in_place, packing.pack == nullptr);
    }
  }
}

TEST(Dispatch, BetterPathsComeFirst) {
  // A row that an earlier one always hides would never run.
  const auto table = kernel_table();
  for (size_t i = 0; i < table.size(); ++i)
    for (size_t j = 0; j < i; ++j)
      if (table[j].source == table[i].source) {
        EXPECT_NE(table[j].required & table[i].required, table[j].required) << table[i].packing->name();
      }
}

}  // namespace
}  // namespace pare::kernels
