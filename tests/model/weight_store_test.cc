#include "model/weight_store.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/random.h"
#include "kernels/ternary.h"
#include "model/ternary.h"
#include "refusal.h"

namespace pare {
namespace {

constexpr int64_t kRows = 37, kColumns = 512;  // no whole number of row groups

std::vector<uint8_t> random_codes() {
  std::vector<uint8_t> codes(static_cast<size_t>(kRows * kColumns));
  Random random(3);
  for (uint8_t& code : codes) code = static_cast<uint8_t>(random.below(3));
  return codes;
}

WeightTensor weight_of(const std::vector<uint8_t>& codes) {
  WeightTensor weight;
  weight.id = {WeightKind::kGate, 0};
  weight.name = "gate";
  weight.shape = Shape{kRows, kColumns};
  return ternary_weight(weight, 0.25f, {}, [codes](int64_t begin, int64_t end, uint8_t* to) {
    std::copy(codes.begin() + begin * kColumns, codes.begin() + end * kColumns, to);
  });
}

LinearConfig int8_inputs() {
  LinearConfig linear;
  linear.activations = ActivationQuantization::kInt8Row;
  return linear;
}

class TernaryWeights : public testing::TestWithParam<const kernels::Packing*> {};

TEST_P(TernaryWeights, PackToTheSameBytesOnAnyNumberOfThreadsAndFromAnySource) {
  const std::vector<uint8_t> codes = random_codes();
  const WeightTensor from_codes = weight_of(codes);
  WeightTensor from_blocks = from_codes;
  from_blocks.fill_codes = nullptr;
  std::vector<std::byte> expected(static_cast<size_t>(GetParam()->packed_bytes(kRows, kColumns)));
  GetParam()->pack_codes(codes.data(), kColumns, 0, kRows, expected.data());
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    for (const WeightTensor* tensor : {&from_codes, static_cast<const WeightTensor*>(&from_blocks)}) {
      WeightStore store(pool, GetParam()->layout);
      const auto weight = store.matrix(*tensor, int8_inputs());
      ASSERT_EQ(&weight->packing(), GetParam());
      EXPECT_EQ(weight->scale, 0.25f);
      ASSERT_EQ(weight->bytes(), static_cast<int64_t>(expected.size()));
      EXPECT_EQ(std::memcmp(weight->data, expected.data(), expected.size()), 0) << threads;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Layouts, TernaryWeights, testing::ValuesIn(kernels::ternary_packings(cpu_features())),
                         [](const auto& one) { return std::string(one.param->layout); });

TEST(WeightStore, NamesTheTernaryCodeThatIsNone) {
  std::vector<uint8_t> codes = random_codes();
  codes[20 * kColumns + 7] = 3;
  ThreadPool pool(2);
  WeightStore store(pool);
  const std::string said = test::refusal_of([&] { store.matrix(weight_of(codes), int8_inputs()); });
  EXPECT_NE(said.find("gate: code 3 in row 20, column 7"), std::string::npos) << said;
}

/// What random matrices repeat must not show in their size: every row is written.
TEST(WeightStore, RandomMatricesOfLongRowsAreFilledToTheEnd) {
  ThreadPool pool(2);
  for (const DType type : {DType::kF16, DType::kQ8_0, DType::kTQ2_0}) {
    WeightStore store(pool);
    const int64_t rows = 70, columns = 1 << 16;
    const auto weight = store.random(rows, columns, type, 1, int8_inputs());
    std::vector<float> row(columns);
    for (int64_t r = 0; r < rows; ++r) {
      weight->unpack_row(r, row.data());
      double squares = 0;
      for (const float value : row) squares += static_cast<double>(value) * value;
      // Variance 1 / columns, or 2 / 3 of that of -1, 0 and 1.
      EXPECT_NEAR(squares, type == DType::kTQ2_0 ? 2.0 / 3 : 1, 0.05) << info(type).name << " row " << r;
    }
  }
}

}  // namespace
}  // namespace pare
