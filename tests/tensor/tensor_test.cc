#include "tensor/tensor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "base/error.h"

namespace pare {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr int64_t kLargest = std::numeric_limits<int64_t>::max();

TEST(Shape, CountsRowsAndColumns) {
  const Shape shape{2, 3, 5};
  EXPECT_EQ(shape.rank(), 3);
  EXPECT_EQ(shape.count(), 30);
  EXPECT_EQ(shape.columns(), 5);
  EXPECT_EQ(shape.rows(), 6);
  EXPECT_EQ(shape.to_string(), "[2, 3, 5]");
}

TEST(Shape, OfRankZeroHoldsOneValue) {
  const Shape shape;
  EXPECT_EQ(shape.count(), 1);
  EXPECT_EQ(shape.columns(), 1);
  EXPECT_EQ(shape.rows(), 1);
  EXPECT_EQ(shape.to_string(), "[]");
}

TEST(Shape, MayBeEmpty) {
  const Shape shape{4, 0};
  EXPECT_EQ(shape.count(), 0);
  EXPECT_EQ(shape.rows(), 4);
}

TEST(Shape, ComparesRankToo) {
  EXPECT_EQ((Shape{2, 3}), (Shape{2, 3}));
  EXPECT_NE((Shape{2, 3}), (Shape{3, 2}));
  EXPECT_NE((Shape{2}), (Shape{2, 0}));
}

void make_shape(std::vector<int64_t> dims) { (void)Shape(dims); }

TEST(Shape, RefusesWhatNoTensorHas) {
  EXPECT_THAT([] { make_shape(std::vector<int64_t>{-1}); }, ThrowsMessage<Error>(HasSubstr("[-1]")));
  EXPECT_THAT([] { make_shape(std::vector<int64_t>(2, kLargest)); }, ThrowsMessage<Error>(HasSubstr("2^63")));
  EXPECT_THAT([] { make_shape(std::vector<int64_t>(6, 1)); },
              ThrowsMessage<Error>(HasSubstr("6 dimensions, expected at most 5")));
}

TEST(CheckedCount, RefusesOverflowAndNegativeDimensions) {
  EXPECT_EQ(checked_count(std::vector<int64_t>{3, 4}), 12);
  EXPECT_EQ(checked_count({}), 1);
  EXPECT_EQ(checked_count(std::vector<int64_t>{kLargest}), kLargest);
  EXPECT_FALSE(checked_count(std::vector<int64_t>{kLargest, 2}));
  EXPECT_FALSE(checked_count(std::vector<int64_t>{-1, -1}));
}

TEST(CheckedBytes, CountsWholeBlocks) {
  EXPECT_EQ(checked_bytes(DType::kF32, std::vector<int64_t>{2, 3}), 24);
  EXPECT_EQ(checked_bytes(DType::kQ8_0, std::vector<int64_t>{2, 64}), 4 * 34);
  EXPECT_EQ(checked_bytes(DType::kQ4_0, std::vector<int64_t>{2, 64}), 4 * 18);
  EXPECT_EQ(checked_bytes(DType::kF16, {}), 2);
  // 64 values, but rows of 16: blocks would run over the ends of rows.
  EXPECT_FALSE(checked_bytes(DType::kQ8_0, std::vector<int64_t>{4, 16}));
  EXPECT_FALSE(checked_bytes(DType::kQ8_0, {}));
}

TEST(CheckedBytes, RefusesBytesThatOverflowWhereTheCountDoesNot) {
  EXPECT_FALSE(checked_bytes(DType::kF32, std::vector<int64_t>{int64_t{1} << 61}));
  EXPECT_TRUE(checked_bytes(DType::kF32, std::vector<int64_t>{int64_t{1} << 60}));
  EXPECT_FALSE(checked_bytes(DType::kQ8_0, std::vector<int64_t>{kLargest - 31}));
}

TEST(TensorView, FindsRows) {
  const std::vector<std::byte> bytes(3 * 2 * 34);
  const TensorView view{DType::kQ8_0, Shape{3, 64}, bytes};
  EXPECT_EQ(view.row_bytes(), 68);
  EXPECT_EQ(view.row(2) - bytes.data(), 2 * 68);
}

}  // namespace
}  // namespace pare
