#pragma once
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "base/buffer.h"
#include "kernels/attention.h"
#include "kernels_testing.h"

// What tests of attention share.

namespace pare::kernels {

/// Keys and values of one KV head in pages of one format; what was never stored is NaN.
class Cache {
 public:
  Cache(const KvFormat& format, int head_dim, int value_dim, int64_t tokens) : format_(format) {
    const int64_t pages = (tokens + kKvPageTokens - 1) / kKvPageTokens;
    for (int64_t p = 0; p < pages; ++p) {
      for (int64_t bytes : {format.key_page_bytes(head_dim), format.value_page_bytes(value_dim)}) {
        pages_.emplace_back(static_cast<size_t>(bytes) + 64);
        std::memset(pages_.back().data(), 0xff, pages_.back().size());
      }
      keys.push_back(pages_[pages_.size() - 2].data());
      values.push_back(pages_.back().data());
    }
    key_bytes_ = static_cast<size_t>(format.key_page_bytes(head_dim));
    value_bytes_ = static_cast<size_t>(format.value_page_bytes(value_dim));
  }
  void store(int64_t token, const float* key, int head_dim, const float* value, int value_dim) {
    const auto page = static_cast<size_t>(token / kKvPageTokens);
    format_.store_key(key, head_dim, keys[page], static_cast<int>(token % kKvPageTokens));
    format_.store_value(value, value_dim, values[page], static_cast<int>(token % kKvPageTokens));
  }
  void expect_intact() {
    for (size_t p = 0; p < keys.size(); ++p)
      for (size_t i = 0; i < 64; ++i) {
        EXPECT_EQ(keys[p][key_bytes_ + i], std::byte{0xff}) << "written past a page of keys";
        EXPECT_EQ(values[p][value_bytes_ + i], std::byte{0xff}) << "written past a page of values";
      }
  }
  std::vector<std::byte*> keys, values;

 private:
  KvFormat format_;
  std::vector<Buffer<std::byte>> pages_;
  size_t key_bytes_, value_bytes_;
};

/// Rows as the cache holds them.
inline std::vector<float> stored(DType type, const std::vector<float>& rows, int dim) {
  const int block = info(type).block_size;
  std::vector<float> result;
  for (size_t at = 0; at < rows.size(); at += static_cast<size_t>(dim)) {
    std::vector<float> row(rows.begin() + static_cast<ptrdiff_t>(at), rows.begin() + static_cast<ptrdiff_t>(at) + dim);
    row.resize(static_cast<size_t>((dim + block - 1) / block * block));
    row = decoded(type, encoded(type, row));
    result.insert(result.end(), row.begin(), row.begin() + dim);
  }
  return result;
}

}  // namespace pare::kernels
