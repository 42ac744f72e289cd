#pragma once
#include <cstdint>
#include <span>

#include "model/batch.h"

namespace pare {

/// Where activations can be looked at. "Stream" sites are the residual stream: before a module's pre-norm and after the
/// module's output was added; they are what redundancy is scored on. The others lie inside a module.
enum class ActivationSite : uint8_t {
  kAttentionStreamIn,   // [rows, hidden] before the attention's pre-norm (= block input)
  kAttentionStreamOut,  // [rows, hidden] after the attention's output was added
  kMlpStreamIn,         // [rows, hidden] before the MLP's pre-norm
  kMlpStreamOut,        // [rows, hidden] after the MLP's output was added (= block output)
  kBlockIn,             // [rows, hidden] block input, whatever parts the block has
  kBlockOut,            // [rows, hidden] block output
  kAttentionInput,      // [rows, hidden] after the pre-norm: what q, k and v multiply
  kQuery,               // [rows, heads * head_dim] after rope
  kKey,                 // [rows, kv_heads * head_dim] after rope
  kValue,               // [rows, kv_heads * head_dim]
  kLambda,              // [rows, outputs] of differential attention
  kAttentionMixed,      // [rows, outputs * output_dim] what the output projection multiplies
  kMlpInput,            // [rows, hidden] after the pre-norm
  kMlpHidden,           // [rows, width] what the down projection multiplies
  kFinalHidden,         // [rows, hidden] after the output norm, only of rows whose logits are wanted
};

/// Looks at activations during a forward pass; read-only. Called on the calling thread, in order.
class Observer {
 public:
  virtual ~Observer() = default;
  /// Whether observe() is to be called for this site and layer.
  virtual bool wants(ActivationSite site, int layer) const = 0;
  /// values: [rows, width], row i belongs to row i of the batch (chunked by the engine: batch is the chunk).
  virtual void observe(ActivationSite site, int layer, const Batch& batch, std::span<const float> values,
                       int64_t width) = 0;
};

}  // namespace pare
