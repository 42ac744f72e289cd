#pragma once
#include <cstdint>
#include <string>

namespace pare {

/// Instruction sets a kernel may require: a mask, not a name, since machines have them in every combination.
enum CpuFeature : uint32_t {
  kCpuNone = 0,
  kCpuAvx2 = 1u << 0,  // AVX2 with FMA and F16C: no machine has the first without the others
  kCpuAvxVnni = 1u << 1,
  kCpuAvx512 = 1u << 2,  // F, BW, DQ and VL
  kCpuAvx512Vnni = 1u << 3,
  kCpuAvx512Vbmi = 1u << 4,
  kCpuAvx512Bf16 = 1u << 5,
  kCpuAmxInt8 = 1u << 6,
  kCpuNeon = 1u << 7,
  kCpuDotprod = 1u << 8,
  kCpuI8mm = 1u << 9,
};

/// Mask of CpuFeature.
using CpuFeatures = uint32_t;

/// What this machine (and its operating system) can run, whatever PARE_ISA says.
CpuFeatures machine_cpu_features();

/// What kernels may use: the machine's features, limited by the environment variable PARE_ISA to one of generic, avx2,
/// avxvnni, avx512, avx512vnni, amx, neon, dotprod, i8mm (each with what it implies). Read once.
/// Throws Error if PARE_ISA is not a known name or the machine lacks it.
CpuFeatures cpu_features();

/// The features that a PARE_ISA name allows; throws Error for an unknown name.
CpuFeatures features_of_isa(const std::string& isa);

/// "avx2 avx512 avx512vnni", for people to read.
std::string describe(CpuFeatures features);

/// What the processor calls itself, "unknown" if it does not; for people, and to tell machines apart.
std::string cpu_name();

/// Cores this process may use: the smaller of its affinity mask and its cgroup's CPU quota (rounded up), at least 1.
int usable_cores();

}  // namespace pare
