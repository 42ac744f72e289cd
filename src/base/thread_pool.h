#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/function_ref.h"

namespace pare {

/// Cache lines that one thread will write: asked for before, since lines that several cores have read take long to get.
struct Lines {
  std::byte *next = nullptr, *end = nullptr;
  /// Asks for a few more of them.
  void ask(int count);
};

/// A fixed team of threads for data-parallel loops. Workers spin briefly between loops, since a decoded token starts
/// several hundred of them, then sleep.
class ThreadPool {
 public:
  /// threads >= 1 counts the calling thread.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const;

  /// Calls body(begin, end, worker) over disjoint ranges that cover [0, count), each a multiple of `grain` long but the
  /// last; worker is in [0, size()). A worker begins with its own share of the ranges, in order (see share_begin), a
  /// `part`th of what is left at a time, and then helps the others, so what is computed must not depend on who does.
  /// Returns when all are done; the first exception of a body is thrown here. Not reentrant.
  /// `results` is what the loop writes, spread over the ranges, where this thread reads it next: while it waits for the
  /// others it asks for the parts of those that are through.
  void parallel_for(int64_t count, int64_t grain, FunctionRef<void(int64_t begin, int64_t end, int worker)> body,
                    int64_t part = kEvenPart, std::span<const std::byte> results = {});
  /// Small pieces: all end at about the same time, though one thread may be several times as fast as another (which
  /// shares its core with somebody).
  static constexpr int64_t kEvenPart = 8;
  /// Large pieces first, for bodies that read memory once from end to end: it flows best undisturbed. Half of a share
  /// at once would hold up many others where one thread is less than half as fast.
  int64_t stream_part() const { return size() > 2 ? 3 : 2; }

  /// For a body: what its worker will write next, and what it will read. While it waits for the end of this loop or the
  /// beginning of another it asks for those, so that waiting does not stop the flow from memory.
  void ask_while_waiting(int worker, Lines writes, std::span<const std::byte> reads);
  /// Where the share of `worker` among `size` workers begins in `ranges` ranges of a loop.
  static int64_t share_begin(int64_t ranges, int worker, int size) { return ranges * worker / size; }

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace pare
