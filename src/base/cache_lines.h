#pragma once
#include <cstddef>

namespace pare {

inline constexpr int kCacheLine = 64;

/// Asks for a cache line that this thread will write.
inline void ask_to_write(std::byte* line) {
#if defined(__x86_64__)
  // The builtin becomes a request to read where the oldest machine meant has no such instruction; those take it for
  // none.
  asm volatile("prefetchw %0" : : "m"(*line));
#else
  __builtin_prefetch(line, 1);
#endif
}

}  // namespace pare
