#include "model/workspace.h"

#include <algorithm>

namespace pare {

void Model::Workspace::reserve(const ModelConfig& config, int64_t rows) {
  int64_t q = 0, kv = 0, mix = 0, lambdas = 0, width = 0, half = 0;
  for (const LayerConfig& layer : config.layers) {
    if (layer.attention) {
      q = std::max(q, int64_t{layer.attention->heads} * layer.attention->head_dim);
      kv = std::max(kv, int64_t{layer.attention->kv_heads} * layer.attention->head_dim);
      mix = std::max(mix, layer.attention->output_width());
      if (layer.attention->is_differential()) lambdas = std::max<int64_t>(lambdas, layer.attention->outputs());
      half = std::max<int64_t>(half, layer.attention->rope.dims / 2);
    }
    if (layer.mlp) width = std::max(width, layer.mlp->width);
  }
  const auto reserve_rows = [rows](Buffer<float>& buffer, int64_t columns) {
    buffer.reserve(static_cast<size_t>(rows * columns));
  };
  for (auto* buffer : {&stream, &normed, &delta}) reserve_rows(*buffer, config.hidden);
  reserve_rows(query, q);
  reserve_rows(mixed, mix);
  reserve_rows(lambda, lambdas);
  for (auto* buffer : {&key, &value}) reserve_rows(*buffer, kv);
  reserve_rows(activated, width);
  if (cos.size() < static_cast<size_t>(rows * half)) {
    filled_position_.clear();  // what they held is lost
    for (auto* buffer : {&cos, &sin}) reserve_rows(*buffer, half);
  }
}

void Model::Workspace::reserve_scratch(int threads, int64_t floats) {
  scratch.reserve(static_cast<size_t>(floats));
  pointers.resize(static_cast<size_t>(threads));
}

const RopeFrequencies& Model::Workspace::frequencies(const RopeConfig& rope, int64_t sequence_length) {
  const int64_t length = depends_on_length(rope) ? sequence_length : 0;
  if (known_length_ != length || !(known_ == rope)) {
    frequencies_ = rope_frequencies(rope, length);
    known_ = rope;
    known_length_ = length;
  }
  return frequencies_;
}

void Model::Workspace::fill_rope(const RopeConfig& rope, const Batch& batch) {
  if (filled_position_ == batch.position && filled_length_ == batch.sequence_length && filled_ == rope) return;
  const int64_t half = rope.dims / 2;
  for (int64_t i = 0; i < batch.rows(); ++i) {
    const auto at = static_cast<size_t>(i);
    rope_row(frequencies(rope, batch.sequence_length[at]), batch.position[at], cos.data() + i * half,
             sin.data() + i * half);
  }
  filled_ = rope;
  filled_position_ = batch.position;
  filled_length_ = batch.sequence_length;
}

void Model::Chunk::find_runs() {
  for (int64_t i = 0; i < batch.rows(); ++i) {
    const int sequence = batch.sequence[static_cast<size_t>(i)];
    if (runs.empty() || runs.back().sequence != sequence) runs.push_back({sequence, i, 0});
    ++runs.back().count;
  }
  after_.resize(static_cast<size_t>(batch.rows()));
  for (const Run& run : runs) {
    for (int64_t i = 0; i < run.count; ++i)
      after_[static_cast<size_t>(run.first + i)] = static_cast<int32_t>(run.count - 1 - i);
  }
}

void Model::Chunk::make_tiles(int tile_rows) {
  if (tile_rows_ == tile_rows) return;
  tile_rows_ = tile_rows;
  tiles.clear();
  for (const Run& run : runs) {
    for (int64_t first = 0; first < run.count; first += tile_rows) {
      tiles.push_back({run.first + first, std::min<int64_t>(tile_rows, run.count - first)});
    }
  }
}

}  // namespace pare
