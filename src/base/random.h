#pragma once
#include <cstdint>

namespace pare {

/// xoshiro256++ seeded by splitmix64 (Blackman and Vigna): the same numbers from the same seed on every machine.
class Random {
 public:
  explicit Random(uint64_t seed);
  uint64_t next();
  /// In [0, 1), 53 bits.
  double uniform();
  /// In [0, bound), bound >= 1, without bias worth noticing (64-bit multiply).
  uint64_t below(uint64_t bound);
  /// Standard normal (Box-Muller).
  double normal();

 private:
  uint64_t state_[4];
  double spare_ = 0;
  bool has_spare_ = false;
};

}  // namespace pare
