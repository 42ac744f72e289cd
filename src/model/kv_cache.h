#pragma once
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "base/buffer.h"
#include "kernels/attention.h"
#include "model/config.h"

namespace pare {

/// Keys and values of several sequences: pages per (sequence, kept attention), each list with its own length, so that
/// layers may hold different numbers of tokens. Dropped attentions take no memory.
class KvCache {
 public:
  /// `sequences` slots of at most `context` tokens each; pages are taken as tokens arrive. Throws Error for a type that
  /// no cache format has.
  KvCache(const ModelConfig& config, int sequences, int64_t context, DType type);

  int sequences() const { return sequences_; }
  int64_t context() const { return context_; }
  const kernels::KvFormat& format() const { return *format_; }
  /// Tokens that a sequence has been given so far: the position of the next one.
  int64_t tokens(int sequence) const { return tokens_[static_cast<size_t>(sequence)]; }
  void add_tokens(int sequence, int64_t count) { tokens_[static_cast<size_t>(sequence)] += count; }
  /// Tokens stored for a sequence in a layer (0 for a layer without attention).
  int64_t length(int sequence, int layer) const { return slot(sequence, layer).length; }
  /// Makes room for `count` more tokens of a sequence in a layer and counts them as stored: as zeros, or as whatever is
  /// there if the caller promises to store each of them before any is read.
  void extend(int sequence, int layer, int64_t count, bool stored = false);
  /// Pages of one KV head, one per kernels::kKvPageTokens tokens.
  std::span<const std::byte* const> key_pages(int sequence, int layer, int kv_head) const;
  std::span<const std::byte* const> value_pages(int sequence, int layer, int kv_head) const;
  /// Fills token `index` of a KV head, which extend() has made room for; a key or value that is null is left to another
  /// call. Different tokens and heads, and keys and values, may be stored at the same time.
  void store(int sequence, int layer, int kv_head, int64_t index, const float* key, const float* value);
  /// Makes value_means of a layer's whole pages, those that are not there yet. Not while tokens are stored.
  void update_means(int sequence, int layer);
  /// Mean values of one KV head's pages, [whole pages, padded head_dim], as of the last update_means().
  const float* value_means(int sequence, int layer, int kv_head) const;
  /// Forgets a sequence's tokens from `length` on, in every layer. For caches whose layers hold the same tokens.
  void truncate(int sequence, int64_t length);
  void clear(int sequence) { truncate(sequence, 0); }
  /// Bytes of one token in all layers, and bytes held now.
  int64_t bytes_per_token() const;
  int64_t allocated_bytes() const;

 private:
  struct Slot {
    int64_t length = 0;
    std::vector<std::byte*> pages;                      // [pages] of every KV head's keys, then values
    std::vector<std::vector<const std::byte*>> keys;    // [kv_heads][pages]
    std::vector<std::vector<const std::byte*>> values;  // [kv_heads][pages]
    std::vector<std::vector<float>> means;              // [kv_heads][means_made, padded head_dim]; none if never wanted
    int64_t means_made = 0;                             // pages
  };
  struct LayerShape {
    int kv_heads = 0, head_dim = 0;
    int64_t key_page = 0, value_page = 0;  // bytes
    int64_t page() const { return kv_heads * (key_page + value_page); }
  };
  const Slot& slot(int sequence, int layer) const {
    return slots_[static_cast<size_t>(sequence) * shapes_.size() + static_cast<size_t>(layer)];
  }
  Slot& slot(int sequence, int layer) { return const_cast<Slot&>(std::as_const(*this).slot(sequence, layer)); }

  std::byte* take_page(int layer, bool zeros);

  const kernels::KvFormat* format_;
  int sequences_;
  int64_t context_;
  std::vector<LayerShape> shapes_;  // [layers]
  std::vector<Slot> slots_;         // [sequences, layers]
  std::vector<int64_t> tokens_;     // [sequences]
  /// Memory for pages: the slabs double, so that a short context stays small and a long one lies in huge pages.
  std::vector<Buffer<std::byte>> slabs_;
  int64_t slab_used_ = 0;                      // bytes of the last one
  std::vector<std::vector<std::byte*>> free_;  // [layers] pages to be used again
};

}  // namespace pare
