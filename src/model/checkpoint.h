#pragma once
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/json_fwd.h"
#include "base/progress.h"
#include "model/config.h"
#include "model/weights.h"
#include "plan/plan.h"
#include "tensor/ternary.h"
#include "text/tokenizer.h"

namespace pare {

/// A model as data: config, tokenizer, and weights that are read on demand, the same whether it came from a Hugging
/// Face folder or a GGUF file, and the same again after a plan was applied. Cheap to copy.
struct Checkpoint {
  std::string name;            // for people: general.name, or the file's or folder's name
  std::filesystem::path path;  // where it was opened
  std::string format;          // "gguf", "safetensors"
  ModelConfig config;
  std::shared_ptr<const TokenizerData> tokenizer;  // null if the model has none
  std::vector<WeightTensor> weights;
  std::shared_ptr<const Json> generation;     // generation_config.json; null if there is none
  std::shared_ptr<const Json> source_config;  // config.json as it was, so that unknown keys survive; may be null
  std::shared_ptr<const GgufMetadata> source_metadata;  // GGUF's; null otherwise
  std::shared_ptr<const GgufMetadata> card;             // general.*: name, licence, author; of README.md for a folder
  std::optional<DType> vector_type;  // of norms and biases in the folder that a GGUF file came from, if not f32
  Plan plan;                         // what was done to it (pare.plan); empty if nothing
  std::string source;                // where the original came from (pare.source)
  std::vector<int> original_layers;  // index in the original model of each layer; identity unless blocks were removed

  /// Null if there is no such weight.
  const WeightTensor* find(WeightId id) const;
  int64_t parameters() const;
  int64_t bytes() const;
};

struct OpenOptions {
  std::optional<I2sLayout> i2s;  // of I2_S tensors, which do not say it themselves
};
/// Opens a folder or a .gguf file; reads headers only, but for the scales of ternary weights (which float weights that
/// a model quantizes itself are read for). Throws Error naming file and place: unknown architecture (with the known
/// ones), config that contradicts tensors, missing or unexpected tensors or shards, I2_S without a layout.
Checkpoint open_checkpoint(const std::filesystem::path& path, const OpenOptions& options = {});

/// The checkpoint that a plan makes of another: dropped parts absent, weights re-encoded when they are read. Nothing is
/// computed here. Throws Error if the plan names layers that are not there or drops what is already gone. A type whose
/// block does not divide a row's length falls back to f16 for that weight; `notes` (may be null) receives a line for
/// each such kind.
Checkpoint apply_plan(const Checkpoint& base, const Plan& plan, std::vector<std::string>* notes = nullptr);

/// Throws Error naming the first weights that hold NaN or infinite values, with their count.
void check_finite(const Checkpoint& checkpoint, Progress& progress);

/// Who is to read a GGUF file. pare reads every one; stock llama.cpp reads a model whose layers differ (dropped parts)
/// only in another form, which costs a few zeros, and not every model can take it.
enum class GgufReader : uint8_t { kPare, kLlamaCpp };

struct WriteOptions {
  Progress* progress = nullptr;
  const CancelFlag* cancel = nullptr;
  GgufReader reader = GgufReader::kPare;
};
/// Whether stock llama.cpp needs that other form.
bool layers_differ(const ModelConfig& config);
/// Written beside and renamed. Throws Error where GGUF cannot express the model, or its reader would not run it.
void write_checkpoint_gguf(const Checkpoint& checkpoint, const std::filesystem::path& path, const WriteOptions& = {});
/// How long that file would be; nothing is encoded for it. Throws as the writing would.
int64_t gguf_file_bytes(const Checkpoint& checkpoint, GgufReader reader = GgufReader::kPare);
/// A Hugging Face folder (float types only: Error names a weight of another). Dropped layers are listed in config.json
/// as LLM-Drop does: drop_attn_list, drop_mlp_list.
void write_checkpoint_folder(const Checkpoint& checkpoint, const std::filesystem::path& path, const WriteOptions& = {});
/// By the name: *.gguf is a GGUF file, anything else a folder.
void write_checkpoint(const Checkpoint& checkpoint, const std::filesystem::path& path, const WriteOptions& = {});

}  // namespace pare
