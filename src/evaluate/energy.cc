#include "evaluate/energy.h"

#include <algorithm>
#include <fstream>

namespace pare {
namespace {

std::optional<int64_t> read_number(const std::filesystem::path& path) {
  std::ifstream file(path);
  int64_t value;
  if (!(file >> value) || value < 0) return std::nullopt;
  return value;
}

/// "intel-rapl:0" is a package; "intel-rapl:0:1" is a part of it, counted in it, "intel-rapl-mmio:0" the same again.
bool is_package(const std::filesystem::path& folder) {
  const std::string name = folder.filename().string();
  return name.starts_with("intel-rapl:") && std::count(name.begin(), name.end(), ':') == 1;
}

/// A zone of a whole machine ("psys") holds the packages, too.
bool holds_others(const std::filesystem::path& folder) {
  std::ifstream file(folder / "name");
  std::string name;
  file >> name;
  return name == "psys";
}

}  // namespace

EnergyMeter::EnergyMeter(const std::filesystem::path& powercap) {
  std::error_code error;
  for (std::filesystem::directory_iterator entry(powercap, error), end; !error && entry != end;
       entry.increment(error)) {
    if (!is_package(entry->path()) || holds_others(entry->path())) continue;
    const auto counter = entry->path() / "energy_uj";
    const auto now = read_number(counter), most = read_number(entry->path() / "max_energy_range_uj");
    if (!now || !most) {
      // Half of the packages would be half of the truth.
      packages_.clear();
      return;
    }
    packages_.push_back({counter, *now, *most});
  }
}

std::optional<double> EnergyMeter::joules() {
  for (Package& package : packages_) {
    const auto now = read_number(package.counter);
    if (!now) {
      packages_.clear();
      return std::nullopt;
    }
    const int64_t used = *now - package.last;
    joules_ += 1e-6 * static_cast<double>(used >= 0 ? used : used + package.wraps_after);
    package.last = *now;
  }
  if (packages_.empty()) return std::nullopt;
  return joules_;
}

}  // namespace pare
