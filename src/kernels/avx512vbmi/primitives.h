#pragma once
#include "kernels/avx512vnni/primitives.h"

namespace pare::kernels {
namespace {

/// Adds what permutes bytes across a whole register.
struct Avx512VbmiInt8 : Avx512VnniInt8 {
  /// 64 indices of 5 bits: 8 of them lie in 5 bytes, which go to a 64-bit lane; there each byte picks its 8 bits.
  static PARE_INLINE Bytes t3_indices(const std::byte* p) {
    alignas(64) static constexpr auto kSpread = [] {
      struct {
        uint8_t at[64];
      } spread{};
      for (int i = 0; i < 64; ++i) spread.at[i] = static_cast<uint8_t>(i / 8 * 5 + i % 8);
      return spread;
    }();
    const __m512i lanes = _mm512_permutexvar_epi8(_mm512_load_si512(kSpread.at), _mm512_loadu_si512(p));
    return _mm512_multishift_epi64_epi8(_mm512_set1_epi64(0x231e19140f0a0500), lanes);
  }
  /// The table stands twice in the 64 bytes that an index of 6 bits reaches, so that bit 5 may be anything.
  template <int kStep>
  static PARE_INLINE Bytes t3_code(Bytes indices) {
    alignas(64) static constexpr auto kTable = [] {
      struct {
        uint8_t at[64];
      } table{};
      constexpr int kPowers[] = {1, 3, 9};
      for (int i = 0; i < 64; ++i) table.at[i] = static_cast<uint8_t>(i % 32 / kPowers[kStep] % 3);
      return table;
    }();
    return _mm512_permutexvar_epi8(indices, _mm512_load_si512(kTable.at));
  }
};

}  // namespace
}  // namespace pare::kernels
