#include "tensor/ternary.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/error.h"
#include "base/half.h"
#include "base/random.h"

namespace pare {
namespace {

std::vector<uint8_t> random_codes(int64_t count) {
  Random random(static_cast<uint64_t>(count));
  std::vector<uint8_t> codes(static_cast<size_t>(count));
  for (uint8_t& code : codes) code = static_cast<uint8_t>(random.below(3));
  return codes;
}

TEST(Ternary, BlocksHoldCodesAndTheScale) {
  for (const DType type : {DType::kTQ1_0, DType::kTQ2_0, DType::kQ2_0}) {
    auto codes = random_codes(1024);
    std::fill_n(codes.begin(), 256, uint8_t{1});  // zeros, whose scale an encoder of floats could not know
    for (const float scale : {1.0f, 0.375f}) {
      std::vector<std::byte> bytes(static_cast<size_t>(info(type).bytes(1024)));
      encode_ternary_codes(type, codes.data(), float_to_f16(scale), bytes.data(), 1024);
      std::vector<float> values(codes.size());
      info(type).decode(bytes.data(), values.data(), 1024);
      for (size_t i = 0; i < codes.size(); ++i) {
        ASSERT_EQ(values[i], scale * static_cast<float>(codes[i] - 1)) << info(type).name << " " << i;
      }
      // The blocks that are not zeros are those of the encoder of floats.
      std::vector<std::byte> encoded(bytes.size());
      info(type).encode(values.data(), encoded.data(), 1024);
      const auto skipped = info(type).bytes(256);
      EXPECT_TRUE(std::equal(bytes.begin() + skipped, bytes.end(), encoded.begin() + skipped)) << info(type).name;
    }
  }
  EXPECT_EQ(f16_to_float(kUnitScale), 1);
  EXPECT_THROW(encode_ternary_codes(DType::kQ8_0, nullptr, kUnitScale, nullptr, 0), Error);
}

TEST(Ternary, I2sLayouts) {
  struct Layout {
    I2sLayout layout;
    const char* name;
    size_t run;
  };
  for (const auto& [layout, name, run] : {Layout{I2sLayout::kX86, "x86", 32}, Layout{I2sLayout::kArm, "arm", 16}}) {
    EXPECT_STREQ(i2s_layout_name(layout), name);
    EXPECT_EQ(find_i2s_layout(name), layout);
    EXPECT_EQ(i2s_block_columns(layout), static_cast<int64_t>(4 * run));
    // Byte p of a block: w[p], w[run + p], ... from its highest bits down.
    const auto codes = random_codes(static_cast<int64_t>(12 * run));
    std::vector<std::byte> bytes;
    for (size_t block = 0; block < 3; ++block) {
      for (size_t p = 0; p < run; ++p) {
        int byte = 0;
        for (size_t quarter = 0; quarter < 4; ++quarter) byte = byte << 2 | codes[(block * 4 + quarter) * run + p];
        bytes.push_back(static_cast<std::byte>(byte));
      }
    }
    std::vector<uint8_t> unpacked(codes.size());
    unpack_i2s(layout, bytes.data(), unpacked.data(), static_cast<int64_t>(codes.size()));
    EXPECT_EQ(unpacked, codes);
  }
  EXPECT_FALSE(find_i2s_layout("X86"));
  EXPECT_FALSE(find_i2s_layout(""));
}

}  // namespace
}  // namespace pare
