#include "tensor/dtype.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>
#include <vector>

#include "base/half.h"
#include "base/random.h"
#include "tensor/block_parts.h"

namespace pare {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<std::byte> encoded(DType type, const std::vector<float>& values) {
  const auto count = static_cast<int64_t>(values.size());
  // A byte of offset, as safetensors may place tensors.
  std::vector<std::byte> bytes(static_cast<size_t>(info(type).bytes(count)) + 1);
  info(type).encode(values.data(), bytes.data() + 1, count);
  bytes.erase(bytes.begin());
  return bytes;
}

std::vector<float> decoded(DType type, const std::vector<std::byte>& bytes) {
  std::vector<std::byte> shifted(bytes.size() + 1);
  std::copy(bytes.begin(), bytes.end(), shifted.begin() + 1);
  const DTypeInfo& row = info(type);
  std::vector<float> values(bytes.size() / static_cast<size_t>(row.block_bytes) * static_cast<size_t>(row.block_size));
  row.decode(shifted.data() + 1, values.data(), static_cast<int64_t>(values.size()));
  return values;
}

uint16_t scale_of(const std::vector<std::byte>& block) {
  uint16_t bits;
  std::memcpy(&bits, block.data(), sizeof bits);
  return bits;
}

int at(const std::vector<std::byte>& bytes, size_t i) { return static_cast<int>(bytes[i]); }

std::vector<float> block_of(std::initializer_list<float> first) {
  std::vector<float> values(first);
  values.resize(32);
  return values;
}

TEST(DTypes, AreFoundByEveryName) {
  for (const DTypeInfo& row : all_dtypes()) {
    EXPECT_EQ(&info(row.type), &row);
    EXPECT_EQ(find_dtype(row.name), &row);
    EXPECT_EQ(find_dtype_gguf(row.gguf_id), &row);
    if (row.safetensors) {
      EXPECT_EQ(find_dtype_safetensors(row.safetensors), &row);
    }
  }
  EXPECT_EQ(find_dtype("Q8_0"), &info(DType::kQ8_0));
  EXPECT_EQ(find_dtype("q8"), nullptr);
  EXPECT_EQ(find_dtype(""), nullptr);
  EXPECT_EQ(find_dtype_gguf(16), nullptr);
  EXPECT_EQ(find_dtype_safetensors("I64"), nullptr);
  EXPECT_EQ(
      dtype_names(),
      "f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q2_k, q3_k, q4_k, q5_k, q6_k, iq4_nl, iq4_xs, tq1_0, tq2_0, q2_0");
}

TEST(DTypes, HaveTheNumbersOfTheFormats) {
  EXPECT_EQ(find_dtype_gguf(0)->type, DType::kF32);
  EXPECT_EQ(find_dtype_gguf(1)->type, DType::kF16);
  EXPECT_EQ(find_dtype_gguf(2)->type, DType::kQ4_0);
  EXPECT_EQ(find_dtype_gguf(8)->type, DType::kQ8_0);
  EXPECT_EQ(find_dtype_gguf(30)->type, DType::kBF16);
  EXPECT_EQ(find_dtype_gguf(12)->type, DType::kQ4_K);
  EXPECT_EQ(find_dtype_gguf(23)->type, DType::kIQ4_XS);
  EXPECT_EQ(find_dtype_gguf(42)->type, DType::kQ2_0);
  EXPECT_EQ(info(DType::kQ8_0).gguf_file_type, 7);
  EXPECT_EQ(info(DType::kBF16).gguf_file_type, 32);
  EXPECT_DOUBLE_EQ(info(DType::kQ8_0).bits_per_value(), 8.5);
  EXPECT_DOUBLE_EQ(info(DType::kQ4_0).bits_per_value(), 4.5);
  EXPECT_DOUBLE_EQ(info(DType::kQ6_K).bits_per_value(), 6.5625);
  EXPECT_DOUBLE_EQ(info(DType::kQ2_0).bits_per_value(), 2.25);
}

TEST(DTypes, EncodeNothing) {
  for (const DTypeInfo& row : all_dtypes()) {
    row.encode(nullptr, nullptr, 0);
    row.decode(nullptr, nullptr, 0);
  }
}

TEST(F16, DecodesEveryValueAsTheSoftwareConversionDoes) {
  std::vector<std::byte> bytes(2 * 65536);
  for (size_t i = 0; i < 65536; ++i) {
    const auto bits = static_cast<uint16_t>(i);
    std::memcpy(bytes.data() + 2 * i, &bits, sizeof bits);
  }
  const std::vector<float> values = decoded(DType::kF16, bytes);
  for (size_t i = 0; i < 65536; ++i) {
    const float expected = f16_to_float(static_cast<uint16_t>(i));
    ASSERT_EQ(std::bit_cast<uint32_t>(values[i]), std::bit_cast<uint32_t>(expected)) << i;
  }
}

// Every exponent with every pattern of the bits that decide rounding, both signs.
std::vector<float> rounding_cases() {
  std::vector<float> values;
  for (uint32_t top = 0; top < 1u << 16; ++top) {
    for (const uint32_t low :
         {0x0000u, 0x0001u, 0x0fffu, 0x1000u, 0x1001u, 0x2fffu, 0x3000u, 0x3001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      values.push_back(std::bit_cast<float>(top << 16 | low));
    }
  }
  return values;
}

TEST(F16, EncodesAsTheSoftwareConversionDoes) {
  const std::vector<float> values = rounding_cases();
  const std::vector<std::byte> bytes = encoded(DType::kF16, values);
  for (size_t i = 0; i < values.size(); ++i) {
    uint16_t bits;
    std::memcpy(&bits, bytes.data() + 2 * i, sizeof bits);
    ASSERT_EQ(bits, float_to_f16(values[i])) << values[i];
  }
}

TEST(BF16, EncodesAndDecodesAsTheSoftwareConversionDoes) {
  const std::vector<float> values = rounding_cases();
  const std::vector<std::byte> bytes = encoded(DType::kBF16, values);
  const std::vector<float> back = decoded(DType::kBF16, bytes);
  for (size_t i = 0; i < values.size(); ++i) {
    uint16_t bits;
    std::memcpy(&bits, bytes.data() + 2 * i, sizeof bits);
    ASSERT_EQ(bits, float_to_bf16(values[i])) << values[i];
    ASSERT_EQ(std::bit_cast<uint32_t>(back[i]), static_cast<uint32_t>(bits) << 16) << values[i];
  }
}

TEST(F32, KeepsEveryBit) {
  const std::vector<float> values = rounding_cases();
  const std::vector<float> back = decoded(DType::kF32, encoded(DType::kF32, values));
  EXPECT_EQ(std::memcmp(values.data(), back.data(), values.size() * sizeof(float)), 0);
}

TEST(Q8_0, RoundsHalfAwayFromZero) {
  // Scale 1: the largest magnitude is 127.
  const std::vector<std::byte> block = encoded(DType::kQ8_0, block_of({127, 0.5f, -0.5f, 1.5f, -1.5f, 0.49f, -126.5f}));
  EXPECT_EQ(scale_of(block), float_to_f16(1.0f));
  const int expected[] = {127, 1, -1, 2, -2, 0, -127};
  for (size_t i = 0; i < std::size(expected); ++i) EXPECT_EQ(static_cast<int8_t>(at(block, 2 + i)), expected[i]) << i;
  EXPECT_EQ(at(block, 33), 0);
}

TEST(Q4_0, GivesTheLargestMagnitudeMinusEight) {
  const std::vector<std::byte> block = encoded(DType::kQ4_0, block_of({8, -7, -8, 7.5f, 0.5f, -0.5f}));
  // -8 comes second among the largest, so 8 decides: d = -1 and values are negated.
  EXPECT_EQ(scale_of(block), float_to_f16(-1.0f));
  const int expected[] = {0, 15, 15, 1, 8, 9, 8};
  for (size_t i = 0; i < std::size(expected); ++i) EXPECT_EQ(at(block, 2 + i) & 15, expected[i]) << i;
  EXPECT_EQ(at(block, 2) >> 4, 8);  // value 16 is 0
}

TEST(Q4_0, KeepsValuesOfTheSecondHalfInHighBits) {
  std::vector<float> values(32);
  for (size_t i = 0; i < 32; ++i) values[i] = static_cast<float>(static_cast<int>(i % 16) - 8);
  const std::vector<float> back = decoded(DType::kQ4_0, encoded(DType::kQ4_0, values));
  EXPECT_EQ(back, values);
}

std::vector<DType> block_types() {
  std::vector<DType> types;
  for (const DTypeInfo& row : all_dtypes()) {
    if (row.block_size > 1) types.push_back(row.type);
  }
  return types;
}

// `first`, then zeros up to the end of a block.
std::vector<float> block_of(DType type, std::initializer_list<float> first) {
  std::vector<float> values(first);
  values.resize(static_cast<size_t>(info(type).block_size));
  return values;
}

TEST(BlockTypes, StoreZeros) {
  for (const DType type : block_types()) {
    const std::vector<float> zeros = block_of(type, {});
    EXPECT_EQ(decoded(type, encoded(type, zeros)), zeros) << info(type).name;
  }
}

TEST(BlockTypes, StoreSubnormalBlocksAsZeros) {
  for (const DType type : block_types()) {
    const std::vector<float> values = block_of(type, {1e-44f, -1e-43f, 3e-45f});
    for (const float value : decoded(type, encoded(type, values))) EXPECT_EQ(value, 0.0f) << info(type).name;
  }
}

TEST(BlockTypes, KeepNanAndInfinityVisible) {
  for (const DType type : block_types()) {
    for (const float value : {kNan, kInfinity, -kInfinity}) {
      const std::vector<float> back = decoded(type, encoded(type, block_of(type, {1, value, 2})));
      EXPECT_FALSE(std::isfinite(back[1])) << info(type).name << " " << value;
    }
  }
}

TEST(BlockTypes, ShowThatValuesAreBeyondTheirScales) {
  // Scales in f16 reach 65504.
  for (const DType type : block_types()) {
    for (const float value : {1e12f, -3e20f, 3e38f}) {
      const std::vector<float> back = decoded(type, encoded(type, block_of(type, {1, value, -2, value / 2})));
      EXPECT_FALSE(std::isfinite(back[1])) << info(type).name << " " << value;
    }
  }
}

TEST(BlockTypes, ErrLittleAtAnyMagnitude) {
  // Powers of two that an f16 scale can hold change nothing but the scale.
  Random random(3);
  std::vector<float> values(256);
  for (float& value : values) value = static_cast<float>(random.normal());
  for (const DType type : block_types()) {
    const std::vector<float> expected = decoded(type, encoded(type, values));
    for (const float factor : {0x1p-3f, 0x1p5f, 0x1p9f}) {
      std::vector<float> scaled = values;
      for (float& value : scaled) value *= factor;
      const std::vector<float> back = decoded(type, encoded(type, scaled));
      for (size_t i = 0; i < back.size(); ++i) ASSERT_EQ(back[i], expected[i] * factor) << info(type).name << " " << i;
    }
  }
}

double relative_rms_error(DType type, const std::vector<float>& values) {
  const std::vector<float> back = decoded(type, encoded(type, values));
  double error = 0;
  double size = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    error += (double{back[i]} - values[i]) * (double{back[i]} - values[i]);
    size += double{values[i]} * values[i];
  }
  return std::sqrt(error / size);
}

TEST(BlockTypes, KeepTheirErrorBudgets) {
  // The largest relative root mean square error allowed on Gaussian rows: 5 percent more than when the encoder was
  // made.
  struct Budget {
    DType type;
    double error;
  };
  const Budget budgets[] = {{DType::kQ8_0, 0.0056},  {DType::kQ4_0, 0.0945},   {DType::kQ4_1, 0.0820},
                            {DType::kQ5_0, 0.0447},  {DType::kQ5_1, 0.0397},   {DType::kQ2_K, 0.2766},
                            {DType::kQ3_K, 0.1505},  {DType::kQ4_K, 0.0735},   {DType::kQ5_K, 0.0363},
                            {DType::kQ6_K, 0.0174},  {DType::kIQ4_NL, 0.0768}, {DType::kIQ4_XS, 0.0775},
                            {DType::kTQ1_0, 0.8475}, {DType::kTQ2_0, 0.8475},  {DType::kQ2_0, 0.7529}};
  Random random(4);
  std::vector<float> values(256 * 256);
  for (float& value : values) value = static_cast<float>(random.normal());
  std::set<DType> held;
  for (const auto& [type, budget] : budgets) {
    EXPECT_LE(relative_rms_error(type, values), budget) << info(type).name;
    EXPECT_GE(relative_rms_error(type, values), budget * 0.9) << info(type).name << " became better: lower its budget";
    held.insert(type);
  }
  for (const DType type : block_types()) EXPECT_TRUE(held.contains(type)) << info(type).name;
}

TEST(BlockTypes, ErrWithinHalfAStep) {
  Random random(1);
  std::vector<float> values(64 * 32);
  for (float& value : values) value = static_cast<float>(random.normal());
  for (const DType type : {DType::kQ8_0, DType::kQ4_0}) {
    const std::vector<float> back = decoded(type, encoded(type, values));
    for (size_t block = 0; block < 64; ++block) {
      float largest = 0;
      for (size_t i = 0; i < 32; ++i) largest = std::max(largest, std::fabs(values[block * 32 + i]));
      // Half a step, and what rounding the scale to f16 moves 127 steps (2^-11 each).
      // Q4_0 reaches only to 7 steps on the side of the other sign, so an equal magnitude there errs by a whole step.
      const float bound = type == DType::kQ8_0 ? largest / 127 * 0.57f : largest / 8 * 1.01f;
      for (size_t i = block * 32; i < block * 32 + 32; ++i) {
        EXPECT_LE(std::fabs(back[i] - values[i]), bound) << info(type).name << " value " << i;
      }
    }
  }
}

TEST(BlockTypes, EncodeEachBlockAlone) {
  Random random(2);
  for (const DType type : block_types()) {
    const auto size = static_cast<size_t>(info(type).block_size);
    std::vector<float> values(5 * size);
    for (float& value : values) value = static_cast<float>(random.normal());
    const std::vector<std::byte> all = encoded(type, values);
    std::vector<std::byte> joined;
    for (size_t block = 0; block < 5; ++block) {
      const auto first = values.begin() + static_cast<ptrdiff_t>(block * size);
      const std::vector<std::byte> one = encoded(type, std::vector<float>(first, first + static_cast<ptrdiff_t>(size)));
      joined.insert(joined.end(), one.begin(), one.end());
    }
    EXPECT_EQ(all, joined) << info(type).name;
  }
}

TEST(BlockForms, HoldAsManyValuesAsTheTypeTableSays) {
  for (const BlockForm& form : block_forms()) EXPECT_EQ(form.columns, info(form.type).block_size);
}

TEST(DTypes, GiveWayToSmallerBlocks) {
  EXPECT_EQ(fitting_dtype(DType::kQ4_K, 512), DType::kQ4_K);
  EXPECT_EQ(fitting_dtype(DType::kQ4_K, 576), DType::kQ5_0);
  EXPECT_EQ(fitting_dtype(DType::kQ6_K, 576), DType::kQ8_0);
  EXPECT_EQ(fitting_dtype(DType::kTQ2_0, 576), DType::kQ2_0);
  EXPECT_EQ(fitting_dtype(DType::kTQ2_0, 96), DType::kQ4_0);
  EXPECT_EQ(fitting_dtype(DType::kQ8_0, 40), std::nullopt);
  EXPECT_EQ(fitting_dtype(DType::kF16, 41), DType::kF16);
}

}  // namespace
}  // namespace pare
