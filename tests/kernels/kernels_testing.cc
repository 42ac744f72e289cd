#include "kernels_testing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <iostream>

#include "kernels/head.h"
#include "kernels/packing.h"

namespace pare::kernels {

uint64_t fresh_seed() {
  static const uint64_t seed = [] {
    const char* set = std::getenv("PARE_TEST_SEED");
    const uint64_t value = set ? std::strtoull(set, nullptr, 10)
                               : static_cast<uint64_t>(std::chrono::system_clock::now().time_since_epoch().count());
    std::cout << "PARE_TEST_SEED=" << value << std::endl;
    return value;
  }();
  return seed;
}

std::vector<const Packing*> split_packings_here(DType type) {
  std::vector<const Packing*> found = split_packings(machine_cpu_features());
  std::erase_if(found, [&](const Packing* packing) { return packing->source != type; });
  return found;
}

std::vector<const Packing*> packings_here(DType type) {
  std::vector<const Packing*> found = split_packings_here(type);
  for (const KernelRow& row : kernel_table())
    if (row.source == type && (machine_cpu_features() & row.required) == row.required) found.push_back(row.packing);
  return found;
}

std::vector<CpuFeatures> paths_here() {
  std::vector<CpuFeatures> found{kCpuNone};
  for (const KernelRow& row : kernel_table())
    if ((machine_cpu_features() & row.required) == row.required &&
        std::find(found.begin(), found.end(), row.required) == found.end())
      found.push_back(row.required);
  return found;
}

bool same_bits(float a, float b) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
}

void expect_same(const std::vector<float>& got, const std::vector<float>& expected, const std::string& what) {
  ASSERT_EQ(got.size(), expected.size()) << what;
  for (size_t i = 0; i < got.size(); ++i)
    ASSERT_TRUE(same_bits(got[i], expected[i]))
        << what << ": [" << i << "] is " << got[i] << ", expected " << expected[i];
}

std::vector<float> normal_values(Random& random, int64_t count, double deviation) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& v : values) v = static_cast<float>(random.normal() * deviation);
  return values;
}

int64_t fitting(DType type, int64_t columns) {
  const int64_t block = info(type).block_size;
  return (columns + block - 1) / block * block;
}

Misaligned::Misaligned(const std::vector<std::byte>& bytes, int offset)
    : buffer_(bytes.size() + static_cast<size_t>(offset)), offset_(offset), size_(bytes.size()) {
  std::copy(bytes.begin(), bytes.end(), data());
}

std::vector<std::byte> encoded(DType type, const std::vector<float>& values) {
  std::vector<std::byte> bytes(static_cast<size_t>(info(type).bytes(static_cast<int64_t>(values.size()))));
  info(type).encode(values.data(), bytes.data(), static_cast<int64_t>(values.size()));
  return bytes;
}

std::vector<float> decoded(DType type, std::span<const std::byte> bytes) {
  const int64_t count = static_cast<int64_t>(bytes.size()) / info(type).block_bytes * info(type).block_size;
  std::vector<float> values(static_cast<size_t>(count));
  info(type).decode(bytes.data(), values.data(), count);
  return values;
}

Product::Product(const Packing& packing, DType type, const std::vector<std::byte>& bytes, int64_t rows, int64_t columns)
    : packing_(packing), rows_(rows), columns_(columns), stored_(bytes, info(type).block_size > 1 ? 1 : 2) {
  weights_ = stored_.data();
  if (packing.in_place) {
    EXPECT_EQ(packing.packed_bytes(rows, columns), static_cast<int64_t>(bytes.size())) << packing.name();
    return;
  }
  const auto size = static_cast<size_t>(packing.packed_bytes(rows, columns));
  packed_ = Buffer<std::byte>(size + kPackedSlack);
  std::memset(packed_.data(), 0xa5, size + kPackedSlack);
  const TensorView view{type, Shape{rows, columns}, stored_.span()};
  // In two parts, the second first, as threads might.
  const int64_t middle = std::min(rows, (rows / 2 + packing.row_group - 1) / packing.row_group * packing.row_group);
  packing.pack(view, middle, rows, packed_.data());
  packing.pack(view, 0, middle, packed_.data());
  for (size_t i = size; i < size + kPackedSlack; ++i)
    EXPECT_EQ(packed_[i], std::byte{0xa5}) << packing.name() << " packs past its end";
  weights_ = packed_.data();
}

std::vector<float> Product::multiply_part(const std::vector<float>& input, int64_t input_rows, int64_t row_begin,
                                          int64_t row_end) {
  const InputFormatInfo& format = input_format(packing_.input);
  const int64_t stride = format.row_bytes(columns_);
  EXPECT_EQ(stride % 64, 0);
  Buffer<std::byte> prepared(static_cast<size_t>(stride * input_rows));
  // What lies between rows must not matter.
  std::memset(prepared.data(), 0xff, prepared.size());
  for (int64_t i = 0; i < input_rows; ++i) {
    const float* row = input.data() + i * columns_;
    if (format.prepare)
      format.prepare(row, columns_, prepared.data() + i * stride);
    else
      std::memcpy(prepared.data() + i * stride, row, static_cast<size_t>(columns_) * 4);
  }
  constexpr float kCanary = -12345.5f;
  const int64_t gap = 19, output_stride = rows_ + gap;
  std::vector<float> output(static_cast<size_t>(output_stride * input_rows), kCanary);
  MultiplyArgs args{weights_,   rows_,         columns_,      prepared.data(), stride,
                    input_rows, output.data(), output_stride, row_begin,       row_end};
  packing_.multiply(args);
  if (packing_.multiply_one_stream && input_rows == 1) {
    std::vector<float> other(output.size(), kCanary);
    args.output = other.data();
    packing_.multiply_one_stream(args);
    EXPECT_TRUE(std::equal(other.begin(), other.end(), output.begin(), same_bits))
        << packing_.name() << " in one stream";
  }
  std::vector<float> result;
  for (int64_t i = 0; i < input_rows; ++i)
    for (int64_t r = 0; r < output_stride; ++r) {
      const float value = output[static_cast<size_t>(i * output_stride + r)];
      if (r >= row_begin && r < row_end)
        result.push_back(value);
      else
        EXPECT_EQ(value, kCanary) << packing_.name() << " writes outside its rows: row " << r << " of input " << i;
    }
  return result;
}

std::vector<float> Product::multiply(const std::vector<float>& input, int64_t input_rows) {
  return multiply_part(input, input_rows, 0, rows_);
}

std::vector<float> Product::bounds(const std::vector<float>& input) {
  const InputFormatInfo& format = input_format(packing_.input);
  const int64_t stride = format.row_bytes(columns_), groups = (rows_ + kInterleavedRows - 1) / kInterleavedRows;
  Buffer<std::byte> prepared(static_cast<size_t>(stride));
  format.prepare(input.data(), columns_, prepared.data());
  std::vector<UnitBounds> units(static_cast<size_t>(columns_ / kLeastUnit));
  packing_.bounds->prepare(prepared.data(), columns_, units.data());
  MultiplyArgs args{weights_, rows_, columns_, prepared.data(), stride, 1, nullptr, rows_, 0, rows_};
  constexpr float kCanary = -12345.5f;
  std::vector<float> most(static_cast<size_t>(groups) + 1, kCanary), other(most);
  packing_.bounds->bound({args, units.data(), most.data()});
  // In two calls, as threads might.
  args.row_end = std::min(rows_, (groups + 1) / 2 * kInterleavedRows);
  packing_.bounds->bound_one_stream({args, units.data(), other.data()});
  args.row_begin = args.row_end;
  args.row_end = rows_;
  if (args.row_begin < rows_) packing_.bounds->bound_one_stream({args, units.data(), other.data()});
  expect_same(other, most, std::string(packing_.name()) + " in one stream");
  EXPECT_EQ(most.back(), kCanary) << packing_.name() << " writes past the last group";
  most.pop_back();
  return most;
}

std::vector<float> Product::unpack_row(int64_t row) const {
  std::vector<float> values(static_cast<size_t>(columns_));
  packing_.unpack_row(weights_, rows_, columns_, row, values.data());
  return values;
}

double relative_error(const std::vector<float>& a, const std::vector<double>& b) {
  double error = 0, largest = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    error = std::max(error, std::abs(static_cast<double>(a[i]) - b[i]));
    largest = std::max(largest, std::abs(b[i]));
  }
  return largest == 0 ? error : error / largest;
}

}  // namespace pare::kernels
