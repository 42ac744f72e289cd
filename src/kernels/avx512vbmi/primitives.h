#pragma once
#include "kernels/avx512vnni/primitives.h"
#include "kernels/ternary.h"

namespace pare::kernels {
namespace {

/// Adds what permutes bytes across a whole register.
struct Avx512VbmiInt8 : Avx512VnniInt8 {
  /// As t3_index, with anything above bit 4. Shifts of 16 bits bring bits of the next byte to where they do not count.
  template <int kVector>
  static PARE_INLINE Bytes t3_indices(const std::byte* strip) {
    const auto block = [&](int i) __attribute__((always_inline)) { return load(strip + i * kStepBytes); };
    if constexpr (TernaryT3::kBlock[kVector] >= 0) {
      return block(TernaryT3::kBlock[kVector]);
    } else if constexpr (kVector == 7) {
      const __m512i high = choose<0x0f>(_mm512_srli_epi16(block(1), 2), _mm512_srli_epi16(block(3), 1));
      return choose<0x07>(_mm512_srli_epi16(block(4), 5), high);
    } else {
      const int low = TernaryT3::kBlock[kVector - 2], high = TernaryT3::kBlock[kVector - 1];
      return choose<0x07>(_mm512_srli_epi16(block(low), 5), _mm512_srli_epi16(block(high), 3));
    }
  }
  /// Of each byte the bits in kMask of `a`, the others of `b`.
  template <int kMask>
  static PARE_INLINE Bytes choose(__m512i a, __m512i b) {
    return _mm512_ternarylogic_epi64(_mm512_set1_epi8(kMask), a, b, 0xca);
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
