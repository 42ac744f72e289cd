#include <cmath>

#include "base/error.h"
#include "model/workspace.h"

// What differential attention makes of its weights once, when a model is loaded.

namespace pare {
namespace {

using enum WeightKind;

/// exp(query . key). Throws Error naming the tensors if that is no finite number.
double exponential_of_dot(const WeightTensor& query, const WeightTensor& key, WeightStore& store,
                          const std::string& file) {
  const std::vector<float> q = store.vector(query), k = store.vector(key);
  double dot = 0;
  for (size_t i = 0; i < q.size(); ++i) dot += static_cast<double>(q[i]) * k[i];
  const double result = std::exp(dot);
  // As float32, in which the models are trained: beyond its range lambda could not have been used.
  if (!std::isfinite(static_cast<float>(result))) {
    fail("{}: the dot product of tensors {} and {} is {}, whose exponential overflows; expected at most 88", file,
         query.name, key.name, dot);
  }
  return result;
}

}  // namespace

void Model::load_differential(const Checkpoint& checkpoint, int layer, WeightStore& store) {
  const AttentionConfig& config = *config_.layers[static_cast<size_t>(layer)].attention;
  const DifferentialConfig& differential = config.differential;
  AttentionWeights& weights = *layers_[static_cast<size_t>(layer)].attention;
  const std::string file = checkpoint.path.string();
  const auto tensor = [&](WeightKind kind) -> const WeightTensor& {
    const WeightTensor* found = checkpoint.find({kind, layer});
    if (!found) fail("{}: {} is missing", file, WeightId{kind, layer}.to_string());
    return *found;
  };
  if (differential.lambda == LambdaSource::kTokens) {
    weights.lambda_inputs.linears.push_back({store.matrix(tensor(kLambda)), {}});
  } else {
    const double first = exponential_of_dot(tensor(kLambdaQuery1), tensor(kLambdaKey1), store, file);
    const double second = exponential_of_dot(tensor(kLambdaQuery2), tensor(kLambdaKey2), store, file);
    weights.lambda = static_cast<float>(first - second + static_cast<double>(differential.lambda_init));
  }
  if (!differential.head_norm) return;
  // 1 - lambda_init goes into the gain of the norm before the output projection rather than into the projection: the
  // norm costs the same with any gain, and a quantized projection would have to be rounded again.
  weights.head_norm.assign(static_cast<size_t>(config.output_dim()), 1.0f);
  if (differential.head_norm_gain) weights.head_norm = store.vector(tensor(kHeadNorm));
  for (float& gain : weights.head_norm) gain *= 1 - differential.lambda_init;
}

}  // namespace pare
