#include <algorithm>
#include <thread>
#include <utility>

#include "kernels/elementwise.h"
#include "model/workspace.h"

// Attention of one layer: from queries, keys and values of a chunk's rows to what its heads make of the cache.

namespace pare {
namespace {

// Tasks a thread gets of attention before contexts are cut into spans: enough that threads end at about the same time.
constexpr int64_t kTasksPerThread = 8;
// Storing a row's keys and values costs as much as touching so many times as many values.
constexpr int64_t kStoringWork = 8;
// How often a task looks whether another has stored what both read, before it gives its core away.
constexpr int64_t kStoreSpins = 10000;
// Keys of so many neighbouring tokens lie in the same cache lines of a page, so one thread stores them.
constexpr int64_t kStoredTogether = 16;

/// Tokens that are scored: those of whole pages.
constexpr int64_t whole_pages(int64_t tokens) {
  return (tokens + kernels::kKvPageTokens - 1) / kernels::kKvPageTokens * kernels::kKvPageTokens;
}

/// The slot of a row in its sequence, whose last rows are those of the chunk.
int64_t slot_of(const KvCache& cache, int index, int sequence, int64_t rows_after) {
  return cache.length(sequence, index) - rows_after - 1;
}

}  // namespace

/// Query heads [first, first + count) of one row.
void Model::rotate_queries(int index, int64_t row, int first, int count) {
  const kernels::Elementwise& math = kernels::elementwise();
  const AttentionConfig& config = *config_.layers[static_cast<size_t>(index)].attention;
  Workspace& w = *work_;
  const int64_t half = config.rope.dims / 2;
  math.rope(w.query.data() + (row * config.heads + first) * config.head_dim, count, config.head_dim, config.rope.dims,
            w.cos.data() + row * half, w.sin.data() + row * half, config.rope.layout);
}

/// The key of one KV head of one row, rotated.
void Model::store_key(int index, const Chunk& chunk, KvCache& cache, int64_t row, int kv_head) {
  const kernels::Elementwise& math = kernels::elementwise();
  const AttentionConfig& config = *config_.layers[static_cast<size_t>(index)].attention;
  Workspace& w = *work_;
  const int64_t half = config.rope.dims / 2;
  float* key = w.key.data() + (row * config.kv_heads + kv_head) * config.head_dim;
  math.rope(key, 1, config.head_dim, config.rope.dims, w.cos.data() + row * half, w.sin.data() + row * half,
            config.rope.layout);
  const int sequence = chunk.batch.sequence[static_cast<size_t>(row)];
  cache.store(sequence, index, kv_head, slot_of(cache, index, sequence, chunk.rows_after(row)), key, nullptr);
}

/// Its value.
void Model::store_value(int index, const Chunk& chunk, KvCache& cache, int64_t row, int kv_head) {
  const AttentionConfig& config = *config_.layers[static_cast<size_t>(index)].attention;
  const float* value = work_->value.data() + (row * config.kv_heads + kv_head) * config.head_dim;
  const int sequence = chunk.batch.sequence[static_cast<size_t>(row)];
  cache.store(sequence, index, kv_head, slot_of(cache, index, sequence, chunk.rows_after(row)), nullptr, value);
}

/// What the tasks of one layer have in common. A task is a tile of rows and a part of a group of heads.
struct Model::AttentionRun {
  int index;
  const AttentionConfig& config;
  const AttentionWeights& weights;
  const Chunk& chunk;
  KvCache& cache;
  int64_t tiles = 0, tasks = 0;
  int64_t spans = 0;    // of the longest sequence
  int parts = 1;        // of a group
  int64_t scratch = 0;  // floats of a task
  int64_t work = 0;     // values touched
  bool split = false;   // spans are tasks of their own
  bool alone = false;   // each row is alone in its sequence, so that tasks store their own keys and values

  // Heads one after the other, so that a thread reads keys and values of few. Later tiles see more tokens: the last is
  // followed by the first, then the second last and the second, so that any few neighbours are about as much work as
  // any others.
  int64_t tile_of(int64_t task) const {
    const int64_t at = task % tiles;
    return at % 2 == 0 ? tiles - 1 - at / 2 : at / 2;
  }
  HeadGroup group_of(int64_t task) const {
    const auto at = static_cast<int>(task / tiles);
    HeadGroup group = config.group(at / parts);
    group.count /= parts;
    group.first += at % parts * group.count;
    return group;
  }
  /// Parts each of the groups' outputs is cut into where they would be fewer tasks than threads.
  void cut_groups(int outputs, int threads) {
    while (tasks * 2 <= threads && outputs % (parts * 2) == 0) tasks *= 2, parts *= 2;
  }
  int sequence_of(int64_t task) const {
    return chunk.batch.sequence[static_cast<size_t>(chunk.tiles[static_cast<size_t>(tile_of(task))].first)];
  }
};

/// What a task that computes all of its tile's attention needs before: its queries rotated; and where each row is alone
/// in its sequence the key and value of its row stored, once for all tasks that read them: by the first to come.
void Model::prepare_own(const AttentionRun& run, int64_t task) {
  Workspace& w = *work_;
  const AttentionConfig& config = run.config;
  const Chunk::Tile& tile = run.chunk.tiles[static_cast<size_t>(run.tile_of(task))];
  const int64_t begun = 2 * w.round;
  const HeadGroup group = run.group_of(task);
  const int stored_parts = run.alone ? group.value_parts : 0;
  const auto state_of = [&](int part) -> std::atomic<int64_t>& {
    return w.stored[static_cast<size_t>(tile.first * config.kv_heads + group.key_heads[part])].state;
  };
  for (int part = 0; part < stored_parts; ++part) {
    std::atomic<int64_t>& state = state_of(part);
    int64_t seen = state.load(std::memory_order_relaxed);
    if (seen >= begun || !state.compare_exchange_strong(seen, begun, std::memory_order_relaxed)) continue;
    store_key(run.index, run.chunk, run.cache, tile.first, group.key_heads[part]);
    store_value(run.index, run.chunk, run.cache, tile.first, group.key_heads[part]);
    state.store(begun + 1, std::memory_order_release);
  }
  for (int64_t row = tile.first; row < tile.first + tile.count; ++row)
    for (int output = group.first; output < group.first + group.count; ++output)
      for (int map = 0; map < group.maps; ++map)
        rotate_queries(run.index, row, output * group.output_stride + map * group.map_stride, 1);
  for (int part = 0; part < stored_parts; ++part)
    for (int64_t spins = 0; state_of(part).load(std::memory_order_acquire) != begun + 1; ++spins)
      if (spins > kStoreSpins) std::this_thread::yield();  // more threads than cores: let the other one run
}

/// The queries of a tile that read a group's KV heads, gathered in the worker's lists.
void Model::gather(const AttentionRun& run, int64_t tile_index, const HeadGroup& group, int worker) {
  const AttentionConfig& config = run.config;
  Workspace& w = *work_;
  const Chunk::Tile& tile = run.chunk.tiles[static_cast<size_t>(tile_index)];
  const int sequence = run.chunk.batch.sequence[static_cast<size_t>(tile.first)];
  Workspace::Pointers& p = w.pointers[static_cast<size_t>(worker)];
  p.clear();
  for (int64_t row = tile.first; row < tile.first + tile.count; ++row) {
    for (int output = group.first; output < group.first + group.count; ++output) {
      for (int map = 0; map < group.maps; ++map) {
        const int64_t head = int64_t{output} * group.output_stride + int64_t{map} * group.map_stride;
        p.queries[map].push_back(w.query.data() + (row * config.heads + head) * config.head_dim);
      }
      const int64_t at = row * config.outputs() + output;
      p.outputs.push_back(w.mixed.data() + at * config.output_dim());
      p.visible.push_back(run.cache.length(sequence, run.index) - run.chunk.rows_after(row));
      if (config.is_differential()) p.lambda.push_back(w.lambda[static_cast<size_t>(at)]);
    }
  }
}

kernels::AttendArgs Model::attend_args(const AttentionRun& run, int64_t task, int worker, int64_t own) {
  const HeadGroup group = run.group_of(task);
  const int sequence = run.sequence_of(task);
  gather(run, run.tile_of(task), group, worker);
  const Workspace::Pointers& p = work_->pointers[static_cast<size_t>(worker)];
  return {run.cache.key_pages(sequence, run.index, group.key_heads[0]).data(),
          run.cache.value_pages(sequence, run.index, group.value_heads[0]).data(),
          run.config.head_dim,
          run.config.head_dim,
          run.config.scale,
          static_cast<int>(p.outputs.size()),
          p.queries[0].data(),
          p.outputs.data(),
          p.visible.data(),
          work_->scratch.data() + own * run.scratch};
}

kernels::TwoPassArgs Model::two_pass_args(const AttentionRun& run, int64_t task, int worker, int64_t own) {
  const HeadGroup group = run.group_of(task);
  const int sequence = run.sequence_of(task);
  gather(run, run.tile_of(task), group, worker);
  Workspace::Pointers& p = work_->pointers[static_cast<size_t>(worker)];
  const auto keys = [&](int i) { return run.cache.key_pages(sequence, run.index, group.key_heads[i]).data(); };
  const auto values = [&](int i) { return run.cache.value_pages(sequence, run.index, group.value_heads[i]).data(); };
  const auto means = [&](int i) -> const float* {
    if (attention_threshold_ == 0) return nullptr;
    return run.cache.value_means(sequence, run.index, group.value_heads[i]);
  };
  return {group.maps,
          group.value_parts,
          {keys(0), keys(1)},
          {values(0), values(1)},
          run.config.head_dim,
          run.config.head_dim,
          run.config.scale,
          static_cast<int>(p.outputs.size()),
          {p.queries[0].data(), p.queries[1].data()},
          p.lambda.data(),
          p.outputs.data(),
          p.visible.data(),
          attention_threshold_,
          {means(0), means(1)},
          work_->scratch.data() + own * run.scratch,
          &p.read};
}

void Model::attend_online(const AttentionRun& run) {
  const kernels::KvFormat& format = run.cache.format();
  if (!run.split) {
    for_tasks(pool_, run.tasks, run.work, [&](int64_t begin, int64_t end, int worker) {
      for (int64_t task = begin; task < end; ++task) {
        prepare_own(run, task);
        format.attend(attend_args(run, task, worker, worker));
      }
    });
    return;
  }
  for_tasks(pool_, run.tasks * run.spans, run.work, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t task = i / run.spans;
      format.attend_span(attend_args(run, task, worker, task), i % run.spans);
    }
  });
  for_tasks(pool_, run.tasks, run.spans * run.tasks * run.scratch, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t task = begin; task < end; ++task) format.merge_spans(attend_args(run, task, worker, task));
  });
}

/// The norm of each output, where there is one.
void Model::finish_outputs(const AttentionRun& run, const kernels::TwoPassArgs& args) {
  const kernels::Elementwise& math = kernels::elementwise();
  run.cache.format().two_pass.outputs(args);
  if (run.weights.head_norm.empty()) return;
  for (int i = 0; i < args.query_count; ++i) {
    math.rms_norm(args.outputs[i], run.weights.head_norm.data(), config_.norm_epsilon, args.outputs[i],
                  run.config.output_dim());
  }
}

void Model::attend_two_pass(const AttentionRun& run) {
  const kernels::TwoPassSteps& steps = run.cache.format().two_pass;
  const auto spans_of = [](const kernels::TwoPassArgs& args) {
    return kernels::kv_spans(*std::max_element(args.visible, args.visible + args.query_count));
  };
  const auto whole_task = [&](int64_t task, int worker) {
    prepare_own(run, task);
    const kernels::TwoPassArgs args = two_pass_args(run, task, worker, worker);
    const int64_t spans = spans_of(args);
    for (int64_t span = 0; span < spans; ++span) steps.scores(args, span);
    steps.normalise(args);
    for (int64_t span = 0; span < spans; ++span) {
      steps.weights(args, span);
      if (args.threshold == 0) steps.values(args, span);  // while the weights are in cache
    }
    for (int64_t span = 0; args.threshold > 0 && span < spans; ++span) steps.values(args, span);
    finish_outputs(run, args);
  };
  const auto each_task = [&](int64_t work, auto step) {
    for_tasks(pool_, run.tasks, work, [&](int64_t begin, int64_t end, int worker) {
      for (int64_t task = begin; task < end; ++task) step(task, worker);
    });
  };
  if (!run.split) {
    each_task(run.work, whole_task);
    return;
  }
  const auto each_span = [&](void (*step)(const kernels::TwoPassArgs&, int64_t)) {
    for_tasks(pool_, run.tasks * run.spans, run.work, [&](int64_t begin, int64_t end, int worker) {
      for (int64_t i = begin; i < end; ++i) {
        const kernels::TwoPassArgs args = two_pass_args(run, i / run.spans, worker, i / run.spans);
        if (i % run.spans < spans_of(args)) step(args, i % run.spans);
      }
    });
  };
  const int64_t small_work = run.tasks * run.spans * kernels::kKvPageTokens;
  each_span(steps.scores);
  each_task(small_work, [&](int64_t task, int worker) { steps.normalise(two_pass_args(run, task, worker, task)); });
  each_span(steps.weights);
  each_span(steps.values);
  each_task(small_work, [&](int64_t task, int worker) { finish_outputs(run, two_pass_args(run, task, worker, task)); });
}

/// lambda of each row and pair: the layer's, or the sigmoid of a projection of the input that queries and keys have.
void Model::fill_lambda(int index, int64_t rows) {
  const kernels::Elementwise& math = kernels::elementwise();
  const AttentionConfig& config = *config_.layers[static_cast<size_t>(index)].attention;
  AttentionWeights& weights = *layers_[static_cast<size_t>(index)].attention;
  Workspace& w = *work_;
  const int64_t count = rows * config.outputs();
  float* lambda = w.lambda.data();
  if (weights.lambda_inputs.linears.empty()) {
    std::fill(lambda, lambda + count, weights.lambda);
    return;
  }
  float* const to[] = {lambda};
  w.multiplier.run(weights.lambda_inputs, w.input, to);
  for (int64_t i = 0; i < count; ++i) lambda[i] = -lambda[i];
  math.exp_shifted(lambda, 0, lambda, count);
  for (int64_t i = 0; i < count; ++i) lambda[i] = 1 / (1 + lambda[i]);
}

void Model::attend(int index, Chunk& chunk, KvCache& cache) {
  const AttentionConfig& config = *config_.layers[static_cast<size_t>(index)].attention;
  Workspace& w = *work_;
  const HeadGroup group = config.group(0);
  const int64_t rows = chunk.batch.rows(), q_width = int64_t{config.heads} * config.head_dim,
                kv_width = int64_t{config.kv_heads} * config.head_dim;
  w.fill_rope(config.rope, chunk.batch);
  for (const Chunk::Run& run : chunk.runs) cache.extend(run.sequence, index, run.count, true);
  const int tile_rows = std::max(1, kAttentionTile / (group.count * group.maps));
  chunk.make_tiles(tile_rows);
  AttentionRun run{index, config, *layers_[static_cast<size_t>(index)].attention, chunk, cache};
  run.tiles = static_cast<int64_t>(chunk.tiles.size());
  run.tasks = run.tiles * config.group_count();
  int64_t longest = 0;
  for (const Chunk::Tile& tile : chunk.tiles) {
    const int64_t length = cache.length(chunk.batch.sequence[static_cast<size_t>(tile.first)], index);
    run.work += tile.count * q_width * whole_pages(length);
    longest = std::max(longest, length);
  }
  run.spans = kernels::kv_spans(longest);
  run.cut_groups(group.count, pool_.size());
  run.split = run.spans > 1 && run.tasks < pool_.size() * kTasksPerThread;
  // A row alone in its sequence sees no other's key of this chunk, so its heads need not wait for each other; but means
  // of pages are made before any head begins.
  run.alone = !run.split && static_cast<int64_t>(chunk.runs.size()) == rows && attention_threshold_ == 0;
  if (run.alone) {
    const auto states = static_cast<size_t>(rows * config.kv_heads);
    if (w.stored.size() < states) w.stored = std::vector<Workspace::Stored>(states);
    ++w.round;
  } else {
    std::vector<int64_t> starts;  // rows whose keys begin a group that is stored together
    for (const Chunk::Run& r : chunk.runs) {
      const int64_t slot = cache.length(r.sequence, index) - r.count;
      for (int64_t i = 0; i < r.count; ++i) {
        if (i == 0 || (slot + i) % kStoredTogether == 0) starts.push_back(r.first + i);
      }
    }
    const auto groups = static_cast<int64_t>(starts.size());
    starts.push_back(rows);
    // Queries that several tasks read are rotated before.
    const int parts = run.split ? 3 : 2;
    const int64_t work = rows * (2 * kv_width + (run.split ? q_width : 0)) * kStoringWork;
    const int readers = config.heads / config.kv_heads;
    for_tasks(pool_, parts * config.kv_heads * groups, work, [&](int64_t begin, int64_t end, int) {
      for (int64_t task = begin; task < end; ++task) {
        const auto group_at = static_cast<size_t>(task / parts % groups);
        const auto kv_head = static_cast<int>(task / parts / groups);
        for (int64_t i = starts[group_at]; i < starts[group_at + 1]; ++i) {
          if (task % parts == 0) store_key(index, chunk, cache, i, kv_head);
          if (task % parts == 1) store_value(index, chunk, cache, i, kv_head);
          if (task % parts == 2) rotate_queries(index, i, kv_head * readers, readers);
        }
      }
    });
  }
  if (attention_threshold_ > 0) {
    for (const Chunk::Run& r : chunk.runs) cache.update_means(r.sequence, index);
  }
  const bool two_pass = config.is_differential() || attention_threshold_ > 0;
  const int queries = tile_rows * group.count;
  run.scratch = two_pass
                    ? run.spans * kernels::two_pass_span_floats(group.maps, group.value_parts, config.head_dim, queries)
                    : kernels::attend_scratch(queries, config.head_dim, run.split ? run.spans : 2);
  w.reserve_scratch(pool_.size(), (run.split ? run.tasks : pool_.size()) * run.scratch);
  two_pass ? attend_two_pass(run) : attend_online(run);
  if (attention_threshold_ == 0) return;
  AttentionReads& reads = reads_[static_cast<size_t>(index)];
  for (Workspace::Pointers& p : w.pointers) reads.read += std::exchange(p.read, 0);
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t length = cache.length(chunk.batch.sequence[static_cast<size_t>(row)], index);
    reads.seen += config.outputs() * (length - chunk.rows_after(row));
  }
}

}  // namespace pare
