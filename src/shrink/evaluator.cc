#include "shrink/evaluator.h"

#include <algorithm>
#include <chrono>

#include "base/error.h"

namespace pare {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kReferenceBytes = int64_t{384} << 20;
constexpr size_t kSampleBytes = 1 << 16;  // of each weight, for the fingerprint
constexpr double kUseless = 1000;

/// FNV-1a, 64 bits: to tell things apart, not to defend against anybody.
class Hash {
 public:
  Hash& bytes(const void* data, size_t size) {
    const auto* at = static_cast<const unsigned char*>(data);
    for (size_t i = 0; i < size; ++i) value_ = (value_ ^ at[i]) * 0x100000001b3u;
    return *this;
  }
  template <class T>
  Hash& number(T value) {
    return bytes(&value, sizeof value);
  }
  std::string hex() const { return fmt::format("{:016x}", value_); }

 private:
  uint64_t value_ = 0xcbf29ce484222325u;
};

std::string hash_of(const TextWindows& text) {
  Hash hash;
  for (const TextWindows::Window& window : text.windows) {
    hash.number(window.first).number(window.last);
    hash.bytes(window.tokens.data(), window.tokens.size() * sizeof(int32_t));
  }
  return hash.hex();
}

int64_t tokens_of(const TextWindows& text) {
  int64_t count = 0;
  for (const TextWindows::Window& window : text.windows) count += static_cast<int64_t>(window.tokens.size());
  return count;
}

}  // namespace

std::string model_fingerprint(const Checkpoint& checkpoint, Model& model, DType kv) {
  Hash hash;
  std::vector<std::byte> storage;
  for (const WeightTensor& weight : checkpoint.weights) {
    const std::string name =
        fmt::format("{} {} {}", weight.id.to_string(), info(weight.type).name, weight.shape.to_string());
    hash.bytes(name.data(), name.size());
    const TensorView view = weight.read(storage);
    const size_t half = std::min(view.bytes.size(), kSampleBytes) / 2;
    hash.bytes(view.bytes.data(), half);
    hash.bytes(view.bytes.data() + view.bytes.size() - half, half);
  }
  // What the configuration says beyond shapes shows in predictions.
  const auto count = static_cast<int32_t>(std::min<int64_t>(8, model.config().context));
  KvCache cache(model.config(), 1, count, DType::kF32);
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>((i * 7 + 3) % model.config().vocabulary));
  Batch batch;
  batch.add_span(tokens, 0, 0, false);
  batch.wants_logits.back() = 1;
  std::vector<float> logits(static_cast<size_t>(model.config().vocabulary));
  model.forward(batch, cache, logits);
  hash.bytes(logits.data(), logits.size() * sizeof(float));
  const std::string cache_type = info(kv).name;
  return hash.bytes(cache_type.data(), cache_type.size()).hex();
}

PlanEvaluator::PlanEvaluator(Variants& variants, TrialStore& store, DType kv, GgufReader reader,
                             const CancelFlag* cancel)
    : variants_(variants), store_(store), kv_(kv), reader_(reader), cancel_(cancel) {}

int PlanEvaluator::add_slice(const TextWindows& windows) {
  slices_.push_back({windows, hash_of(windows), {}});
  return static_cast<int>(slices_.size()) - 1;
}

void PlanEvaluator::keep(const Plan& plan) {
  const Checkpoint checkpoint = apply_plan(variants_.checkpoint(), plan);
  if (kept_bytes_ + checkpoint.bytes() > kKeptBytes) return;
  kept_bytes_ += checkpoint.bytes();
  kept_.push_back(variants_.make(plan));
}

const Reference& PlanEvaluator::reference(Slice& slice) {
  if (!slice.reference) {
    const auto start = Clock::now();
    slice.reference = Reference::measure(variants_.base(), slice.windows, kv_, no_progress(), cancel_, kReferenceBytes);
    seconds_ += std::chrono::duration<double>(Clock::now() - start).count();
    tokens_ += tokens_of(slice.windows);
  }
  return *slice.reference;
}

const PerplexityResult& PlanEvaluator::base(int number) { return reference(slice(number)).base(); }

int64_t PlanEvaluator::file_bytes(const Plan& plan) const {
  return gguf_file_bytes(apply_plan(variants_.checkpoint(), plan), reader_);
}

SliceScore PlanEvaluator::evaluate(const Plan& plan, int number) {
  throw_if_cancelled(cancel_);
  Slice& text = slice(number);
  const std::string key = to_json(plan);
  if (const auto known = store_.find(key, text.key)) {
    ++remembered_;
    return *known;
  }
  const Reference& base = reference(text);
  const auto start = Clock::now();
  const std::unique_ptr<Model> model = variants_.make(plan);
  SliceScore score{kUseless, kUseless, 0, text.windows.counted()};
  try {
    const DivergenceResult result = divergence(*model, base, kv_, no_progress(), cancel_);
    score.kl = std::min(result.mean_kl, kUseless);
    score.nats = std::min(result.model.nats_per_token - result.base.nats_per_token, kUseless);
    score.top1 = result.top1_agreement;
  } catch (const Interrupted&) {
    throw;
  } catch (const Error&) {
    // The base passed the same text, so it is the plan that spoils it.
  }
  seconds_ += std::chrono::duration<double>(Clock::now() - start).count();
  tokens_ += tokens_of(text.windows);
  store_.add(key, text.key, score);
  ++evaluated_;
  return score;
}

}  // namespace pare
