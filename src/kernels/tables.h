#pragma once
#include "kernels/attention.h"
#include "kernels/ceilings.h"
#include "kernels/elementwise.h"
#include "kernels/matmul.h"

// What each instruction set's files export: constants only, initialised when the program is linked, so that nothing
// compiled for an instruction set runs on a machine without it. Some instruction sets define only part.

namespace pare::kernels {

#define PARE_DECLARE_KERNELS(isa)                         \
  namespace isa {                                         \
  extern const std::span<const Packing> kFloats, kBlocks; \
  extern const std::span<const Packing> kHeads;           \
  extern const std::span<const Packing> kTernary;         \
  extern const InputFormatInfo kInt8Block, kInt8Row;      \
  extern const InputFormatInfo kInt8Pairs, kInt8Triples;  \
  extern const Elementwise kElementwise;                  \
  extern const KvFormat kKvF32, kKvF16, kKvQ8_0;          \
  extern const FloatLoops kFloatLoops;                    \
  extern const Int8Loops kInt8Loops;                      \
  }

PARE_DECLARE_KERNELS(generic)
PARE_DECLARE_KERNELS(avx2)
PARE_DECLARE_KERNELS(avxvnni)
PARE_DECLARE_KERNELS(avx512)
PARE_DECLARE_KERNELS(avx512vnni)
PARE_DECLARE_KERNELS(avx512vbmi)
PARE_DECLARE_KERNELS(amx)
PARE_DECLARE_KERNELS(neon)
PARE_DECLARE_KERNELS(neondot)
PARE_DECLARE_KERNELS(neoni8mm)

#undef PARE_DECLARE_KERNELS

}  // namespace pare::kernels
