#include <algorithm>

#include "kernels/elementwise.h"
#include "model/workspace.h"

// Attention of one layer: from queries, keys and values of a chunk's rows to what its heads make of the cache.

namespace pare {
namespace {

// Tasks a thread gets of attention before contexts are cut into spans: enough that threads end at about the same time.
constexpr int64_t kTasksPerThread = 8;

}  // namespace

/// One KV head of one row, and the queries that read it.
void Model::rotate_and_store(int index, const Chunk& chunk, KvCache& cache, int64_t row, int kv_head) {
  static const kernels::Elementwise& math = kernels::elementwise(cpu_features());
  const AttentionConfig& config = *config_.layers[static_cast<size_t>(index)].attention;
  Workspace& w = *work_;
  const int group = config.heads / config.kv_heads;
  const int64_t half = config.rope.dims / 2, at = row * config.kv_heads + kv_head;
  const float *cos = w.cos.data() + row * half, *sin = w.sin.data() + row * half;
  float* k = w.key.data() + at * config.head_dim;
  math.rope(w.query.data() + at * group * config.head_dim, group, config.head_dim, config.rope.dims, cos, sin,
            config.rope.layout);
  math.rope(k, 1, config.head_dim, config.rope.dims, cos, sin, config.rope.layout);
  const int sequence = chunk.batch.sequence[static_cast<size_t>(row)];
  const int64_t slot = cache.length(sequence, index) - chunk.rows_after(row) - 1;
  cache.store(sequence, index, kv_head, slot, k, w.value.data() + at * config.head_dim);
}

/// The queries of a tile that read one KV head, gathered in the worker's lists.
kernels::AttendArgs Model::attend_args(int index, const Chunk& chunk, const KvCache& cache, int64_t tile_index,
                                       int kv_head, int worker, float* scratch) {
  const AttentionConfig& config = *config_.layers[static_cast<size_t>(index)].attention;
  Workspace& w = *work_;
  const Chunk::Tile& tile = chunk.tiles[static_cast<size_t>(tile_index)];
  const int group = config.heads / config.kv_heads;
  const int sequence = chunk.batch.sequence[static_cast<size_t>(tile.first)];
  Workspace::Pointers& p = w.pointers[static_cast<size_t>(worker)];
  p.clear();
  for (int64_t row = tile.first; row < tile.first + tile.count; ++row) {
    for (int g = 0; g < group; ++g) {
      const int64_t offset = (row * config.heads + int64_t{kv_head} * group + g) * config.head_dim;
      p.queries.push_back(w.query.data() + offset);
      p.outputs.push_back(w.mixed.data() + offset);
      p.visible.push_back(cache.length(sequence, index) - chunk.rows_after(row));
    }
  }
  return {cache.key_pages(sequence, index, kv_head).data(),
          cache.value_pages(sequence, index, kv_head).data(),
          config.head_dim,
          config.head_dim,
          config.scale,
          static_cast<int>(p.queries.size()),
          p.queries.data(),
          p.outputs.data(),
          p.visible.data(),
          scratch};
}

void Model::attend(int index, Chunk& chunk, KvCache& cache) {
  const AttentionConfig& config = *config_.layers[static_cast<size_t>(index)].attention;
  Workspace& w = *work_;
  const int group = config.heads / config.kv_heads, kv_heads = config.kv_heads;
  const int64_t rows = chunk.batch.rows(), q_width = int64_t{config.heads} * config.head_dim,
                kv_width = int64_t{config.kv_heads} * config.head_dim;
  w.fill_rope(config.rope, chunk.batch);
  for (const Chunk::Run& run : chunk.runs) cache.extend(run.sequence, index, run.count);
  const int tile_rows = std::max(1, kAttentionTile / group);
  chunk.make_tiles(tile_rows);
  const auto tiles = static_cast<int64_t>(chunk.tiles.size()), tasks = tiles * kv_heads;
  int64_t work = 0, longest = 0;
  for (const Chunk::Tile& tile : chunk.tiles) {
    const int64_t length = cache.length(chunk.batch.sequence[static_cast<size_t>(tile.first)], index);
    work += tile.count * q_width * length;
    longest = std::max(longest, length);
  }
  const int64_t spans = kernels::kv_spans(longest);
  const bool split = spans > 1 && tasks < pool_.size() * kTasksPerThread;
  // A row alone in its sequence sees no other's key of this chunk, so its heads need not wait for each other.
  const bool alone = !split && static_cast<int64_t>(chunk.runs.size()) == rows;
  if (!alone) {
    for_rows(pool_, rows, rows * (q_width + 2 * kv_width), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        for (int head = 0; head < kv_heads; ++head) rotate_and_store(index, chunk, cache, i, head);
      }
    });
  }
  const kernels::KvFormat& format = cache.format();
  const int64_t scratch = kernels::attend_scratch(tile_rows * group, config.head_dim, split ? spans : 2);
  w.reserve_scratch(pool_.size(), (split ? tasks : pool_.size()) * scratch);
  // Later tiles see more tokens; handing out the longest first keeps threads busy to the end.
  const auto task_args = [&](int64_t task, int worker, int64_t own) {
    const int64_t tile = tiles - 1 - task / kv_heads;
    const auto head = static_cast<int>(task % kv_heads);
    if (alone) rotate_and_store(index, chunk, cache, chunk.tiles[static_cast<size_t>(tile)].first, head);
    return attend_args(index, chunk, cache, tile, head, worker, w.scratch.data() + own * scratch);
  };
  if (!split) {
    for_tasks(pool_, tasks, work, [&](int64_t begin, int64_t end, int worker) {
      for (int64_t task = begin; task < end; ++task) format.attend(task_args(task, worker, worker));
    });
    return;
  }
  for_tasks(pool_, tasks * spans, work, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t task = i / spans;
      format.attend_span(task_args(task, worker, task), i % spans);
    }
  });
  for_tasks(pool_, tasks, spans * rows * q_width, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t task = begin; task < end; ++task) format.merge_spans(task_args(task, worker, task));
  });
}

}  // namespace pare
