#include "kernels/ceilings.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>

#include "base/statistics.h"
#include "kernels/family.h"

namespace pare::kernels {
namespace {

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

const FloatLoops& float_loops(CpuFeatures features) {
  for (const auto& row : family_tables().float_loops)
    if ((features & row.required) == row.required) return *row.loops;
  return *family_tables().float_loops.back().loops;
}

const Int8Loops& int8_loops(CpuFeatures features) {
  for (const auto& row : family_tables().int8_loops)
    if ((features & row.required) == row.required) return *row.loops;
  return *family_tables().int8_loops.back().loops;
}

constexpr int kParts = 8;  // a thread, so that a slow one does not hold up the rest
// Bytes of a pass at most: longer ones are no more exact.
constexpr int64_t kPassBytes = int64_t{1} << 29;
constexpr int kSamples = 2;  // at a time

/// Operations a second of `loop` on every thread at once: the best of three, each long enough to let the clock settle.
double rate(ThreadPool& pool, FunctionRef<double(int64_t)> loop, int64_t operations) {
  volatile double sink = 0;
  int64_t rounds = 1024;
  for (double spent = 0; spent < 2e-3; rounds *= 2) {
    const double start = seconds();
    sink = sink + loop(rounds);
    spent = seconds() - start;
  }
  const int64_t parts = int64_t{kParts} * pool.size();
  double best = 0;
  for (int repeat = 0; repeat < 3; ++repeat) {
    const double start = seconds();
    pool.parallel_for(parts, 1, [&](int64_t begin, int64_t end, int) {
      volatile double own = loop(rounds * (end - begin));
      (void)own;
    });
    best = std::max(best, static_cast<double>(rounds * parts * operations) / (seconds() - start));
  }
  return best;
}

/// Ways to read a part: how many streams at once, how many bytes ahead each is asked for.
struct Pattern {
  int streams;
  int64_t ahead;
};
constexpr int kStreams[] = {1, 2, 4, 8};
constexpr int64_t kAhead[] = {0, 512, 1024, 2048, 4096};
constexpr auto kPatterns = [] {
  std::array<Pattern, std::size(kStreams) * std::size(kAhead)> patterns{};
  size_t at = 0;
  for (const int streams : kStreams)
    for (const int64_t ahead : kAhead) patterns[at++] = {streams, ahead};
  return patterns;
}();

}  // namespace

ReadCeiling::ReadCeiling(ThreadPool& pool, size_t bytes)
    : pool_(pool), memory_(std::max<size_t>(bytes, size_t{8} << 20)), rates_(kPatterns.size()) {
  // Threads touch the parts first, so that on a machine of several memories each has some near it.
  const auto parts = static_cast<int64_t>(memory_.size() >> 20);
  pool_.parallel_for(parts, 1, [&](int64_t begin, int64_t end, int) {
    std::memset(memory_.data() + (begin << 20), 0, static_cast<size_t>(end - begin) << 20);
  });
}

void ReadCeiling::sample() {
  const FloatLoops& loops = float_loops(cpu_features());
  const auto size = static_cast<int64_t>(memory_.size());
  const int64_t parts = int64_t{kParts} * pool_.size(), part = std::min(size, kPassBytes) / parts / 4096 * 4096;
  for (size_t pass = 0; pass < kSamples * kPatterns.size(); ++pass) {
    const size_t p = pass % kPatterns.size();
    if (next_ + part * parts > size) next_ = 0;
    const std::byte* from = memory_.data() + next_;
    next_ += part * parts;
    const double start = seconds();
    pool_.parallel_for(parts, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        volatile float sink = loops.read(from + i * part, part, kPatterns[p].streams, kPatterns[p].ahead);
        (void)sink;
      }
    });
    rates_[p].push_back(static_cast<double>(part * parts) / (seconds() - start));
  }
}

double ReadCeiling::rate() const { return median_of_best(rates_); }

double ReadCeiling::most() const {
  double most = 0;
  for (const auto& samples : rates_) most = std::max(most, median(samples));
  return most;
}

double measure_fma_rate(ThreadPool& pool, CpuFeatures features) {
  const FloatLoops& loops = float_loops(features);
  return rate(
      pool, [&](int64_t rounds) { return static_cast<double>(loops.multiply_add(rounds)); }, loops.multiply_adds);
}

double measure_int8_rate(ThreadPool& pool, CpuFeatures features) {
  const Int8Loops& loops = int8_loops(features);
  return rate(
      pool, [&](int64_t rounds) { return static_cast<double>(loops.multiply(rounds)); }, loops.multiplies);
}

}  // namespace pare::kernels
