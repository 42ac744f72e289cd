#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/progress.h"
#include "base/thread_pool.h"
#include "model/batch.h"
#include "model/candidates.h"
#include "model/checkpoint.h"
#include "model/kv_cache.h"
#include "model/linear.h"
#include "model/observer.h"
#include "model/weight_store.h"
#include "parallel/communicator.h"

namespace pare {

struct LoadOptions {
  Progress* progress = nullptr;
  WeightStore* store = nullptr;   // shares packed weights with other models loaded through it
  std::string kernel;             // without a store: see WeightStore
  float attention_threshold = 0;  // see Model::set_attention_threshold
};

/// Rows run through the layers together; a longer batch goes through in pieces of this many.
inline constexpr int64_t kMaxChunkRows = 512;

/// What one decoded token takes from weights (the cache comes on top): bytes read and multiply-adds done.
struct TokenCost {
  int64_t bytes = 0, multiply_adds = 0;
  int64_t int8_multiply_adds = 0;    // those of them that kernels do in integers
  int64_t output_multiply_adds = 0;  // those of the output matrix: a prompt takes them once, for its last token
  bool int8_output = false;
  int64_t rest_bytes = 0;  // of bytes: of the output matrix, what few candidates need not read (kernels/head.h)
};

/// Values that attention read of those that queries see, an output and a token each.
struct AttentionReads {
  int64_t read = 0, seen = 0;
};

/// A model ready to run. One forward at a time; the pool must outlive it.
class Model {
 public:
  /// Packs weights in parallel. Throws Error for weights that are missing or misshaped.
  static std::unique_ptr<Model> load(const Checkpoint& checkpoint, ThreadPool& pool, const LoadOptions& options = {});
  /// Random weights of a shape, made in memory, for benchmarks.
  struct RandomOptions {
    std::optional<DType> head;  // of the embedding and the output matrix; by default as the others
    std::string kernel;         // see WeightStore
    Progress* progress = nullptr;
  };
  static std::unique_ptr<Model> random(const ModelConfig& config, DType matrices, ThreadPool& pool, uint64_t seed,
                                       const RandomOptions& options);
  static std::unique_ptr<Model> random(const ModelConfig& config, DType matrices, ThreadPool& pool, uint64_t seed) {
    return random(config, matrices, pool, seed, RandomOptions());
  }
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const ModelConfig& config() const { return config_; }
  ThreadPool& pool() const { return pool_; }
  /// Runs the batch, appends to the cache, and writes the logits of rows that want them, in order: logits
  /// [wanted, vocabulary]. Throws Error for tokens or sequences out of range, positions that do not continue the cache,
  /// a full context, or too little room for logits, before anything is changed.
  void forward(const Batch& batch, KvCache& cache, std::span<float> logits, Observer* observer = nullptr);
  /// The same for a batch of which one row wants logits, but of those only the `count` largest (0: all) and any that
  /// equal the last of them, by token; those that are NaN, if some are. Output matrices in two parts compute no more.
  void forward(const Batch& batch, KvCache& cache, int64_t count, std::vector<TokenLogit>& candidates);
  /// From now on attention, of either kind, leaves out values whose weights are below this part of the largest of their
  /// row, in pages of the cache that a row sees whole, and puts a page's mean in their place: faster on long contexts,
  /// and not the same result. 0 leaves nothing out. Throws Error unless it is in [0, 1).
  void set_attention_threshold(float threshold);
  float attention_threshold() const { return attention_threshold_; }
  /// [layers] What was read since the threshold was set; only counted where one is.
  std::span<const AttentionReads> attention_reads() const { return reads_; }
  TokenCost cost_per_token() const;
  /// Bytes of weights held: packed in memory, and used in place in mapped files.
  int64_t packed_bytes() const;
  int64_t mapped_bytes() const;

 private:
  struct Layer;
  struct Workspace;
  struct Chunk;
  Model(const ModelConfig& config, ThreadPool& pool);
  /// What becomes of the rows that want logits: all logits, or the candidates of the only one.
  struct Output {
    float* logits = nullptr;
    int64_t count = 0;
    std::vector<TokenLogit>* candidates = nullptr;
  };
  int64_t check_batch(const Batch& batch, const KvCache& cache) const;
  void run_batch(const Batch& batch, KvCache& cache, Output output, Observer* observer);
  void run_chunk(Chunk& chunk, KvCache& cache, const Output& output, Observer* observer);
  void run_attention(int layer, Chunk& chunk, KvCache& cache, Observer* observer);
  void run_mlp(int layer, Chunk& chunk, Observer* observer);
  void run_output(Chunk& chunk, const Output& output, Observer* observer);
  struct AttentionRun;
  void rotate_queries(int layer, int64_t row, int first, int count);
  void store_key(int layer, const Chunk& chunk, KvCache& cache, int64_t row, int kv_head);
  void store_value(int layer, const Chunk& chunk, KvCache& cache, int64_t row, int kv_head);
  void prepare_own(const AttentionRun& run, int64_t task);
  void attend(int layer, Chunk& chunk, KvCache& cache);
  void gather(const AttentionRun& run, int64_t tile, const HeadGroup& group, int worker);
  kernels::AttendArgs attend_args(const AttentionRun& run, int64_t task, int worker, int64_t own);
  kernels::TwoPassArgs two_pass_args(const AttentionRun& run, int64_t task, int worker, int64_t own);
  void attend_online(const AttentionRun& run);
  void attend_two_pass(const AttentionRun& run);
  void finish_outputs(const AttentionRun& run, const kernels::TwoPassArgs& args);
  void fill_lambda(int layer, int64_t rows);
  void load_differential(const Checkpoint& checkpoint, int layer, WeightStore& store);
  void set_sub_normed(const std::vector<float>& gain, float* values, int64_t rows, int64_t width);
  void add_product(const LinearGroup& group);
  void link_groups();
  template <class Visit>
  void each_group(Visit visit);
  template <class Visit>
  void each_matrix(Visit visit) const;

  ModelConfig config_;
  ThreadPool& pool_;
  std::vector<Layer> layers_;
  std::shared_ptr<const PackedWeight> embedding_;
  std::vector<float> output_norm_;
  LinearGroup output_;  // the embedding again if tied
  std::unique_ptr<Workspace> work_;
  Communicator communicator_;  // one process
  float attention_threshold_ = 0;
  std::vector<AttentionReads> reads_;  // [layers]
};

}  // namespace pare
