#pragma once
#include <atomic>
#include <cstdint>
#include <string_view>

namespace pare {

/// How long work tells the one who waits. The library calls it; the command line draws it; the default shows nothing.
class Progress {
 public:
  virtual ~Progress() = default;
  /// A new piece of work of `total` units ("tokens", "tensors", "trials"; total 0 = unknown).
  virtual void start(std::string_view what, std::string_view unit, int64_t total) {
    (void)what, (void)unit, (void)total;
  }
  /// `done` units in all; note is a short remark for the line ("KL 0.0123").
  virtual void update(int64_t done, std::string_view note = {}) { (void)done, (void)note; }
  virtual void finish() {}
};

/// A Progress that shows nothing.
Progress& no_progress();

/// Set by a signal handler or a cancelled request; long work polls it at points where stopping is safe.
using CancelFlag = std::atomic<bool>;

/// Throws Interrupted if the flag is set. flag may be null.
void throw_if_cancelled(const CancelFlag* flag);

}  // namespace pare
