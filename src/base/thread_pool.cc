#include "base/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "base/cache_lines.h"
#include "base/error.h"

namespace pare {
namespace {

// Long enough to bridge the work between two loops of one token, short enough that an idle program does not burn a
// core.
constexpr int kSpins = 200000;

inline void relax() {
#if defined(__x86_64__)
  // Not `pause`: a virtual machine that sees many of them takes the core away for longer than a loop of a small model
  // lasts.
  asm volatile("nop\nnop\nnop\nnop\nnop\nnop\nnop\nnop");
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

void Lines::ask(int count) {
  for (; count > 0 && next < end; --count, next += kCacheLine) ask_to_write(next);
}

// A loop is published in one cache line, under a lock that readers never wait for (a sequence lock): `loop` is its
// number, with kOpen set once the rest of the line belongs to it. What a worker writes lies in a line of its own: how
// many ranges of its share are claimed (by itself or by helpers) and how many it has run, each with the number of the
// loop it speaks of, so that starting a loop resets nothing. A worker that the system did not run in time finds every
// range claimed, and nobody waits for it.
constexpr uint64_t kOpen = 1, kNextLoop = 2;
constexpr int kCountBits = 24;
constexpr int64_t kMostRanges = int64_t{1} << (kCountBits - 1);
// Of another's share a worker takes so many times less than of its own.
constexpr int64_t kOthersLess = 2;
// A worker that waits asks for what it will read next, at most this far: more would drive out of its second-level cache
// what it works with.
constexpr int64_t kWaitingRead = 131072;

/// A count that belongs to the loop of a number, beside that number's low 40 bits.
constexpr uint64_t count_of(uint64_t number, int64_t count) {
  return number << kCountBits | static_cast<uint64_t>(count);
}

struct alignas(64) Share {
  std::atomic<uint64_t> claimed{0}, done{0};

  struct Claim {
    int64_t first, count;
  };
  /// The next of `held` ranges, a `part`th of those unclaimed and at least one; of none if none is left or the loop is
  /// over.
  Claim claim(uint64_t number, int64_t held, int64_t part) {
    const uint64_t untouched = count_of(number, 0);
    uint64_t now = claimed.load(std::memory_order_relaxed);
    while (true) {
      // Of an older loop (none is claimed yet), of this one, or of a later one.
      const int64_t next = std::max(static_cast<int64_t>(now - untouched), int64_t{0});
      if (next >= held) return {held, 0};
      const int64_t count = (held - next + part - 1) / part;
      if (claimed.compare_exchange_weak(now, count_of(number, next + count), std::memory_order_relaxed)) {
        return {next, count};
      }
    }
  }
  int64_t done_in(uint64_t number) const {
    const uint64_t now = done.load(std::memory_order_acquire);
    return now >> kCountBits == count_of(number, 0) >> kCountBits ? static_cast<int64_t>(now - count_of(number, 0)) : 0;
  }
};

struct ThreadPool::State {
  using Body = FunctionRef<void(int64_t, int64_t, int)>;
  /// What a worker will write and read next.
  struct alignas(64) Ahead {
    Lines writes;
    const std::byte* from = nullptr;
    int64_t bytes = 0;
  };

  alignas(64) std::atomic<uint64_t> loop{0};
  std::atomic<const Body*> body{nullptr};
  std::atomic<int64_t> count{0}, grain{1}, part{1};
  alignas(64) std::atomic<bool> stop{false};
  std::atomic<int> sleeping{0};
  std::mutex mutex;
  std::condition_variable wake;
  std::exception_ptr error;
  std::vector<Share> shares;  // [threads]
  std::vector<Ahead> ahead;   // [threads], each only for its worker
  std::vector<std::thread> threads;
  std::vector<uint64_t> asked;  // [threads] the last loop of which the calling thread has asked for a part

  /// A loop as a worker sees it.
  struct Loop {
    uint64_t number;
    const Body* body;
    int64_t count, grain, part;
    int64_t ranges() const { return (count + grain - 1) / grain; }
  };

  void wait_a_little(int worker) {
    Ahead& a = ahead[static_cast<size_t>(worker)];
    if (a.writes.next < a.writes.end) return a.writes.ask(1);
    if (a.bytes <= 0) return relax();
    __builtin_prefetch(a.from, 0, 2);
    a.from += 64, a.bytes -= 64;
  }

  /// Calls run(begin, end) over what is left of the worker's own share, then of the others'.
  template <class Run>
  void each_range(const Loop& l, int worker, int64_t& done, Run run) {
    const auto size = static_cast<int>(shares.size());
    for (int turn = 0; turn < size; ++turn) {
      const int owner = worker + turn < size ? worker + turn : worker + turn - size;
      const int64_t first = share_begin(l.ranges(), owner, size),
                    held = share_begin(l.ranges(), owner + 1, size) - first;
      Share& share = shares[static_cast<size_t>(owner)];
      while (true) {
        const Share::Claim claim = share.claim(l.number, held, owner == worker ? l.part : l.part * kOthersLess);
        if (claim.count == 0) break;
        done += claim.count;  // also if it throws
        const int64_t begin = (first + claim.first) * l.grain;
        run(begin, std::min(begin + claim.count * l.grain, l.count));
      }
    }
  }

  void work(const Loop& l, int worker) {
    int64_t done = 0;
    try {
      each_range(l, worker, done, [&](int64_t begin, int64_t end) { (*l.body)(begin, end, worker); });
    } catch (...) {
      {
        const std::lock_guard lock(mutex);
        if (!error) error = std::current_exception();
      }
      each_range(l, worker, done, [](int64_t, int64_t) {});  // what is left is not wanted any more
    }
    if (done > 0) shares[static_cast<size_t>(worker)].done.store(count_of(l.number, done), std::memory_order_release);
  }

  /// Waits until another loop than `seen` is open, or it is time to stop.
  uint64_t await_other(uint64_t seen, int worker) {
    const auto other = [&](uint64_t now) { return now != seen && now & kOpen; };
    for (int spins = 0; spins < kSpins; ++spins) {
      const uint64_t now = loop.load(std::memory_order_acquire);
      if (other(now)) return now;
      wait_a_little(worker);
    }
    std::unique_lock lock(mutex);
    sleeping.fetch_add(1);
    wake.wait(lock, [&] { return other(loop.load()); });
    sleeping.fetch_sub(1);
    return loop.load();
  }

  void serve(int worker) {
    uint64_t seen = 0;
    while (true) {
      seen = await_other(seen, worker);
      if (stop.load(std::memory_order_relaxed)) return;
      // Acquired each, so that `loop` is read again after them: unchanged, they are of that loop.
      const Loop l{seen / kNextLoop, body.load(std::memory_order_acquire), count.load(std::memory_order_acquire),
                   grain.load(std::memory_order_acquire), part.load(std::memory_order_acquire)};
      if (loop.load(std::memory_order_relaxed) == seen) work(l, worker);
    }
  }

  Loop announce(const Body* what, int64_t size, int64_t step, int64_t claimed) {
    const uint64_t number = loop.load(std::memory_order_relaxed) / kNextLoop + 1;
    loop.store(number * kNextLoop, std::memory_order_relaxed);
    // Released each, so that none is seen while the last loop's number is.
    body.store(what, std::memory_order_release);
    count.store(size, std::memory_order_release);
    grain.store(step, std::memory_order_release);
    part.store(claimed, std::memory_order_release);
    // Sequentially consistent with `sleeping`: a worker either sees the new loop or is seen asleep.
    loop.store(number * kNextLoop | kOpen);
    if (sleeping.load() > 0) {
      const std::lock_guard lock(mutex);
      wake.notify_all();
    }
    return {number, what, size, step, claimed};
  }

  void await_end(const Loop& l, std::span<const std::byte> results) {
    for (int spins = 0;; ++spins) {
      int64_t done = 0;
      for (size_t i = 0; i < shares.size(); ++i) {
        const int64_t through = shares[i].done_in(l.number);
        done += through;
        if (through > 0 && i > 0 && !results.empty() && asked[i] != l.number) ask_for_part(l, i, results);
      }
      if (done == l.ranges()) return;
      wait_a_little(0);
      if (spins > kSpins) std::this_thread::yield();  // more threads than cores: let the one with the last range run
    }
  }

  /// The results of a worker's share of the ranges.
  void ask_for_part(const Loop& l, size_t worker, std::span<const std::byte> results) {
    asked[worker] = l.number;
    const auto begin_of = [&](size_t of) {
      const int64_t range = share_begin(l.ranges(), static_cast<int>(of), static_cast<int>(shares.size()));
      return results.size() * static_cast<size_t>(range) / static_cast<size_t>(l.ranges());
    };
    const size_t end = begin_of(worker + 1);
    for (size_t at = begin_of(worker); at < end; at += kCacheLine) __builtin_prefetch(results.data() + at);
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  if (threads < 1 || threads > 1024) fail("{} threads: expected 1 to 1024", threads);
  state_->shares = std::vector<Share>(static_cast<size_t>(threads));
  state_->ahead.resize(static_cast<size_t>(threads));
  state_->asked.resize(static_cast<size_t>(threads));
  for (int i = 1; i < threads; ++i) {
    state_->threads.emplace_back([this, i] { state_->serve(i); });
  }
}

ThreadPool::~ThreadPool() {
  state_->stop.store(true);
  state_->announce(nullptr, 0, 1, 1);
  for (auto& thread : state_->threads) thread.join();
}

int ThreadPool::size() const { return static_cast<int>(state_->threads.size()) + 1; }

void ThreadPool::parallel_for(int64_t count, int64_t grain, FunctionRef<void(int64_t, int64_t, int)> body, int64_t part,
                              std::span<const std::byte> results) {
  if (count <= 0) return;
  State& state = *state_;
  if (state.threads.empty() || count <= grain) {
    body(0, count, 0);
    return;
  }
  state.error = nullptr;
  const State::Loop loop = state.announce(&body, count, std::max(grain, count / kMostRanges + 1), part);
  state.work(loop, 0);
  state.await_end(loop, results);
  if (state.error) std::rethrow_exception(state.error);
}

void ThreadPool::ask_while_waiting(int worker, Lines writes, std::span<const std::byte> reads) {
  state_->ahead[static_cast<size_t>(worker)] = {writes, reads.data(),
                                                std::min(static_cast<int64_t>(reads.size()), kWaitingRead)};
}

}  // namespace pare
