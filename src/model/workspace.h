#pragma once
#include <atomic>
#include <cstdint>
#include <optional>
#include <vector>

#include "model/model.h"
#include "model/rope.h"

namespace pare {

// What a forward pass works with; only model.cc and attention.cc include this.

/// Queries that share one pass over a KV head's pages.
inline constexpr int kAttentionTile = 24;

struct AttentionWeights {
  std::vector<float> norm;      // [hidden]
  std::vector<float> sub_norm;  // [heads * head_dim], or none
  LinearGroup inputs;           // query, key, value
  LinearGroup output;
  // Of differential attention:
  LinearGroup lambda_inputs = {};  // projects to a lambda for each token and pair; empty if the layer has one for all
  float lambda = 0;                // that one
  std::vector<float> head_norm = {};  // [output_dim] gain of each output's norm, 1 - lambda_init in it; or empty
};

struct MlpWeights {
  std::vector<float> norm;      // [hidden]
  std::vector<float> sub_norm;  // [width], or none
  LinearGroup inputs;           // gate, up
  LinearGroup output;           // down
};

struct Model::Layer {
  std::optional<AttentionWeights> attention;
  std::optional<MlpWeights> mlp;
};

/// Buffers of one chunk, reused from call to call.
struct Model::Workspace {
  struct Pointers {
    std::vector<const float*> queries[kernels::kMostMaps];
    std::vector<float*> outputs;
    std::vector<int64_t> visible;
    std::vector<float> lambda;
    int64_t read = 0;  // values, where a threshold is set
    void clear() {
      for (auto& list : queries) list.clear();
      outputs.clear();
      visible.clear();
      lambda.clear();
    }
  };
  /// Whether a key and value of this round are stored: 2 * round once one of the tasks that need them has begun, one
  /// more once it has ended.
  struct alignas(64) Stored {
    std::atomic<int64_t> state{0};
  };
  Buffer<float> stream;            // [rows, hidden] the residual stream
  Buffer<float> normed;            // [rows, hidden]
  Buffer<float> delta;             // [rows, hidden] a part of a sum over ranks; rows whose logits are wanted
  Buffer<float> query;             // [rows, heads * head_dim]
  Buffer<float> key;               // [rows, kv_heads * head_dim]
  Buffer<float> value;             // [rows, kv_heads * head_dim]
  Buffer<float> mixed;             // [rows, outputs * output_dim] attention's output before its projection
  Buffer<float> lambda;            // [rows, outputs] of differential attention
  Buffer<float> activated;         // [rows, width] what the down projection reads
  Buffer<float> cos;               // [rows, dims / 2]
  Buffer<float> sin;               // [rows, dims / 2]
  Buffer<float> scratch;           // [threads or tasks, attend_scratch]
  std::vector<Pointers> pointers;  // [threads]
  std::vector<Stored> stored;      // [rows, kv_heads]
  int64_t round = 0;               // of attention
  LinearInput input;
  Multiplier multiplier;
  CandidateSearch search;

  explicit Workspace(ThreadPool& pool) : input(pool.size()), multiplier(pool), search(pool) {}
  void reserve(const ModelConfig& config, int64_t rows);
  void reserve_scratch(int threads, int64_t floats);
  /// cos and sin of every row for a rope; kept while the same rope and chunk are asked for.
  void fill_rope(const RopeConfig& rope, const Batch& batch);

 private:
  const RopeFrequencies& frequencies(const RopeConfig& rope, int64_t sequence_length);
  RopeConfig filled_;  // what cos and sin hold
  std::vector<int32_t> filled_position_, filled_length_;
  RopeConfig known_;  // what frequencies_ was made from
  int64_t known_length_ = -1;
  RopeFrequencies frequencies_;
};

/// A piece of a batch, with what is derived from it.
struct Model::Chunk {
  struct Run {  // consecutive rows of one sequence
    int sequence;
    int64_t first, count;
  };
  struct Tile {  // rows of one sequence that attend together
    int64_t first, count;
  };
  Batch batch;
  std::vector<int32_t> wanted;  // rows whose logits are wanted
  std::vector<Run> runs;
  std::vector<Tile> tiles;

  void find_runs();
  void make_tiles(int tile_rows);
  /// Rows of the same sequence after row i in this chunk.
  int64_t rows_after(int64_t i) const { return after_[static_cast<size_t>(i)]; }

 private:
  std::vector<int32_t> after_;
  int tile_rows_ = 0;
};

}  // namespace pare
