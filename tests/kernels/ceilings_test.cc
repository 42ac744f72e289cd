#include <gtest/gtest.h>

#include "base/cpu.h"
#include "kernels/family.h"

namespace pare::kernels {
namespace {

// How many rounds a measurement takes depends on the machine's speed: sums past 2^31 must do no harm (UBSan says so).
TEST(Ceilings, AnyNumberOfRoundsMayRun) {
  constexpr int64_t kRounds = int64_t{1} << 20;
  int loops = 0;
  for (const auto& row : family_tables().int8_loops)
    if ((cpu_features() & row.required) == row.required) {
      volatile int32_t sum = row.loops->multiply(kRounds);
      (void)sum;
      ++loops;
    }
  EXPECT_GT(loops, 0);
}

}  // namespace
}  // namespace pare::kernels
