#include "evaluate/speed.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "base/error.h"
#include "base/random.h"
#include "base/statistics.h"
#include "evaluate/energy.h"
#include "kernels/ceilings.h"

namespace pare {
namespace {

// Between runs the ceilings read memory of their own. Their fastest pattern finds it in what of the caches is left to
// it, and so must decoding: these tokens do not count.
constexpr int64_t kWarmTokens = 8;

// Sequences of the cache: prompts begin with nothing, decoding goes on after the context, which is made only once.
constexpr int kPromptSequence = 0, kDecodeSequence = 1;

// Different keys and values that a context is made of: a prime, so that neighbours differ however they are numbered.
constexpr int64_t kContextVectors = 61;

// Halvings of nine decades: to a few percent of the threshold.
constexpr int kThresholdSteps = 9;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// Token ids that differ, so that no run reads the same embedding row over and over.
int32_t some_token(const ModelConfig& config, int64_t i) {
  return static_cast<int32_t>((i * 7919 + 13) % config.vocabulary);
}

/// Multiply-adds of scores and values that a query at position `at` takes, over all layers, when a share of values is
/// left out.
double attention_multiply_adds(const ModelConfig& config, double at, double skipped) {
  double sum = 0;
  for (const auto& layer : config.layers) {
    if (!layer.attention) continue;
    const double scores = static_cast<double>(layer.attention->heads) * layer.attention->head_dim;
    const auto values = static_cast<double>(layer.attention->output_width());
    sum += (scores + values * (1 - skipped)) * (at + 1);
  }
  return sum;
}

int64_t longest_prompt(const SpeedOptions& options) {
  int64_t most = 0;
  for (const int64_t prompt : options.prompts) most = std::max(most, prompt);
  return most;
}

int64_t needed_context(const SpeedOptions& options) {
  return std::max(options.context + options.generated, longest_prompt(options));
}

class Bench {
 public:
  Bench(Model& model, const SpeedOptions& options, Progress& progress, const CancelFlag* cancel)
      : model_(model),
        options_(options),
        progress_(progress),
        cancel_(cancel),
        cost_(model.cost_per_token()),
        cache_(model.config(), 2, needed_context(options), options.kv),
        logits_(static_cast<size_t>(model.config().vocabulary)) {}

  SpeedReport run(int64_t (*peak_memory)());

 private:
  /// Random keys and values for the decoding sequence: what is read takes as long whatever it says, and running a long
  /// prompt would take minutes.
  void fill_context() {
    const int64_t count = options_.context - cache_.tokens(kDecodeSequence);
    if (count <= 0) return;
    Random random(1);
    const ModelConfig& config = model_.config();
    for (size_t layer = 0; layer < config.layers.size(); ++layer) {
      throw_if_cancelled(cancel_);
      if (config.layers[layer].attention) fill_layer(static_cast<int>(layer), count, random);
    }
    cache_.add_tokens(kDecodeSequence, count);
  }

  void fill_layer(int layer, int64_t count, Random& random) {
    const AttentionConfig& attention = *model_.config().layers[static_cast<size_t>(layer)].attention;
    std::vector<float> vectors(static_cast<size_t>(kContextVectors * attention.head_dim));
    for (float& value : vectors) value = static_cast<float>(random.normal());
    const auto vector = [&](int64_t i) { return vectors.data() + i % kContextVectors * attention.head_dim; };
    const int64_t first = cache_.length(kDecodeSequence, layer);
    cache_.extend(kDecodeSequence, layer, count);
    model_.pool().parallel_for(count, kMaxChunkRows, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        for (int head = 0; head < attention.kv_heads; ++head) {
          cache_.store(kDecodeSequence, layer, head, first + i, vector(i + 7 * head), vector(3 * i + head));
        }
      }
    });
  }

  void prefill(int64_t tokens) {
    while (cache_.tokens(kPromptSequence) < tokens) {
      throw_if_cancelled(cancel_);
      Batch batch;
      const int64_t first = cache_.tokens(kPromptSequence), last = std::min(first + kMaxChunkRows, tokens);
      for (int64_t i = first; i < last; ++i) {
        batch.add(some_token(model_.config(), i), kPromptSequence, static_cast<int32_t>(i), i + 1 == tokens);
      }
      batch.sequence_length.assign(batch.tokens.size(), static_cast<int32_t>(tokens));
      model_.forward(batch, cache_, logits_);
    }
  }

  void decode(int64_t tokens) {
    Batch batch;
    for (int64_t i = 0; i < tokens; ++i) {
      throw_if_cancelled(cancel_);
      const int64_t at = cache_.tokens(kDecodeSequence);
      batch.clear();
      batch.add(some_token(model_.config(), at), kDecodeSequence, static_cast<int32_t>(at), true);
      if (options_.top_k > 0) {
        model_.forward(batch, cache_, options_.top_k, candidates_);
      } else {
        model_.forward(batch, cache_, logits_);
      }
    }
  }

  void plant_skip_rate(double rate);

  /// Share of values left out since the threshold was set.
  double skipped() const {
    AttentionReads all;
    for (const AttentionReads& layer : model_.attention_reads()) all.read += layer.read, all.seen += layer.seen;
    return all.seen > 0 ? 1 - static_cast<double>(all.read) / static_cast<double>(all.seen) : 0;
  }

  struct Timed {
    double tokens_per_second;
    std::optional<double> joules_per_token;
  };
  /// One prefill or decode.
  Timed timed(const SpeedResult& what) {
    if (what.decode) {
      cache_.truncate(kDecodeSequence, options_.context);
      fill_context();
      decode(std::min(kWarmTokens, what.tokens));
      cache_.truncate(kDecodeSequence, options_.context);
    } else {
      cache_.clear(kPromptSequence);
    }
    const auto joules = energy_.joules();
    const double begin = now();
    what.decode ? decode(what.tokens) : prefill(what.tokens);
    const double seconds = now() - begin;
    const auto used = energy_.joules();
    const auto tokens = static_cast<double>(what.tokens);
    return {tokens / seconds, joules && used ? std::optional((*used - *joules) / tokens) : std::nullopt};
  }

  void sample_ceilings(kernels::ReadCeiling& memory) {
    throw_if_cancelled(cancel_);
    ThreadPool& pool = model_.pool();
    memory.sample();
    fma_.samples.push_back(kernels::measure_fma_rate(pool));
    if (cost_.int8_multiply_adds > 0) int8_.samples.push_back(kernels::measure_int8_rate(pool));
  }

  SpeedResult expected(bool decode, int64_t tokens) const;
  void apply_ceilings(const Ceilings& ceilings, SpeedResult& result) const;

  Model& model_;
  const SpeedOptions& options_;
  Progress& progress_;
  const CancelFlag* cancel_;
  TokenCost cost_;
  KvCache cache_;
  std::vector<float> logits_;
  std::vector<TokenLogit> candidates_;
  SpeedSamples fma_, int8_;
  EnergyMeter energy_;
  double skipped_ = 0;  // share of values that decoding leaves out
};

/// Seeks the threshold that leaves out a share of values when decoding goes on after the context. Weights are spread
/// over decades, so the logarithm is halved.
void Bench::plant_skip_rate(double rate) {
  double low = -9, high = 0;
  for (int step = 0; step < kThresholdSteps; ++step) {
    const double middle = (low + high) / 2;
    model_.set_attention_threshold(static_cast<float>(std::pow(10.0, middle)));
    cache_.truncate(kDecodeSequence, options_.context);
    fill_context();
    decode(1);
    (skipped() < rate ? low : high) = middle;
  }
  model_.set_attention_threshold(static_cast<float>(std::pow(10.0, high)));
  cache_.truncate(kDecodeSequence, options_.context);
  decode(1);
}

SpeedResult Bench::expected(bool decode, int64_t tokens) const {
  const ModelConfig& config = model_.config();
  const auto count = static_cast<double>(tokens);
  SpeedResult result;
  result.decode = decode;
  result.tokens = tokens;
  const double first = decode ? static_cast<double>(options_.context) : 0;
  const double middle = first + (count - 1) / 2;  // mean position of a query
  const double passes = decode ? count : static_cast<double>((tokens + kMaxChunkRows - 1) / kMaxChunkRows);
  const int64_t spared = decode && options_.top_k > 0 ? cost_.rest_bytes : 0;
  result.weight_bytes = static_cast<double>(cost_.bytes - spared) * passes / count;
  // Within a pass of many tokens keys and values stay in cache; counting them once a pass keeps the ceiling a ceiling.
  const double kv_per_pass = decode ? middle + 1 : std::min(count, middle + 1);
  // Keys take as much as values do, and of these what no head left out.
  const double kv_share = 1 - skipped_ / 2;
  result.kv_bytes = static_cast<double>(cache_.bytes_per_token()) * kv_share * kv_per_pass * passes / count;
  result.int8_multiply_adds = static_cast<double>(cost_.int8_multiply_adds);
  result.float_multiply_adds = static_cast<double>(cost_.multiply_adds - cost_.int8_multiply_adds);
  if (!decode) {
    // A prompt's logits are wanted of its last token only.
    const double output = static_cast<double>(cost_.output_multiply_adds) * (count - 1) / count;
    (cost_.int8_output ? result.int8_multiply_adds : result.float_multiply_adds) -= output;
  }
  result.float_multiply_adds += attention_multiply_adds(config, middle, skipped_);
  return result;
}

void Bench::apply_ceilings(const Ceilings& ceilings, SpeedResult& result) const {
  const double bytes = result.weight_bytes + result.kv_bytes;
  result.memory_seconds = bytes / ceilings.read_bytes;
  result.least_memory_seconds = bytes / ceilings.most_read_bytes;
  result.compute_seconds = result.float_multiply_adds / ceilings.fma;
  if (result.int8_multiply_adds > 0) result.compute_seconds += result.int8_multiply_adds / ceilings.int8;
}

SpeedReport Bench::run(int64_t (*peak_memory)()) {
  SpeedReport report;
  report.threads = model_.pool().size();
  if (options_.skip_rate) plant_skip_rate(*options_.skip_rate);
  if (model_.attention_threshold() > 0) {
    if (!options_.skip_rate && options_.generated > 0) {
      fill_context();
      decode(1);
    }
    skipped_ = skipped();
  }
  report.attention_threshold = model_.attention_threshold();
  report.skipped = skipped_;
  for (const int64_t prompt : options_.prompts) report.results.push_back(expected(false, prompt));
  if (options_.generated > 0) report.results.push_back(expected(true, options_.generated));
  double largest = static_cast<double>(cost_.bytes);
  for (const auto& result : report.results) {
    if (result.decode) largest = result.weight_bytes + result.kv_bytes;
  }
  report.ceilings.working_set = std::min(static_cast<int64_t>(largest), options_.ceiling_bytes);

  const auto steps = static_cast<int64_t>(report.results.size() + 1) * (options_.runs + 1);  // the 1: ceilings
  int64_t done = 0;
  progress_.start(fmt::format("measuring, {} thread{}", report.threads, report.threads == 1 ? "" : "s"), "steps",
                  steps);
  for (const auto& result : report.results) {
    (void)timed(result);  // the first run touches memory for the first time; it does not count
    progress_.update(++done);
  }
  if (peak_memory) report.peak_before_ceilings = peak_memory();
  kernels::ReadCeiling memory(model_.pool(), static_cast<size_t>(report.ceilings.working_set));
  sample_ceilings(memory);
  progress_.update(++done);
  for (int run = 0; run < options_.runs; ++run) {
    for (auto& result : report.results) {
      const Timed sample = timed(result);
      result.speed.samples.push_back(sample.tokens_per_second);
      if (sample.joules_per_token) result.joules.push_back(*sample.joules_per_token);
      progress_.update(++done);
    }
    sample_ceilings(memory);
    progress_.update(++done);
  }
  progress_.finish();
  report.ceilings.read_bytes = memory.rate();
  report.ceilings.most_read_bytes = memory.most();
  report.ceilings.fma = fma_.median();
  report.ceilings.int8 = int8_.median();
  for (auto& result : report.results) apply_ceilings(report.ceilings, result);
  return report;
}

}  // namespace

double SpeedSamples::median() const { return pare::median(samples); }
double SpeedSamples::best() const { return samples.empty() ? 0 : *std::max_element(samples.begin(), samples.end()); }
double SpeedSamples::worst() const { return samples.empty() ? 0 : *std::min_element(samples.begin(), samples.end()); }

bool SpeedResult::impossible() const { return speed.median() * std::max(least_memory_seconds, compute_seconds) > 1; }
double SpeedResult::ratio() const { return speed.median() * std::max(memory_seconds, compute_seconds); }

bool SpeedReport::invalid() const {
  return std::any_of(results.begin(), results.end(), [](const SpeedResult& r) { return r.impossible(); });
}

int64_t speed_memory(const ModelConfig& config, int64_t weight_bytes, const SpeedOptions& options) {
  const double bytes_a_value = info(options.kv).bits_per_value() / 8;
  double kv = 0, widest = static_cast<double>(config.vocabulary);
  for (const LayerConfig& layer : config.layers) {
    if (layer.attention) kv += 2.0 * layer.attention->kv_heads * layer.attention->head_dim * bytes_a_value;
    // The stream and what is made of it; heads; gate and up.
    double values = 4 * static_cast<double>(config.hidden);
    if (layer.attention) values += 4.0 * layer.attention->heads * layer.attention->head_dim;
    if (layer.mlp) values += 3 * static_cast<double>(layer.mlp->width);
    widest = std::max(widest, values);
  }
  const int64_t prompt = longest_prompt(options);
  const auto tokens = static_cast<double>(prompt + options.context + options.generated);
  const auto rows = static_cast<double>(std::clamp<int64_t>(prompt, 1, kMaxChunkRows));
  const auto read = static_cast<double>(std::min(weight_bytes, options.ceiling_bytes));
  return static_cast<int64_t>(kv * tokens + widest * rows * sizeof(float) + read);
}

SpeedReport measure_speed(Model& model, const SpeedOptions& options, Progress& progress, const CancelFlag* cancel,
                          int64_t (*peak_memory)()) {
  if (options.prompts.empty() && options.generated <= 0) fail("nothing to measure: no prompt and no generated tokens");
  for (const int64_t prompt : options.prompts) {
    if (prompt < 1) fail("a prompt of {} tokens: expected at least 1", prompt);
  }
  if (options.runs < 1 || options.context < 0 || options.generated < 0) {
    fail("{} runs of {} tokens after {}: expected at least 1 run and no negative length", options.runs,
         options.generated, options.context);
  }
  if (options.skip_rate && (!(*options.skip_rate > 0 && *options.skip_rate < 1) || options.generated < 1)) {
    fail("a skip rate of {}: expected a number between 0 and 1, and tokens to generate", *options.skip_rate);
  }
  return Bench(model, options, progress, cancel).run(peak_memory);
}

}  // namespace pare
