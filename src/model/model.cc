#include "model/model.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "kernels/elementwise.h"
#include "model/rope.h"
#include "model/workspace.h"

namespace pare {

namespace {

// Bytes of a file that are read while others are packed.
constexpr int64_t kReadAhead = int64_t{64} << 20;
constexpr size_t kReadAtOnce = size_t{4} << 20;

/// Reads a checkpoint's weights layer by layer, each as it lies in its file, so far ahead of those that are loaded.
class FileReadAhead {
 public:
  explicit FileReadAhead(const Checkpoint& checkpoint) {
    for (const WeightTensor& weight : checkpoint.weights)
      parts_.push_back({weight.id, weight.mapped.empty() ? weight.made_from : weight.mapped, weight.bytes()});
    const auto when = [](const Part& part) {
      const bool last = part.id.kind == WeightKind::kOutputNorm || part.id.kind == WeightKind::kOutput;
      return std::pair(last ? std::numeric_limits<int>::max() : part.id.layer, part.source.data());
    };
    std::sort(parts_.begin(), parts_.end(), [&](const Part& a, const Part& b) { return when(a) < when(b); });
    thread_ = std::thread([this] { read(); });
  }
  ~FileReadAhead() {
    loaded_ = kOver;
    loaded_.notify_one();
    thread_.join();
  }
  FileReadAhead(const FileReadAhead&) = delete;
  FileReadAhead& operator=(const FileReadAhead&) = delete;
  void loaded(int64_t bytes) {
    loaded_ = bytes;
    loaded_.notify_one();
  }

 private:
  static constexpr int64_t kOver = -1;

  void read() {
    int64_t before = 0;  // bytes of the weights before this one, as `loaded` counts them
    for (const Part& part : parts_) {
      for (size_t at = 0; at < part.source.size(); at += kReadAtOnce) {
        const double share = static_cast<double>(at) / static_cast<double>(part.source.size());
        const int64_t here = before + static_cast<int64_t>(share * static_cast<double>(part.bytes));
        int64_t loaded = loaded_;
        for (; loaded != kOver && here >= loaded + kReadAhead; loaded = loaded_) loaded_.wait(loaded);
        if (loaded == kOver) return;
        MappedFile::populate(part.source.subspan(at, std::min(kReadAtOnce, part.source.size() - at)));
      }
      before += part.bytes;
    }
  }

  struct Part {
    WeightId id;
    std::span<const std::byte> source;
    int64_t bytes;
  };
  std::vector<Part> parts_;
  std::atomic<int64_t> loaded_{0};
  std::thread thread_;
};

const kernels::Elementwise& math() { return kernels::elementwise(); }

void show(Observer* observer, ActivationSite site, int layer, const Batch& batch, const float* values, int64_t rows,
          int64_t width) {
  if (!observer || !observer->wants(site, layer)) return;
  observer->observe(site, layer, batch, {values, static_cast<size_t>(rows * width)}, width);
}

/// The rows that are set for a product; their norm is taken now if they are wanted.
void show_input(Observer* observer, ActivationSite site, int layer, const Batch& batch, LinearInput& input,
                int64_t width, ThreadPool& pool) {
  if (!observer || !observer->wants(site, layer)) return;
  show(observer, site, layer, batch, input.values(pool), input.rows(), width);
}

}  // namespace

Model::Model(const ModelConfig& config, ThreadPool& pool)
    : config_(config),
      pool_(pool),
      layers_(config.layers.size()),
      work_(std::make_unique<Workspace>(pool)),
      reads_(config.layers.size()) {}

Model::~Model() = default;

std::unique_ptr<Model> Model::load(const Checkpoint& checkpoint, ThreadPool& pool, const LoadOptions& options) {
  std::unique_ptr<Model> model(new Model(checkpoint.config, pool));
  model->set_attention_threshold(options.attention_threshold);
  WeightStore own(pool, options.kernel);
  WeightStore& store = options.store ? *options.store : own;
  store.expect(matrix_weights(checkpoint.config));
  Progress& progress = options.progress ? *options.progress : no_progress();
  progress.start("loading", "B", checkpoint.bytes());
  int64_t done = 0;
  FileReadAhead read_ahead(checkpoint);
  const auto tensor = [&](WeightKind kind, int layer) -> const WeightTensor& {
    const WeightTensor* found = checkpoint.find({kind, layer});
    if (!found) fail("{}: {} is missing", checkpoint.path.string(), WeightId{kind, layer}.to_string());
    progress.update(done += found->bytes());
    read_ahead.loaded(done);
    return *found;
  };
  const auto vector = [&](WeightKind kind, int layer) { return store.vector(tensor(kind, layer)); };
  const auto sub_norm = [&](bool has, WeightKind kind, int layer) {
    return has ? vector(kind, layer) : std::vector<float>{};
  };
  const auto linear = [&](WeightKind kind, int layer, const LinearConfig& means, bool bias, WeightKind bias_kind) {
    return Linear{store.matrix(tensor(kind, layer), means), bias ? vector(bias_kind, layer) : std::vector<float>{}};
  };
  using enum WeightKind;
  const bool tied = checkpoint.config.tied_embedding;
  model->embedding_ = tied ? store.output(tensor(kEmbedding, -1)) : store.matrix(tensor(kEmbedding, -1));
  for (int i = 0; i < static_cast<int>(model->layers_.size()); ++i) {
    const LayerConfig& config = checkpoint.config.layers[static_cast<size_t>(i)];
    Layer& layer = model->layers_[static_cast<size_t>(i)];
    if (config.attention) {
      const bool qkv = config.attention->qkv_bias;
      const LinearConfig& means = config.attention->linear;
      layer.attention.emplace(AttentionWeights{
          vector(kAttentionNorm, i),
          sub_norm(config.attention->sub_norm, kAttentionSubNorm, i),
          {{linear(kQuery, i, means, qkv, kQueryBias), linear(kKey, i, means, qkv, kKeyBias),
            linear(kValue, i, means, qkv, kValueBias)}},
          {{linear(kAttentionOutput, i, means, config.attention->output_bias, kAttentionOutputBias)}}});
      if (config.attention->is_differential()) model->load_differential(checkpoint, i, store);
    }
    if (config.mlp) {
      const bool bias = config.mlp->bias;
      const LinearConfig& means = config.mlp->linear;
      layer.mlp.emplace(
          MlpWeights{vector(kMlpNorm, i),
                     sub_norm(config.mlp->sub_norm, kMlpSubNorm, i),
                     {{linear(kGate, i, means, bias, kGateBias), linear(kUp, i, means, bias, kUpBias)}, true},
                     {{linear(kDown, i, means, bias, kDownBias)}}});
    }
  }
  model->output_norm_ = vector(kOutputNorm, -1);
  model->output_.linears.push_back({tied ? model->embedding_ : store.output(tensor(kOutput, -1)), {}});
  model->link_groups();
  progress.finish();
  return model;
}

std::unique_ptr<Model> Model::random(const ModelConfig& config, DType matrices, ThreadPool& pool, uint64_t seed,
                                     const RandomOptions& options) {
  check_config(config, "shape");
  std::unique_ptr<Model> model(new Model(config, pool));
  WeightStore store(pool, options.kernel);
  const int64_t count = matrix_weights(config);
  int64_t done = 0;
  store.expect(count);
  Progress& progress = options.progress ? *options.progress : no_progress();
  progress.start("making random weights", "weights", count);
  const DType head = options.head.value_or(matrices);
  const auto shape_of = [&](WeightKind kind, int layer) {
    const Shape shape = expected_shape(config, {kind, layer}).value();
    progress.update(done += shape.count());
    return shape;
  };
  const auto linear = [&](WeightKind kind, int layer, const LinearConfig& means = {}) {
    const Shape shape = shape_of(kind, layer);
    return Linear{store.random(shape[0], shape[1], layer < 0 ? head : matrices, ++seed, means), {}};
  };
  const auto output = [&](WeightKind kind) {
    const Shape shape = shape_of(kind, -1);
    return store.random_output(shape[0], shape[1], head, ++seed);
  };
  const auto ones = [](bool has, int64_t n) { return std::vector<float>(has ? static_cast<size_t>(n) : 0, 1.0f); };
  const std::vector<float> gain = ones(true, config.hidden);
  using enum WeightKind;
  model->embedding_ = config.tied_embedding ? output(kEmbedding) : linear(kEmbedding, -1).weight;
  for (int i = 0; i < static_cast<int>(config.layers.size()); ++i) {
    Layer& layer = model->layers_[static_cast<size_t>(i)];
    const LayerConfig& of = config.layers[static_cast<size_t>(i)];
    if (of.attention) {
      const LinearConfig& means = of.attention->linear;
      layer.attention.emplace(
          AttentionWeights{gain,
                           ones(of.attention->sub_norm, of.attention->output_width()),
                           {{linear(kQuery, i, means), linear(kKey, i, means), linear(kValue, i, means)}},
                           {{linear(kAttentionOutput, i, means)}}});
      const DifferentialConfig& differential = of.attention->differential;
      if (of.attention->is_differential()) {
        layer.attention->lambda = differential.lambda_init;
        if (differential.head_norm) {
          layer.attention->head_norm.assign(static_cast<size_t>(of.attention->output_dim()),
                                            1 - differential.lambda_init);
        }
        if (differential.lambda == LambdaSource::kTokens) {
          layer.attention->lambda_inputs.linears.push_back(linear(kLambda, i));
        }
      }
    }
    if (of.mlp) {
      const LinearConfig& means = of.mlp->linear;
      layer.mlp.emplace(MlpWeights{gain,
                                   ones(of.mlp->sub_norm, of.mlp->width),
                                   {{linear(kGate, i, means), linear(kUp, i, means)}, true},
                                   {{linear(kDown, i, means)}}});
    }
  }
  model->output_norm_ = gain;
  model->output_.linears.push_back({config.tied_embedding ? model->embedding_ : output(kOutput), {}});
  model->link_groups();
  progress.finish();
  return model;
}

/// In the order of a forward pass.
template <class Visit>
void Model::each_group(Visit visit) {
  for (Layer& layer : layers_) {
    if (layer.attention) {
      visit(layer.attention->inputs);
      if (!layer.attention->lambda_inputs.linears.empty()) visit(layer.attention->lambda_inputs);
      visit(layer.attention->output);
    }
    if (layer.mlp) visit(layer.mlp->inputs), visit(layer.mlp->output);
  }
  visit(output_);
}

template <class Visit>
void Model::each_matrix(Visit visit) const {
  const_cast<Model*>(this)->each_group([&](const LinearGroup& group) {
    for (const Linear& linear : group.linears) visit(*linear.weight);
  });
}

/// The last group is followed by the first, of the next token. Layers stay where they are from now on.
void Model::link_groups() {
  LinearGroup* before = &output_;
  each_group([&](LinearGroup& group) {
    before->next = &group;
    before = &group;
  });
  for (Layer& layer : layers_) {
    if (layer.attention) {
      layer.attention->inputs.gain = layer.attention->norm;
      layer.attention->output.gain = layer.attention->sub_norm;
    }
    if (layer.mlp) {
      layer.mlp->inputs.gain = layer.mlp->norm;
      layer.mlp->output.gain = layer.mlp->sub_norm;
    }
  }
  output_.gain = output_norm_;
}

void Model::set_attention_threshold(float threshold) {
  if (!(threshold >= 0 && threshold < 1)) {
    fail("the attention threshold is {}, expected a number in [0, 1), a part of the largest weight", threshold);
  }
  attention_threshold_ = threshold;
  reads_.assign(layers_.size(), {});
}

TokenCost Model::cost_per_token() const {
  TokenCost cost;
  each_matrix([&](const PackedWeight& weight) {
    cost.bytes += weight.bytes();
    cost.multiply_adds += weight.rows * weight.columns;
    if (weight.packing().input != kernels::InputFormat::kFloat) cost.int8_multiply_adds += weight.rows * weight.columns;
  });
  const PackedWeight& output = *output_.linears[0].weight;
  cost.output_multiply_adds = output.rows * output.columns;
  cost.int8_output = output.packing().input != kernels::InputFormat::kFloat;
  if (const kernels::HeadBounds* bounds = output.packing().bounds) {
    cost.rest_bytes = output.bytes() - bounds->leading_bytes(output.rows, output.columns);
  }
  return cost;
}

int64_t Model::packed_bytes() const {
  int64_t bytes = 0;
  each_matrix([&](const PackedWeight& weight) { bytes += weight.mapped() ? 0 : weight.bytes(); });
  if (embedding_ != output_.linears[0].weight && !embedding_->mapped()) bytes += embedding_->bytes();
  return bytes;
}

int64_t Model::mapped_bytes() const {
  int64_t bytes = 0;
  each_matrix([&](const PackedWeight& weight) { bytes += weight.mapped() ? weight.bytes() : 0; });
  if (embedding_ != output_.linears[0].weight && embedding_->mapped()) bytes += embedding_->bytes();
  return bytes;
}

/// How many rows want logits.
int64_t Model::check_batch(const Batch& batch, const KvCache& cache) const {
  const size_t rows = batch.tokens.size();
  if (batch.sequence.size() != rows || batch.position.size() != rows || batch.wants_logits.size() != rows ||
      (!batch.sequence_length.empty() && batch.sequence_length.size() != rows)) {
    fail("a batch whose lists differ in length");
  }
  std::set<int> finished;
  int64_t next = 0;
  int64_t wanted = 0;
  for (size_t i = 0; i < rows; ++i) {
    const int sequence = batch.sequence[i];
    if (batch.tokens[i] < 0 || batch.tokens[i] >= config_.vocabulary) {
      fail("token {} is outside the vocabulary of {}", batch.tokens[i], config_.vocabulary);
    }
    if (sequence < 0 || sequence >= cache.sequences())
      fail("sequence {}: the cache has {}", sequence, cache.sequences());
    if (i == 0 || sequence != batch.sequence[i - 1]) {
      if (!finished.insert(sequence).second) fail("the rows of sequence {} do not lie together", sequence);
      next = cache.tokens(sequence);
    }
    if (batch.position[i] != next) fail("sequence {}: position {}, expected {}", sequence, batch.position[i], next);
    if (++next > cache.context()) fail("sequence {}: longer than the context of {} tokens", sequence, cache.context());
    wanted += batch.wants_logits[i] ? 1 : 0;
  }
  return wanted;
}

void Model::forward(const Batch& batch, KvCache& cache, std::span<float> logits, Observer* observer) {
  const int64_t values = check_batch(batch, cache) * config_.vocabulary;
  if (static_cast<int64_t>(logits.size()) < values) fail("room for {} logits, expected {}", logits.size(), values);
  run_batch(batch, cache, {.logits = logits.data()}, observer);
}

void Model::forward(const Batch& batch, KvCache& cache, int64_t count, std::vector<TokenLogit>& candidates) {
  const int64_t wanted = check_batch(batch, cache);
  if (wanted != 1) fail("candidates of {} rows, expected one", wanted);
  if (count < 0) fail("{} candidates, expected 0 or more", count);
  run_batch(batch, cache, {.count = count, .candidates = &candidates}, nullptr);
}

void Model::run_batch(const Batch& batch, KvCache& cache, Output output, Observer* observer) {
  std::map<int, int32_t> lengths;  // of each sequence after the whole call
  for (int64_t i = 0; i < batch.rows(); ++i)
    lengths[batch.sequence[static_cast<size_t>(i)]] = batch.position[static_cast<size_t>(i)] + 1;
  for (int64_t begin = 0; begin < batch.rows(); begin += kMaxChunkRows) {
    Chunk chunk;
    for (int64_t i = begin; i < std::min(begin + kMaxChunkRows, batch.rows()); ++i) {
      const auto at = static_cast<size_t>(i);
      chunk.batch.add(batch.tokens[at], batch.sequence[at], batch.position[at], batch.wants_logits[at]);
      chunk.batch.sequence_length.push_back(batch.sequence_length.empty() ? lengths[batch.sequence[at]]
                                                                          : batch.sequence_length[at]);
      if (batch.wants_logits[at]) chunk.wanted.push_back(static_cast<int32_t>(i - begin));
    }
    run_chunk(chunk, cache, output, observer);
    if (output.logits) output.logits += static_cast<int64_t>(chunk.wanted.size()) * config_.vocabulary;
  }
}

void Model::run_chunk(Chunk& chunk, KvCache& cache, const Output& output, Observer* observer) {
  const int64_t rows = chunk.batch.rows(), hidden = config_.hidden;
  chunk.find_runs();
  work_->reserve(config_, rows);
  float* x = work_->stream.data();
  for_rows(pool_, rows, rows * hidden, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      embedding_->unpack_row(chunk.batch.tokens[static_cast<size_t>(i)], x + i * hidden);
  });
  for (int layer = 0; layer < static_cast<int>(layers_.size()); ++layer) {
    show(observer, ActivationSite::kBlockIn, layer, chunk.batch, x, rows, hidden);
    if (layers_[static_cast<size_t>(layer)].attention) run_attention(layer, chunk, cache, observer);
    if (layers_[static_cast<size_t>(layer)].mlp) run_mlp(layer, chunk, observer);
    show(observer, ActivationSite::kBlockOut, layer, chunk.batch, x, rows, hidden);
  }
  for (const Chunk::Run& run : chunk.runs) cache.add_tokens(run.sequence, run.count);
  run_output(chunk, output, observer);
}

/// stream += group * the input that is set.
void Model::add_product(const LinearGroup& group) {
  Workspace& w = *work_;
  const int64_t hidden = config_.hidden, rows = w.input.rows();
  const auto add = [&](const Products& part) {
    const float* from = part.of(0);
    for (int64_t row = part.first; row < part.last; ++row, from += part.stride()) {
      math().add(w.stream.data() + row * hidden + part.begin, from, part.stride());
    }
  };
  if (communicator_.size() == 1) {
    w.multiplier.run(group, w.input, w.stream.data(), add);
    return;
  }
  // A part of a sum over ranks.
  float* const delta[] = {w.delta.data()};
  w.multiplier.run(group, w.input, delta);
  communicator_.all_reduce(w.delta.data(), rows * hidden);
  add({0, hidden, 0, rows, w.delta.data()});
}

/// The input of an output projection: the rows, normalised in place where `gain` is not empty.
void Model::set_sub_normed(const std::vector<float>& gain, float* values, int64_t rows, int64_t width) {
  Workspace& w = *work_;
  if (gain.empty()) {
    w.input.set(values, rows, width);
  } else {
    w.input.set_normed(values, gain, config_.norm_epsilon, values, rows);
  }
}

void Model::run_attention(int index, Chunk& chunk, KvCache& cache, Observer* observer) {
  const AttentionConfig& config = *config_.layers[static_cast<size_t>(index)].attention;
  const AttentionWeights& weights = *layers_[static_cast<size_t>(index)].attention;
  Workspace& w = *work_;
  const Batch& batch = chunk.batch;
  const int64_t rows = batch.rows(), hidden = config_.hidden;
  const int64_t q_width = int64_t{config.heads} * config.head_dim,
                kv_width = int64_t{config.kv_heads} * config.head_dim;
  show(observer, ActivationSite::kAttentionStreamIn, index, batch, w.stream.data(), rows, hidden);
  w.input.set_normed(w.stream.data(), weights.norm, config_.norm_epsilon, w.normed.data(), rows);
  show_input(observer, ActivationSite::kAttentionInput, index, batch, w.input, hidden, pool_);
  float* const qkv[] = {w.query.data(), w.key.data(), w.value.data()};
  w.multiplier.run(weights.inputs, w.input, qkv);
  if (config.is_differential()) fill_lambda(index, rows);
  attend(index, chunk, cache);
  show(observer, ActivationSite::kQuery, index, batch, w.query.data(), rows, q_width);
  show(observer, ActivationSite::kKey, index, batch, w.key.data(), rows, kv_width);
  show(observer, ActivationSite::kValue, index, batch, w.value.data(), rows, kv_width);
  set_sub_normed(weights.sub_norm, w.mixed.data(), rows, config.output_width());
  if (config.is_differential()) {
    show(observer, ActivationSite::kLambda, index, batch, w.lambda.data(), rows, config.outputs());
  }
  show_input(observer, ActivationSite::kAttentionMixed, index, batch, w.input, config.output_width(), pool_);
  add_product(weights.output);
  show(observer, ActivationSite::kAttentionStreamOut, index, batch, w.stream.data(), rows, hidden);
}

void Model::run_mlp(int index, Chunk& chunk, Observer* observer) {
  const MlpConfig& config = *config_.layers[static_cast<size_t>(index)].mlp;
  const MlpWeights& weights = *layers_[static_cast<size_t>(index)].mlp;
  Workspace& w = *work_;
  const Batch& batch = chunk.batch;
  const int64_t rows = batch.rows(), hidden = config_.hidden;
  show(observer, ActivationSite::kMlpStreamIn, index, batch, w.stream.data(), rows, hidden);
  w.input.set_normed(w.stream.data(), weights.norm, config_.norm_epsilon, w.normed.data(), rows);
  show_input(observer, ActivationSite::kMlpInput, index, batch, w.input, hidden, pool_);
  const auto multiply = config.activation == Activation::kSilu ? math().silu_multiply : math().relu_squared_multiply;
  const auto activate = [&](const Products& part) {
    const float *gate = part.of(0), *up = part.of(1);
    for (int64_t row = part.first; row < part.last; ++row, gate += part.stride(), up += part.stride()) {
      multiply(gate, up, w.activated.data() + row * config.width + part.begin, part.stride());
    }
  };
  w.multiplier.run(weights.inputs, w.input, w.activated.data(), activate);
  set_sub_normed(weights.sub_norm, w.activated.data(), rows, config.width);
  show_input(observer, ActivationSite::kMlpHidden, index, batch, w.input, config.width, pool_);
  add_product(weights.output);
  show(observer, ActivationSite::kMlpStreamOut, index, batch, w.stream.data(), rows, hidden);
}

void Model::run_output(Chunk& chunk, const Output& output, Observer* observer) {
  const auto wanted = static_cast<int64_t>(chunk.wanted.size());
  if (wanted == 0) return;
  Workspace& w = *work_;
  const int64_t hidden = config_.hidden;
  for (int64_t i = 0; i < wanted; ++i) {
    const float* from = w.stream.data() + chunk.wanted[static_cast<size_t>(i)] * hidden;
    std::copy(from, from + hidden, w.delta.data() + i * hidden);
  }
  w.input.set_normed(w.delta.data(), output_norm_, config_.norm_epsilon, w.normed.data(), wanted);
  show_input(observer, ActivationSite::kFinalHidden, -1, chunk.batch, w.input, hidden, pool_);
  if (output.candidates) return w.search.find(output_, w.input, w.multiplier, output.count, *output.candidates);
  float* const logits[] = {output.logits};
  w.multiplier.run(output_, w.input, logits);
}

}  // namespace pare
