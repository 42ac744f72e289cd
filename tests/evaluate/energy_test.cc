#include "evaluate/energy.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "temporary_folder.h"

namespace pare {
namespace {

void write(const std::filesystem::path& path, const std::string& text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path) << text << "\n";
}

void write_zone(const std::filesystem::path& zone, const std::string& name, int64_t microjoules) {
  write(zone / "name", name);
  write(zone / "energy_uj", std::to_string(microjoules));
  write(zone / "max_energy_range_uj", "10000000");
}

TEST(EnergyMeter, AddsPackagesAndNotTheirParts) {
  const test::TemporaryFolder folder;
  write_zone(folder / "intel-rapl:0", "package-0", 1'000'000);
  write_zone(folder / "intel-rapl:1", "package-1", 9'000'000);
  write_zone(folder / "intel-rapl:0:0", "core", 0);
  write_zone(folder / "intel-rapl:2", "psys", 0);
  write_zone(folder / "intel-rapl-mmio:0", "package-0", 0);
  EnergyMeter meter(folder.path());
  ASSERT_TRUE(meter.available());
  EXPECT_EQ(meter.joules(), 0);
  for (const char* other : {"intel-rapl:0:0", "intel-rapl:2", "intel-rapl-mmio:0"})
    write(folder / other / "energy_uj", "5000000");
  write(folder / "intel-rapl:0" / "energy_uj", "3500000");
  EXPECT_DOUBLE_EQ(*meter.joules(), 2.5);
  // The second counter wraps: 1 J to its end, and half a joule more.
  write(folder / "intel-rapl:1" / "energy_uj", "500000");
  EXPECT_DOUBLE_EQ(*meter.joules(), 4);
}

TEST(EnergyMeter, SaysNothingWhereItCannotTellAll) {
  const test::TemporaryFolder folder;
  EXPECT_FALSE(EnergyMeter(folder / "none").available());
  EXPECT_FALSE(EnergyMeter(folder.path()).available());
  write_zone(folder / "intel-rapl:0", "package-0", 1);
  write(folder / "intel-rapl:1" / "energy_uj", "unreadable");
  EnergyMeter half(folder.path());
  EXPECT_FALSE(half.available());
  EXPECT_FALSE(half.joules().has_value());
  std::filesystem::remove_all(folder / "intel-rapl:1");
  EnergyMeter meter(folder.path());
  EXPECT_TRUE(meter.available());
  std::filesystem::remove_all(folder / "intel-rapl:0");
  EXPECT_FALSE(meter.joules().has_value());
}

}  // namespace
}  // namespace pare
