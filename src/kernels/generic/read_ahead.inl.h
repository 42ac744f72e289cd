#pragma once
#include <cstddef>
#include <cstdint>

// Weights pass through once a token, faster than hardware foresees where short rows end: what a product reads is asked
// for this many bytes before, about what memory delivers to one core in the time that an answer takes.

namespace pare::kernels {
namespace {

constexpr int64_t kBytesAhead = 8192;
constexpr int kFirstLevel = 3, kSecondLevel = 2;  // of the cache, as __builtin_prefetch numbers them

/// Asks for the beginning of a stream of so many bytes, all at once.
__attribute__((always_inline)) inline void read_ahead(const std::byte* from, int64_t bytes) {
  for (int64_t i = 0; i < bytes && i < kBytesAhead; i += 64) __builtin_prefetch(from + i, 0, kSecondLevel);
}

/// A stream of weights and what is read after it: kBytesAhead are asked for at any time.
class Stream {
 public:
  /// `expected`: its beginning was asked for already, as what comes `then`.
  __attribute__((always_inline)) Stream(const std::byte* from, int64_t bytes, const std::byte* then, bool expected)
      : end_(from + bytes), then_(then ? then : from) {
    if (!expected) read_ahead(from, bytes);
    if (then && bytes < kBytesAhead) read_ahead(then, kBytesAhead - bytes);
  }
  /// Where what lies at `at`, possibly past the end, is to be read.
  __attribute__((always_inline)) const std::byte* at(const std::byte* at) const {
    return at < end_ ? at : then_ + (at - end_);
  }

 private:
  const std::byte *end_, *then_;
};

/// How many tiles make kBytesAhead.
__attribute__((always_inline)) inline int64_t tiles_ahead(int64_t tile_bytes) {
  return tile_bytes > 0 ? (kBytesAhead + tile_bytes - 1) / tile_bytes : 1;
}

}  // namespace
}  // namespace pare::kernels
