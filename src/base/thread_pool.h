#pragma once
#include <cstdint>
#include <memory>

#include "base/function_ref.h"

namespace pare {

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

  /// Calls body(begin, end, worker) over disjoint ranges that cover [0, count), each a multiple of grain long but the
  /// last; worker is in [0, size()). Ranges are handed out as workers become free, so what is computed must not depend
  /// on them. Returns when all are done; the first exception of a body is thrown here. Not reentrant.
  void parallel_for(int64_t count, int64_t grain, FunctionRef<void(int64_t begin, int64_t end, int worker)> body);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace pare
