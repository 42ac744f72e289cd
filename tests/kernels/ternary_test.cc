#include "kernels/ternary.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "kernels/elementwise.h"
#include "kernels/family.h"
#include "kernels/packing.h"
#include "kernels_testing.h"

namespace pare::kernels {
namespace {

/// Every packing that this machine can run, of every layout and instruction set.
std::vector<const Packing*> all_packings() {
  std::vector<const Packing*> found;
  for (const ProductsRow& row : family_tables().ternary) {
    if ((machine_cpu_features() & row.required) != row.required) continue;
    for (const Packing& packing : *row.packings) found.push_back(&packing);
  }
  return found;
}

struct Case {
  int64_t rows, columns, inputs;
  std::vector<uint8_t> codes;  // w + 1: [rows, columns]
  std::vector<float> input;    // [inputs, columns]
  float scale;
};

Case random_case(Random& random, int64_t rows, int64_t columns, int64_t inputs) {
  Case c{rows, columns, inputs, std::vector<uint8_t>(static_cast<size_t>(rows * columns)), {}, 0};
  for (uint8_t& code : c.codes) code = static_cast<uint8_t>(random.below(3));
  c.input = normal_values(random, inputs * columns);
  c.scale = 0.01f + static_cast<float>(random.below(100));
  return c;
}

/// The definition, in int64 and then as ternary.h says; NaN wherever an activation is not finite.
std::vector<float> reference(const Case& c) {
  std::vector<float> out;
  for (int64_t i = 0; i < c.inputs; ++i) {
    const float* x = c.input.data() + i * c.columns;
    float absmax = 0;
    for (int64_t k = 0; k < c.columns; ++k) absmax = std::max(absmax, std::fabs(x[k]));
    if (!std::all_of(x, x + c.columns, [](float value) { return std::isfinite(value); })) {
      out.insert(out.end(), static_cast<size_t>(c.rows), std::numeric_limits<float>::quiet_NaN());
      continue;
    }
    const float s = 127.0f / std::max(absmax, 1e-5f);
    for (int64_t r = 0; r < c.rows; ++r) {
      int64_t sum = 0;
      for (int64_t k = 0; k < c.columns; ++k) {
        const auto code = static_cast<int64_t>(std::clamp(std::nearbyint(x[k] * s), -128.0f, 127.0f));
        sum += code * (static_cast<int64_t>(c.codes[static_cast<size_t>(r * c.columns + k)]) - 1);
      }
      out.push_back(static_cast<float>(sum) * (c.scale * (1.0f / s)));
    }
  }
  return out;
}

std::vector<float> product(const Packing& packing, const Case& c, int64_t row_begin, int64_t row_end) {
  Buffer<std::byte> packed(static_cast<size_t>(packing.packed_bytes(c.rows, c.columns) + kPackedSlack));
  std::memset(packed.data(), 0xff, packed.size());
  // In two parts, as threads do.
  const int64_t middle = c.rows / 2 / packing.row_group * packing.row_group;
  packing.pack_codes(c.codes.data(), c.columns, 0, middle, packed.data());
  packing.pack_codes(c.codes.data() + middle * c.columns, c.columns, middle, c.rows, packed.data());
  const InputFormatInfo& format = input_format(packing.input_for(c.inputs), machine_cpu_features());
  const int64_t stride = format.row_bytes(c.columns);
  Buffer<std::byte> input(static_cast<size_t>(stride * c.inputs));
  for (int64_t i = 0; i < c.inputs; ++i)
    format.prepare(c.input.data() + i * c.columns, c.columns, input.data() + i * stride);
  constexpr float kUntouched = -12345;
  std::vector<float> output(static_cast<size_t>(c.inputs * c.rows), kUntouched);
  MultiplyArgs args{.weights = packed.data(),
                    .weight_rows = c.rows,
                    .columns = c.columns,
                    .input = input.data(),
                    .input_stride = stride,
                    .input_rows = c.inputs,
                    .output = output.data(),
                    .output_stride = c.rows,
                    .row_begin = row_begin,
                    .row_end = row_end,
                    .scale = c.scale};
  packing.multiply(args);
  if (packing.multiply_one_stream && c.inputs == 1) {
    std::vector<float> other(output.size(), kUntouched);
    args.output = other.data();
    packing.multiply_one_stream(args);
    EXPECT_EQ(std::memcmp(other.data(), output.data(), output.size() * sizeof(float)), 0)
        << packing.name() << " in one stream";
  }
  for (int64_t i = 0; i < c.inputs; ++i)
    for (int64_t r = 0; r < c.rows; ++r)
      if (r < row_begin || r >= row_end) {
        EXPECT_EQ(output[static_cast<size_t>(i * c.rows + r)], kUntouched);
      }
  return output;
}

void check(const Case& c) {
  const std::vector<float> expected = reference(c);
  for (const Packing* packing : all_packings()) {
    expect_same(product(*packing, c, 0, c.rows), expected,
                packing->name() + " [" + std::to_string(c.rows) + ", " + std::to_string(c.columns) + "] x " +
                    std::to_string(c.inputs));
    if (::testing::Test::HasFatalFailure()) return;
  }
}

TEST(Ternary, EveryMachineHasEveryLayoutItPromises) {
  std::string names;
  for (const Packing* packing : ternary_packings(machine_cpu_features())) names += packing->name() + " ";
  std::printf("packings here: %s\n", names.c_str());
  for (const CpuFeatures features : paths_here()) {
    const auto packings = ternary_packings(features);
    ASSERT_FALSE(packings.empty());
    EXPECT_STREQ(packings.front()->layout, "i2");
  }
}

TEST(Ternary, EveryPackingIsExact) {
  Random random(fresh_seed());
  for (int64_t columns : {1, 3, 4, 11, 12, 13, 16, 47, 63, 64, 65, 128, 255, 384, 575, 576, 577, 1153, 2560, 8640})
    for (int64_t inputs : {1, 2, 3, 5, 6, 7})
      check(random_case(random, 1 + static_cast<int64_t>(random.below(150)), columns, inputs));
}

// Rows end anywhere in a strip, and what lies behind its last block is not theirs.
TEST(Ternary, EveryEndOfAStrip) {
  Random random(fresh_seed());
  for (int64_t columns = 1; columns <= 200; ++columns)
    for (int64_t inputs : {1, 9, 17}) check(random_case(random, 33, columns, inputs));
}

TEST(Ternary, ManyActivationRows) {
  Random random(fresh_seed());
  for (int64_t inputs : {8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 100, 192, 193, 257})
    check(random_case(random, 1 + static_cast<int64_t>(random.below(140)), 1 + static_cast<int64_t>(random.below(1300)),
                      inputs));
  // Panels of every length.
  for (int64_t columns : {2687, 2688, 2689, 2752, 6000}) check(random_case(random, 49, columns, 35));
}

TEST(Ternary, PartsOfTheRowsLeaveTheRestAlone) {
  Random random(fresh_seed());
  for (int64_t inputs : {1, 20}) {
    const Case c = random_case(random, 100, 300, inputs);
    const std::vector<float> expected = reference(c);
    for (const Packing* packing : all_packings()) {
      const int64_t begin = packing->row_group;
      const std::vector<float> got = product(*packing, c, begin, 84);
      for (int64_t i = 0; i < inputs; ++i)
        for (int64_t r = begin; r < 84; ++r)
          ASSERT_TRUE(same_bits(got[static_cast<size_t>(i * 100 + r)], expected[static_cast<size_t>(i * 100 + r)]))
              << packing->name() << " " << i << " " << r;
    }
  }
}

TEST(Ternary, ExtremeSumsDoNotWrap) {
  for (int64_t columns : {65536, 65535}) {
    for (int sign : {1, -1}) {
      for (int weight : {0, 1, 2}) {
        for (int64_t inputs : {1, 12, 33}) {
          Case c{17,
                 columns,
                 inputs,
                 std::vector<uint8_t>(static_cast<size_t>(17 * columns), static_cast<uint8_t>(weight)),
                 std::vector<float>(static_cast<size_t>(inputs * columns), static_cast<float>(sign) * 3.5f),
                 0.75f};
          check(c);
        }
      }
    }
  }
}

TEST(Ternary, UnpackedRowsAreTheCodes) {
  Random random(fresh_seed());
  for (int64_t columns : {1, 12, 13, 25, 37, 49, 61, 64, 73, 85, 96, 97, 100, 577}) {
    const Case c = random_case(random, 37, columns, 1);
    for (const Packing* packing : all_packings()) {
      Buffer<std::byte> packed(static_cast<size_t>(packing->packed_bytes(c.rows, columns) + kPackedSlack));
      packing->pack_codes(c.codes.data(), columns, 0, c.rows, packed.data());
      std::vector<float> row(static_cast<size_t>(columns));
      for (int64_t r = 0; r < c.rows; ++r) {
        packing->unpack_row(packed.data(), c.rows, columns, r, row.data());
        for (int64_t k = 0; k < columns; ++k)
          ASSERT_EQ(row[static_cast<size_t>(k)], c.codes[static_cast<size_t>(r * columns + k)] - 1.0f)
              << packing->name();
      }
    }
  }
}

TEST(Ternary, ActivationsThatAreZeroTinyOrNotFinite) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  Random random(fresh_seed());
  Case c = random_case(random, 20, 70, 6);
  const auto fill = [&](int64_t i, float x) { std::fill_n(c.input.begin() + i * c.columns, c.columns, x); };
  fill(0, 0), fill(1, 1e-30f), fill(2, 1e-6f);
  c.input[3 * 70 + 5] = nan, c.input[4 * 70 + 69] = -infinity;
  const std::vector<float> expected = reference(c);
  for (const Packing* packing : all_packings()) expect_same(product(*packing, c, 0, c.rows), expected, packing->name());
}

TEST(Ternary, PreparedRowsAreTheSameOnEveryPath) {
  Random random(fresh_seed());
  for (const InputFormat format : {InputFormat::kInt8Row, InputFormat::kInt8Pairs, InputFormat::kInt8Triples})
    for (int64_t columns : {1, 31, 64, 100, 2560}) {
      const std::vector<float> values = normal_values(random, columns);
      const InputFormatInfo& generic = input_format(format, kCpuNone);
      Buffer<std::byte> expected(static_cast<size_t>(generic.row_bytes(columns)));
      generic.prepare(values.data(), columns, expected.data());
      for (const CpuFeatures features : paths_here()) {
        Buffer<std::byte> got(expected.size());
        std::memset(got.data(), 0xaa, got.size());
        input_format(format, features).prepare(values.data(), columns, got.data());
        EXPECT_EQ(std::memcmp(got.data(), expected.data(), got.size()), 0) << generic.name << ' ' << describe(features);
      }
    }
}

TEST(Ternary, RowsAreNormalisedAndPreparedAtOnce) {
  Random random(fresh_seed());
  const float eps = 1e-5f;
  for (int64_t columns : {1, 15, 16, 31, 64, 100, 2560}) {
    std::vector<float> values = normal_values(random, columns, 3);
    const std::vector<float> gain = normal_values(random, columns);
    for (const bool finite : {true, false}) {
      if (!finite) values[static_cast<size_t>(columns / 2)] = std::numeric_limits<float>::infinity();
      std::vector<float> normed(values.size());
      elementwise(kCpuNone).rms_norm(values.data(), gain.data(), eps, normed.data(), columns);
      const InputFormatInfo& generic = input_format(InputFormat::kInt8Row, kCpuNone);
      Buffer<std::byte> expected(static_cast<size_t>(generic.row_bytes(columns)));
      generic.prepare(normed.data(), columns, expected.data());
      for (const CpuFeatures features : paths_here()) {
        Buffer<std::byte> got(expected.size());
        std::memset(got.data(), 0xaa, got.size());
        input_format(InputFormat::kInt8Row, features)
            .prepare_normed(values.data(), gain.data(), eps, columns, got.data());
        EXPECT_EQ(std::memcmp(got.data(), expected.data(), got.size()), 0) << columns << ' ' << describe(features);
      }
    }
  }
}

TEST(Ternary, CodesOfEveryTernaryType) {
  Random random(fresh_seed());
  for (const DTypeInfo& type : all_dtypes()) {
    if (!is_ternary(type.type)) continue;
    std::vector<float> values(1024);
    for (float& value : values) value = 0.5f * static_cast<float>(static_cast<int>(random.below(3)) - 1);
    values[0] = values[256] = values[512] = values[768] = 0.5f;  // every block's largest
    for (size_t i = 0; i < values.size(); i += 64) values[i] = 0.5f;
    const auto bytes = encoded(type.type, values);
    const TensorView view{type.type, Shape{2, 512}, bytes};
    EXPECT_EQ(ternary_block_scale(view, 1), 0.5f) << type.name;
    for (int64_t row = 0; row < 2; ++row) {
      std::vector<uint8_t> codes(512);
      EXPECT_EQ(ternary_codes(view, row, 0.5f, codes.data()), 0.5f);
      EXPECT_EQ(ternary_codes(view, row, 1.0f, codes.data()), 0.5f);
      for (size_t k = 0; k < 512; ++k)
        ASSERT_EQ((codes[k] - 1) * 0.5f, values[static_cast<size_t>(row) * 512 + k]) << type.name;
    }
  }
}

TEST(Ternary, BlocksOfScaleZeroAreZerosUnderAnyScale) {
  for (const DTypeInfo& type : all_dtypes()) {
    if (!is_ternary(type.type)) continue;
    // As ggml makes them: of zeros, and of values that vanish in a float16 scale, whose codes are 0 and 2, too.
    std::vector<float> values(1024, 0.0f);
    for (size_t k = 512; k < 768; ++k) values[k] = k % 2 ? 1e-9f : -1e-9f;
    for (size_t k = 768; k < 1024; ++k) values[k] = k % 2 ? 0.5f : -0.5f;
    auto bytes = encoded(type.type, values);
    const TensorView view{type.type, Shape{2, 512}, bytes};
    EXPECT_EQ(ternary_block_scale(view, 0), 0.5f) << type.name;
    std::vector<uint8_t> codes(1024);
    for (int64_t row = 0; row < 2; ++row) EXPECT_EQ(ternary_codes(view, row, 0.5f, codes.data() + row * 512), 0.5f);
    for (size_t k = 0; k < 1024; ++k) ASSERT_EQ(codes[k], k < 768 ? 1 : k % 2 ? 2 : 0) << type.name << ' ' << k;
    EXPECT_EQ(ternary_block_scale({type.type, Shape{1, 512}, std::span(bytes).first(bytes.size() / 2)}, 0), 1);
  }
}

}  // namespace
}  // namespace pare::kernels
