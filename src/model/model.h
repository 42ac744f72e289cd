#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/progress.h"
#include "base/thread_pool.h"
#include "model/batch.h"
#include "model/checkpoint.h"
#include "model/kv_cache.h"
#include "model/observer.h"
#include "model/weight_store.h"

namespace pare {

struct LoadOptions {
  Progress* progress = nullptr;
  WeightStore* store = nullptr;  // shares packed weights with other models loaded through it
};

/// A model ready to run. One forward at a time; the pool must outlive it.
class Model {
 public:
  /// Packs weights in parallel. Throws Error for weights that are missing or misshaped.
  static std::unique_ptr<Model> load(const Checkpoint& checkpoint, ThreadPool& pool, const LoadOptions& options = {});
  /// Random weights of a shape, made in memory, for benchmarks.
  static std::unique_ptr<Model> random(const ModelConfig& config, DType matrices, ThreadPool& pool, uint64_t seed);
  virtual ~Model() = default;

  virtual const ModelConfig& config() const = 0;
  virtual ThreadPool& pool() const = 0;
  /// Runs the batch (in chunks of at most kMaxChunkRows rows), appends to the cache, and writes the logits of rows that
  /// want them, in order: logits [wanted, vocabulary] (may be empty if none are wanted). Throws Error for tokens out of
  /// range or a full context, before anything is changed.
  virtual void forward(const Batch& batch, KvCache& cache, std::span<float> logits, Observer* observer = nullptr) = 0;
  /// Bytes of weights that one decoded token reads, and multiply-adds it takes (embedding row lookup not counted).
  virtual int64_t bytes_per_token() const = 0;
  virtual int64_t multiply_adds_per_token() const = 0;
  /// Bytes of weights held: packed in memory, and mapped from files.
  virtual int64_t packed_bytes() const = 0;
  virtual int64_t mapped_bytes() const = 0;
};

inline constexpr int64_t kMaxChunkRows = 512;

}  // namespace pare
