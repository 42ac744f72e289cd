#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

namespace pare {

/// Joules that the processor's packages have used: Intel's and AMD's running average power limit (RAPL) counters, as
/// Linux shows them (Documentation/power/powercap/powercap.rst). They count whole packages, with idle cores and
/// whatever else runs, but not the memory. Most systems let only root read them.
class EnergyMeter {
 public:
  /// `powercap`: a folder as /sys/class/powercap, with intel-rapl:N for each package.
  explicit EnergyMeter(const std::filesystem::path& powercap = "/sys/class/powercap");
  /// Whether there are packages and all of them can be read.
  bool available() const { return !packages_.empty(); }
  /// Joules since the meter was made; nothing if it cannot tell. Counters wrap after minutes at the earliest: ask more
  /// often.
  std::optional<double> joules();

 private:
  struct Package {
    std::filesystem::path counter;
    int64_t last, wraps_after;  // microjoules
  };
  std::vector<Package> packages_;
  double joules_ = 0;
};

}  // namespace pare
