#pragma once
#include <cstdint>

#include "base/cpu.h"

namespace pare::kernels {

/// Which components a rotation pairs: (i, i + dims/2) as Hugging Face stores Llama, or (2i, 2i + 1) as GGUF does.
enum class RopeLayout : uint8_t { kHalves, kInterleaved };

/// The small operations between products, one row of activations each. Every path gives the same bits.
struct Elementwise {
  /// out = x / sqrt(mean(x^2) + eps) * gain (RMSNorm, arXiv 1910.07467). x, gain, out: [n]; out may be x.
  void (*rms_norm)(const float* x, const float* gain, float eps, float* out, int64_t n);
  /// x += y, [n].
  void (*add)(float* x, const float* y, int64_t n);
  /// out = gate * sigmoid(gate) * up, [n]; out may be gate.
  void (*silu_multiply)(const float* gate, const float* up, float* out, int64_t n);
  /// out = max(gate, 0)^2 * up, [n]; out may be gate (BitNet b1.58 2B4T, arXiv 2504.12285). NaN stays NaN.
  void (*relu_squared_multiply)(const float* gate, const float* up, float* out, int64_t n);
  /// Rotates the first `dims` components of each of `heads` vectors of head_dim by cos, sin: [dims / 2] (RoFormer).
  void (*rope)(float* x, int heads, int head_dim, int dims, const float* cos, const float* sin, RopeLayout layout);
  /// log(sum(exp(x))), [n], without overflow.
  float (*log_sum_exp)(const float* x, int64_t n);
  /// out = exp(x - shift), [n]; returns the sum.
  float (*exp_shifted)(const float* x, float shift, float* out, int64_t n);
  /// Index of the first largest value.
  int64_t (*argmax)(const float* x, int64_t n);
};

/// Those that the given features serve; by default what this process may use.
const Elementwise& elementwise(CpuFeatures features);
const Elementwise& elementwise();

}  // namespace pare::kernels
