#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/buffer.h"
#include "kernels/attention.h"
#include "model/config.h"

namespace pare {

/// Keys and values of several sequences: pages per (sequence, kept attention), each list with its own length, so that
/// layers may hold different numbers of tokens. Dropped attentions take no memory.
class KvCache {
 public:
  /// `sequences` slots of at most `context` tokens each; pages are taken as tokens arrive.
  KvCache(const ModelConfig& config, int sequences, int64_t context, DType type);

  int sequences() const;
  int64_t context() const { return context_; }
  const kernels::KvFormat& format() const { return *format_; }
  /// Tokens stored for a sequence in a layer (0 for a layer without attention).
  int64_t length(int sequence, int layer) const;
  /// Makes room for tokens [length, length + count) and returns nothing; throws Error if the context would be exceeded.
  void extend(int sequence, int layer, int64_t count);
  /// Page pointers of one KV head, one per kKvPageTokens tokens.
  std::span<const std::byte* const> key_pages(int sequence, int layer, int kv_head) const;
  std::span<const std::byte* const> value_pages(int sequence, int layer, int kv_head) const;
  void store(int sequence, int layer, int kv_head, int64_t index, const float* key, const float* value);
  /// Forgets tokens from `length` on, in every layer.
  void truncate(int sequence, int64_t length);
  void clear(int sequence) { truncate(sequence, 0); }
  int64_t allocated_bytes() const;

 private:
  struct Layer;
  const kernels::KvFormat* format_;
  int64_t context_;
  std::vector<Layer> layers_;
};

}  // namespace pare
