#include "base/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

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

// Which loop is on, whether it may still be joined, and how many workers have joined it, in one word: so a worker that
// the system did not run in time finds the loop closed and nobody waits for it.
constexpr uint64_t kJoined = (uint64_t{1} << 15) - 1, kOpen = uint64_t{1} << 15, kNextLoop = uint64_t{1} << 16;

struct ThreadPool::State {
  // Each field that several threads write has a cache line of its own, or every claim of a range would stall the
  // others.
  alignas(64) std::atomic<int64_t> next{0};
  alignas(64) std::atomic<uint64_t> loop{0};
  alignas(64) FunctionRef<void(int64_t, int64_t, int)>* body = nullptr;
  int64_t count = 0, grain = 1;
  std::atomic<bool> stop{false};
  std::atomic<int> sleeping{0};
  std::mutex mutex;
  std::condition_variable wake;
  std::exception_ptr error;
  std::vector<std::thread> threads;

  void work(int worker) {
    try {
      while (true) {
        const int64_t begin = next.fetch_add(grain, std::memory_order_relaxed);
        if (begin >= count) return;
        (*body)(begin, std::min(begin + grain, count), worker);
      }
    } catch (...) {
      next.store(count, std::memory_order_relaxed);
      const std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
    }
  }

  /// Waits until another loop than `seen` is on.
  void await_other(uint64_t seen) {
    for (int spins = 0; spins < kSpins; ++spins) {
      if (loop.load(std::memory_order_acquire) / kNextLoop != seen) return;
      relax();
    }
    std::unique_lock lock(mutex);
    sleeping.fetch_add(1);
    wake.wait(lock, [&] { return loop.load() / kNextLoop != seen; });
    sleeping.fetch_sub(1);
  }

  bool join() {
    uint64_t now = loop.load(std::memory_order_acquire);
    while (now & kOpen) {
      if (loop.compare_exchange_weak(now, now + 1, std::memory_order_acq_rel)) return true;
    }
    return false;
  }

  void serve(int worker) {
    uint64_t seen = 0;
    while (true) {
      await_other(seen);
      if (stop.load()) return;
      // The loop joined may be a later one than that which woke this worker; it is the one whose body is in place.
      if (join()) {
        seen = loop.load(std::memory_order_acquire) / kNextLoop;
        work(worker);
        loop.fetch_sub(1, std::memory_order_release);
      } else {
        seen = loop.load(std::memory_order_acquire) / kNextLoop;
      }
    }
  }

  void announce() {
    // Sequentially consistent with `sleeping`: a worker either sees the new loop or is seen asleep.
    loop.store((loop.load() / kNextLoop + 1) * kNextLoop | kOpen);
    if (sleeping.load() > 0) {
      const std::lock_guard lock(mutex);
      wake.notify_all();
    }
  }

  void close() {
    loop.fetch_and(~kOpen, std::memory_order_acq_rel);
    int spins = 0;
    while (loop.load(std::memory_order_acquire) & kJoined) {
      relax();
      if (++spins > kSpins) std::this_thread::yield();  // more threads than cores: let the one with the last range run
    }
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  if (threads < 1 || threads > 1024) fail("{} threads: expected 1 to 1024", threads);
  for (int i = 1; i < threads; ++i) {
    state_->threads.emplace_back([this, i] { state_->serve(i); });
  }
}

ThreadPool::~ThreadPool() {
  state_->stop.store(true);
  state_->announce();
  for (auto& thread : state_->threads) thread.join();
}

int ThreadPool::size() const { return static_cast<int>(state_->threads.size()) + 1; }

void ThreadPool::parallel_for(int64_t count, int64_t grain, FunctionRef<void(int64_t, int64_t, int)> body) {
  if (count <= 0) return;
  State& state = *state_;
  if (state.threads.empty() || count <= grain) {
    body(0, count, 0);
    return;
  }
  state.body = &body;
  state.count = count;
  state.grain = grain;
  state.error = nullptr;
  state.next.store(0, std::memory_order_relaxed);
  state.announce();
  state.work(0);
  state.close();
  if (state.error) std::rethrow_exception(state.error);
}

}  // namespace pare
