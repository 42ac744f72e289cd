#include "base/cpu.h"

#include <sched.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <thread>
#include <utility>

#include "base/error.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace pare {
namespace {

constexpr std::array<std::pair<CpuFeature, const char*>, 10> kNames{{{kCpuAvx2, "avx2"},
                                                                     {kCpuAvxVnni, "avxvnni"},
                                                                     {kCpuAvx512, "avx512"},
                                                                     {kCpuAvx512Vnni, "avx512vnni"},
                                                                     {kCpuAvx512Vbmi, "avx512vbmi"},
                                                                     {kCpuAvx512Bf16, "avx512bf16"},
                                                                     {kCpuAmxInt8, "amx"},
                                                                     {kCpuNeon, "neon"},
                                                                     {kCpuDotprod, "dotprod"},
                                                                     {kCpuI8mm, "i8mm"}}};

#if defined(__x86_64__)
// XCR0 tells which registers the operating system saves; without that an instruction faults although CPUID names it.
uint64_t saved_registers() {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
}

/// Linux gives a process the tile registers when it asks for them, before it starts threads that use them.
bool may_use_tiles() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

CpuFeatures detect() {
  uint32_t a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return kCpuNone;
  const bool os_saves = c >> 27 & 1, fma = c >> 12 & 1, avx = c >> 28 & 1, f16c = c >> 29 & 1;
  if (!os_saves || !avx) return kCpuNone;
  const uint64_t saved = saved_registers();
  const bool ymm = (saved & 0x6) == 0x6, zmm = (saved & 0xe6) == 0xe6, tiles = (saved & 0x60000) == 0x60000;
  if (!ymm || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return kCpuNone;
  const uint32_t b7 = b, c7 = c, d7 = d;
  uint32_t a71 = 0;
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d)) a71 = a;
  CpuFeatures found = kCpuNone;
  if ((b7 >> 5 & 1) && fma && f16c) found |= kCpuAvx2;
  if (!(found & kCpuAvx2)) return found;
  if (a71 >> 4 & 1) found |= kCpuAvxVnni;
  const bool f = b7 >> 16 & 1, dq = b7 >> 17 & 1, bw = b7 >> 30 & 1, vl = b7 >> 31 & 1;
  if (zmm && f && dq && bw && vl) {
    found |= kCpuAvx512;
    if (c7 >> 11 & 1) found |= kCpuAvx512Vnni;
    if (c7 >> 1 & 1) found |= kCpuAvx512Vbmi;
    if (a71 >> 5 & 1) found |= kCpuAvx512Bf16;
    if (tiles && (d7 >> 24 & 1) && (d7 >> 25 & 1) && may_use_tiles()) found |= kCpuAmxInt8;
  }
  return found;
}
#elif defined(__aarch64__)
CpuFeatures detect() {
  CpuFeatures found = kCpuNeon;
  if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) found |= kCpuDotprod;
  if (getauxval(AT_HWCAP2) & HWCAP2_I8MM) found |= kCpuI8mm;
  return found;
}
#else
CpuFeatures detect() { return kCpuNone; }
#endif

}  // namespace

CpuFeatures machine_cpu_features() {
  static const CpuFeatures found = detect();
  return found;
}

CpuFeatures features_of_isa(const std::string& isa) {
  constexpr CpuFeatures avx512 = kCpuAvx2 | kCpuAvx512;
  constexpr CpuFeatures avx512vnni = avx512 | kCpuAvxVnni | kCpuAvx512Vnni | kCpuAvx512Vbmi;
  static const std::array<std::pair<const char*, CpuFeatures>, 9> known{
      {{"generic", kCpuNone},
       {"avx2", kCpuAvx2},
       {"avxvnni", kCpuAvx2 | kCpuAvxVnni},
       {"avx512", avx512},
       {"avx512vnni", avx512vnni},
       {"amx", avx512vnni | kCpuAvx512Bf16 | kCpuAmxInt8},
       {"neon", kCpuNeon},
       {"dotprod", kCpuNeon | kCpuDotprod},
       {"i8mm", kCpuNeon | kCpuDotprod | kCpuI8mm}}};
  for (const auto& [name, features] : known) {
    if (isa == name) return features;
  }
  fail(
      "PARE_ISA={}: unknown instruction set, expected generic, avx2, avxvnni, avx512, avx512vnni, amx, neon, dotprod "
      "or i8mm",
      isa);
}

CpuFeatures cpu_features() {
  static const CpuFeatures allowed = [] {
    const char* isa = std::getenv("PARE_ISA");
    if (!isa || !*isa) return machine_cpu_features();
    const CpuFeatures wanted = features_of_isa(isa);
    // Naming a set means its own instructions, not every extension that a newer machine adds beside it.
    constexpr CpuFeatures optional = kCpuAvxVnni | kCpuAvx512Vbmi | kCpuAvx512Bf16;
    const CpuFeatures required = std::string(isa) == "avxvnni" ? wanted : wanted & ~optional;
    const CpuFeatures missing = required & ~machine_cpu_features();
    if (missing) fail("PARE_ISA={}: this machine lacks {}", isa, describe(missing));
    return wanted & machine_cpu_features();
  }();
  return allowed;
}

std::string describe(CpuFeatures features) {
  std::string text;
  for (const auto& [feature, name] : kNames) {
    if (features & feature) text += (text.empty() ? "" : " ") + std::string(name);
  }
  return text.empty() ? "generic" : text;
}

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  // x86 has a name; ARM the numbers of who made it and which part it is.
  std::string name, implementer, part, line;
  while (std::getline(file, line)) {
    const auto value = [&] { return line.substr(std::min(line.size(), line.find(':') + 2)); };
    if (line.starts_with("model name") && name.empty()) name = value();
    if (line.starts_with("CPU implementer") && implementer.empty()) implementer = value();
    if (line.starts_with("CPU part") && part.empty()) part = value();
  }
  if (name.empty() && !part.empty()) name = "ARM " + implementer + " " + part;
  return name.empty() ? "unknown" : name;
}

int usable_cores() {
  int cores = static_cast<int>(std::thread::hardware_concurrency());
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) cores = CPU_COUNT(&set);
  // cgroup v2, then v1: quota and period in microseconds; "max" or -1 means no limit.
  double quota = -1, period = 100000;
  if (std::ifstream file("/sys/fs/cgroup/cpu.max"); file) {
    std::string text;
    if (file >> text >> period && text != "max") quota = std::strtod(text.c_str(), nullptr);
  } else if (std::ifstream limit("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"); limit >> quota) {
    std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_period_us") >> period;
  }
  if (quota > 0 && period > 0) cores = std::min(cores, static_cast<int>(std::ceil(quota / period)));
  return std::max(cores, 1);
}

}  // namespace pare
