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
constexpr int kSpins = 20000;

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

struct ThreadPool::State {
  // Each field that several threads write has a cache line of its own, or every claim of a range would stall the
  // others.
  alignas(64) std::atomic<int64_t> next{0};
  alignas(64) std::atomic<int> running{0};
  alignas(64) std::atomic<uint64_t> generation{0};
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

  void serve(int worker) {
    uint64_t seen = 0;
    while (true) {
      int spins = 0;
      while (generation.load(std::memory_order_acquire) == seen && spins < kSpins) {
        relax();
        ++spins;
      }
      if (generation.load(std::memory_order_acquire) == seen) {
        std::unique_lock lock(mutex);
        sleeping.fetch_add(1);
        wake.wait(lock, [&] { return generation.load(std::memory_order_acquire) != seen; });
        sleeping.fetch_sub(1);
      }
      seen = generation.load(std::memory_order_acquire);
      if (stop.load()) return;
      work(worker);
      running.fetch_sub(1, std::memory_order_release);
    }
  }

  void announce() {
    generation.fetch_add(1);  // sequentially consistent with `sleeping`: a worker either sees it or is seen asleep
    if (sleeping.load() > 0) {
      const std::lock_guard lock(mutex);
      wake.notify_all();
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
  state.running.store(static_cast<int>(state.threads.size()), std::memory_order_relaxed);
  state.announce();
  state.work(0);
  int spins = 0;
  while (state.running.load(std::memory_order_acquire) != 0) {
    relax();
    // More threads than cores: let the one that holds the last range run.
    if (++spins > kSpins) std::this_thread::yield();
  }
  if (state.error) std::rethrow_exception(state.error);
}

}  // namespace pare
