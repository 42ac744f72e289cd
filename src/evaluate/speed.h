#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/progress.h"
#include "model/model.h"

namespace pare {

struct SpeedOptions {
  std::vector<int64_t> prompts = {128, 512};  // tokens of each prefill measured
  int64_t generated = 64;                     // tokens of a decode run, 0 = none
  int64_t context = 0;                        // tokens in the cache before decode begins
  int runs = 5;
  int64_t top_k = 1;  // the largest logits wanted of each decoded token (1: greedy); 0: all
  /// Bytes that the memory ceiling is measured with, at most. From several times the last-level cache on more of them
  /// read no slower, but there are caches of hundreds of megabytes.
  int64_t ceiling_bytes = kUsualCeilingBytes;
  static constexpr int64_t kUsualCeilingBytes = int64_t{1} << 30, kMostCeilingBytes = int64_t{4} << 30;
  DType kv = DType::kF16;
  /// Makes decoding leave out this share of values: an attention threshold is sought that does so on the random
  /// context.
  std::optional<double> skip_rate;
};

/// About how many bytes measuring takes beside `weight_bytes` of weights: the cache, activations, and what the ceilings
/// read.
int64_t speed_memory(const ModelConfig& config, int64_t weight_bytes, const SpeedOptions& options);

/// Tokens a second of repeated runs.
struct SpeedSamples {
  std::vector<double> samples;
  double median() const;
  double best() const;
  double worst() const;
};

/// One prefill or decode, and how near it comes to what the machine can do.
struct SpeedResult {
  bool decode = false;
  int64_t tokens = 0;  // of a run
  SpeedSamples speed;
  std::vector<double> joules;  // a token, of each run; empty where the machine does not tell (energy.h)
  // What one token costs on average over the run.
  double weight_bytes = 0, kv_bytes = 0;                   // read from memory; weights once a pass, not once a token
  double float_multiply_adds = 0, int8_multiply_adds = 0;  // by the kernels' arithmetic; attention counts as float
  /// Seconds a token would take at the memory ceiling, and at the compute ceilings, alone.
  double memory_seconds = 0, compute_seconds = 0;
  double least_memory_seconds = 0;  // if the luckiest of the ceiling's read patterns is believed

  bool memory_bound() const { return memory_seconds >= compute_seconds; }
  /// Median speed over the speed at the nearer ceiling: above 1 by no more than that ceiling varies.
  double ratio() const;
  /// Faster than that: the measurement cannot be right.
  bool impossible() const;
};

/// What the machine did in loops that do nothing else: medians of the samples taken between the runs, as the runs' own
/// speeds are medians, so that a moment without neighbours raises neither.
struct Ceilings {
  double read_bytes = 0;       // a second, over a working set as large as what a token reads
  double most_read_bytes = 0;  // by the pattern that luck favoured most
  double fma = 0;              // float multiply-adds a second
  double int8 = 0;             // int8 multiply-adds a second
  int64_t working_set = 0;     // bytes
};

struct SpeedReport {
  int threads = 1;
  Ceilings ceilings;
  std::vector<SpeedResult> results;
  float attention_threshold = 0;     // in force
  double skipped = 0;                // share of values that decoding left out
  int64_t peak_before_ceilings = 0;  // bytes resident at most once the model had run, before ceilings took memory
  /// Some result is impossible: a ceiling was measured too low (a busy machine), so nothing here counts.
  bool invalid() const;
};

/// Measures a model on its own pool of threads. Ceilings are measured before, between and after the runs, since a
/// machine's speed drifts. peak_memory (may be null) is asked once the model has run.
/// Throws Error if the options do not fit the model's context, Interrupted.
SpeedReport measure_speed(Model& model, const SpeedOptions& options, Progress& progress, const CancelFlag* cancel,
                          int64_t (*peak_memory)() = nullptr);

}  // namespace pare
