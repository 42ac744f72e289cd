#include "model/kv_cache.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "kernels/kv_pages.h"

namespace pare {

using kernels::kKvPageTokens;

namespace {

constexpr int64_t kLargestSlab = int64_t{64} << 20;  // bytes

}  // namespace

KvCache::KvCache(const ModelConfig& config, int sequences, int64_t context, DType type)
    : format_(&kernels::kv_format(type, cpu_features())), sequences_(sequences), context_(context) {
  if (sequences < 1) fail("a KV cache of {} sequences: expected at least 1", sequences);
  if (context < 1) fail("a KV cache of {} tokens: expected at least 1", context);
  for (const LayerConfig& layer : config.layers) {
    LayerShape shape;
    if (layer.attention) {
      shape = {layer.attention->kv_heads, layer.attention->head_dim, format_->key_page_bytes(layer.attention->head_dim),
               format_->value_page_bytes(layer.attention->head_dim)};
    }
    shapes_.push_back(shape);
  }
  slots_.resize(static_cast<size_t>(sequences) * shapes_.size());
  tokens_.resize(static_cast<size_t>(sequences));
  free_.resize(shapes_.size());
}

std::byte* KvCache::take_page(int layer, bool zeros) {
  const int64_t size = shapes_[static_cast<size_t>(layer)].page();
  auto& free = free_[static_cast<size_t>(layer)];
  std::byte* page = nullptr;
  if (!free.empty()) {
    page = free.back();
    free.pop_back();
  } else {
    if (slabs_.empty() || slab_used_ + size > static_cast<int64_t>(slabs_.back().size())) {
      slabs_.emplace_back(static_cast<size_t>(std::max(size, std::min(allocated_bytes(), kLargestSlab))));
      slab_used_ = 0;
    }
    page = slabs_.back().data() + slab_used_;
    slab_used_ += size;
  }
  if (zeros) std::memset(page, 0, static_cast<size_t>(size));
  return page;
}

void KvCache::extend(int sequence, int layer, int64_t count, bool stored) {
  const LayerShape& shape = shapes_[static_cast<size_t>(layer)];
  Slot& s = slot(sequence, layer);
  s.keys.resize(static_cast<size_t>(shape.kv_heads));
  s.values.resize(static_cast<size_t>(shape.kv_heads));
  s.length += count;
  while (static_cast<int64_t>(s.pages.size()) * kKvPageTokens < s.length) {
    const bool full = static_cast<int64_t>(s.pages.size() + 1) * kKvPageTokens <= s.length;
    // Slots past the end are multiplied by zero: they must be finite.
    std::byte* page = take_page(layer, !(stored && full));
    for (int head = 0; head < shape.kv_heads; ++head) {
      const std::byte* key = page + head * (shape.key_page + shape.value_page);
      s.keys[static_cast<size_t>(head)].push_back(key);
      s.values[static_cast<size_t>(head)].push_back(key + shape.key_page);
    }
    s.pages.push_back(page);
  }
}

std::span<const std::byte* const> KvCache::key_pages(int sequence, int layer, int kv_head) const {
  return slot(sequence, layer).keys[static_cast<size_t>(kv_head)];
}

std::span<const std::byte* const> KvCache::value_pages(int sequence, int layer, int kv_head) const {
  return slot(sequence, layer).values[static_cast<size_t>(kv_head)];
}

void KvCache::store(int sequence, int layer, int kv_head, int64_t index, const float* key, const float* value) {
  const LayerShape& shape = shapes_[static_cast<size_t>(layer)];
  Slot& s = slot(sequence, layer);
  std::byte* page = s.pages[static_cast<size_t>(index / kKvPageTokens)] + kv_head * (shape.key_page + shape.value_page);
  const int at = static_cast<int>(index % kKvPageTokens);
  if (key) format_->store_key(key, shape.head_dim, page, at);
  if (value) format_->store_value(value, shape.head_dim, page + shape.key_page, at);
}

void KvCache::update_means(int sequence, int layer) {
  const LayerShape& shape = shapes_[static_cast<size_t>(layer)];
  Slot& s = slot(sequence, layer);
  const int64_t width = kernels::padded_value_dim(shape.head_dim), whole = s.length / kKvPageTokens;
  s.means.resize(static_cast<size_t>(shape.kv_heads));
  for (size_t head = 0; head < s.means.size(); ++head) {
    s.means[head].resize(static_cast<size_t>(whole * width));
    for (int64_t page = s.means_made; page < whole; ++page) {
      format_->value_mean(s.values[head][static_cast<size_t>(page)], shape.head_dim,
                          s.means[head].data() + page * width);
    }
  }
  s.means_made = whole;
}

const float* KvCache::value_means(int sequence, int layer, int kv_head) const {
  return slot(sequence, layer).means[static_cast<size_t>(kv_head)].data();
}

void KvCache::truncate(int sequence, int64_t length) {
  for (size_t layer = 0; layer < shapes_.size(); ++layer) {
    Slot& s = slot(sequence, static_cast<int>(layer));
    if (s.length <= length) continue;
    s.length = length;
    s.means_made = std::min(s.means_made, length / kKvPageTokens);
    const auto pages = static_cast<size_t>((length + kKvPageTokens - 1) / kKvPageTokens);
    free_[layer].insert(free_[layer].end(), s.pages.begin() + static_cast<ptrdiff_t>(pages), s.pages.end());
    s.pages.resize(pages);
    for (auto* lists : {&s.keys, &s.values}) {
      for (auto& list : *lists) list.resize(pages);
    }
  }
  auto& tokens = tokens_[static_cast<size_t>(sequence)];
  tokens = std::min(tokens, length);
}

int64_t KvCache::bytes_per_token() const {
  int64_t page = 0;
  for (const LayerShape& shape : shapes_) page += shape.page();
  return page / kKvPageTokens;
}

int64_t KvCache::allocated_bytes() const {
  int64_t bytes = 0;
  for (const auto& slab : slabs_) bytes += static_cast<int64_t>(slab.size());
  return bytes;
}

}  // namespace pare
