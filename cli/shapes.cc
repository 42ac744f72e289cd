#include "shapes.h"

#include <cmath>

namespace pare::cli {
namespace {

struct ShapeRow {
  const char* name;
  int64_t hidden, layers;
  int heads, kv_heads, head_dim;
  int64_t mlp, vocabulary, context;
  double rope_theta;
  bool tied;
  bool sub_norms = false;  // in front of the output and the down projection
  Activation activation = Activation::kSilu;
};

// From the config.json that each model was published with.
constexpr ShapeRow kShapes[] = {
    {"llama-2-7b", 4096, 32, 32, 32, 128, 11008, 32000, 4096, 10000, false},
    {"llama-2-13b", 5120, 40, 40, 40, 128, 13824, 32000, 4096, 10000, false},
    {"llama-2-70b", 8192, 80, 64, 8, 128, 28672, 32000, 4096, 10000, false},
    {"llama-3-8b", 4096, 32, 32, 8, 128, 14336, 128256, 8192, 500000, false},
    {"llama-3-70b", 8192, 80, 64, 8, 128, 28672, 128256, 8192, 500000, false},
    {"llama-3.2-1b", 2048, 16, 32, 8, 64, 8192, 128256, 131072, 500000, true},
    {"llama-3.2-3b", 3072, 28, 24, 8, 128, 8192, 128256, 131072, 500000, true},
    {"mistral-7b", 4096, 32, 32, 8, 128, 14336, 32768, 32768, 1000000, false},
    {"tinyllama-1.1b", 2048, 22, 32, 4, 64, 5632, 32000, 2048, 10000, false},
    {"smollm2-135m", 576, 30, 9, 3, 64, 1536, 49152, 8192, 100000, true},
    {"smollm2-360m", 960, 32, 15, 5, 64, 2560, 49152, 8192, 100000, true},
    {"smollm2-1.7b", 2048, 24, 32, 32, 64, 8192, 49152, 8192, 130000, true},
    {"bitnet-2b-4t", 2560, 30, 20, 5, 128, 6912, 128256, 4096, 500000, true, true, Activation::kReluSquared},
    // The sizes of arXiv 2410.16144, as bitnet.cpp's utils/generate-dummy-bitnet-model.py has them; it leaves out 700M,
    // which is 1bitLLM/bitnet_b1_58-large.
    {"bitnet-125m", 768, 11, 12, 12, 64, 3072, 32002, 2048, 10000, true, true},
    {"bitnet-350m", 1024, 24, 16, 16, 64, 3072, 32002, 2048, 10000, true, true},
    {"bitnet-700m", 1536, 24, 16, 16, 96, 4096, 32002, 2048, 10000, true, true},
    {"bitnet-1b", 2048, 24, 32, 32, 64, 3584, 32002, 2048, 10000, true, true},
    {"bitnet-1.5b", 1536, 28, 32, 32, 48, 9216, 32002, 2048, 10000, true, true},
    {"bitnet-2.7b", 3072, 24, 32, 32, 96, 7680, 32002, 2048, 10000, true, true},
    {"bitnet-3.8b", 3840, 24, 32, 32, 120, 8192, 32002, 2048, 10000, true, true},
    {"bitnet-7b", 4096, 32, 32, 32, 128, 12032, 32002, 2048, 10000, true, true},
    {"bitnet-13b", 5120, 40, 40, 40, 128, 13824, 32002, 2048, 10000, true, true},
    {"bitnet-30b", 6656, 60, 52, 52, 128, 16384, 32002, 2048, 10000, true, true},
    {"bitnet-70b", 8192, 80, 64, 64, 128, 24576, 32002, 2048, 10000, true, true},
    {"bitnet-100b", 8192, 72, 64, 64, 128, 45568, 32002, 2048, 10000, true, true},
    {"story-27m", 256, 32, 4, 2, 64, 768, 8192, 1024, 10000, true},
};

ModelConfig make_config(const ShapeRow& row) {
  AttentionConfig attention;
  attention.heads = row.heads;
  attention.kv_heads = row.kv_heads;
  attention.head_dim = row.head_dim;
  attention.scale = 1.0f / std::sqrt(static_cast<float>(row.head_dim));
  attention.rope.theta = row.rope_theta;
  attention.rope.dims = row.head_dim;
  attention.sub_norm = row.sub_norms;
  MlpConfig mlp;
  mlp.width = row.mlp;
  mlp.sub_norm = row.sub_norms;
  mlp.activation = row.activation;
  ModelConfig config;
  config.family = "llama";
  config.hidden = row.hidden;
  config.vocabulary = row.vocabulary;
  config.context = row.context;
  config.tied_embedding = row.tied;
  config.layers.assign(static_cast<size_t>(row.layers), LayerConfig{attention, mlp});
  return config;
}

}  // namespace

std::optional<ModelConfig> find_shape(std::string_view name) {
  for (const auto& row : kShapes) {
    if (name == row.name) return make_config(row);
  }
  return std::nullopt;
}

std::string shape_names() {
  std::string out;
  for (const auto& row : kShapes) out += (out.empty() ? "" : ", ") + std::string(row.name);
  return out;
}

}  // namespace pare::cli
