#include "kernels/avx2/primitives.h"
// The primitives come first.
#include "kernels/generic/block_matmul.inl.h"
#include "kernels/tables.h"

namespace pare::kernels {
namespace {

/// vpdpbusd in AVX registers; see avx512vnni/primitives.h.
struct AvxVnniQ8 {
  using P = Avx2;
  static constexpr int kBlockBytes = kQ8BlockBytes, kSteps = 8;
  using Acc = Avx2Sums;
  struct Weights {
    __m256i low, high;
  };
  static PARE_INLINE Acc begin(const Int8Block& x) {
    return {_mm256_set1_epi32(x.minus_128_sum), _mm256_set1_epi32(x.minus_128_sum)};
  }
  static PARE_INLINE Weights load(const std::byte* codes, int step) {
    return {load_codes(codes + 64 * step), load_codes(codes + 64 * step + 32)};
  }
  static PARE_INLINE void step(Acc& acc, const Weights& w, const int8_t* codes, int step) {
    const __m256i x = broadcast4(codes + 4 * step);
    acc.low = _mm256_dpbusd_avx_epi32(acc.low, w.low, x);
    acc.high = _mm256_dpbusd_avx_epi32(acc.high, w.high, x);
  }
  static PARE_INLINE P::V finish(const Acc& acc) { return acc.floats(); }
};

struct AvxVnniQ4 {
  using P = Avx2;
  static constexpr int kBlockBytes = kQ4BlockBytes, kSteps = 4;
  using Acc = Avx2Sums;
  using Weights = Avx2Q4::Weights;
  static PARE_INLINE Acc begin(const Int8Block& x) {
    return {_mm256_set1_epi32(x.minus_8_sum), _mm256_set1_epi32(x.minus_8_sum)};
  }
  static PARE_INLINE Weights load(const std::byte* codes, int step) { return Avx2Q4::load(codes, step); }
  static PARE_INLINE void step(Acc& acc, const Weights& w, const int8_t* codes, int step) {
    const __m256i first = broadcast4(codes + 4 * step), second = broadcast4(codes + 16 + 4 * step);
    acc.low = _mm256_dpbusd_avx_epi32(_mm256_dpbusd_avx_epi32(acc.low, w.low[0], first), w.low[1], second);
    acc.high = _mm256_dpbusd_avx_epi32(_mm256_dpbusd_avx_epi32(acc.high, w.high[0], first), w.high[1], second);
  }
  static PARE_INLINE P::V finish(const Acc& acc) { return acc.floats(); }
};

}  // namespace

namespace avxvnni {

constinit const Packing kQ8_0 = block_packing<AvxVnniQ8>("q8_0.avxvnni", packed_bytes_q8_0, pack_q8_0, unpack_row_q8_0);
constinit const Packing kQ4_0 = block_packing<AvxVnniQ4>("q4_0.avxvnni", packed_bytes_q4_0, pack_q4_0, unpack_row_q4_0);

}  // namespace avxvnni
}  // namespace pare::kernels
