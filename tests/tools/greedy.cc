// Continues several prompts greedily, alone or as one batch, and prints the ids: for tests that every way gives the
// same.
//
//   tool_greedy MODEL --prompts FILE -n N [--threads N] [--kv TYPE] [--batch]
//
// Prompts and output are JSON: a list of lists of ids.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "base/error.h"
#include "base/json.h"
#include "model/generate.h"

namespace {

using namespace pare;
using Sequences = std::vector<std::vector<int32_t>>;

std::vector<int32_t> alone(Model& model, KvCache& cache, const std::vector<int32_t>& prompt, int64_t count) {
  GenerateOptions options;
  options.max_tokens = count;
  options.sampler.temperature = 0;
  options.ignore_end = true;
  return generate(model, cache, 0, prompt, options, {}).tokens;
}

/// All prompts prefilled in one batch of different lengths, then decoded side by side.
Sequences together(Model& model, KvCache& cache, const Sequences& prompts, int64_t count) {
  const auto vocabulary = static_cast<size_t>(model.config().vocabulary);
  Batch batch;
  for (size_t s = 0; s < prompts.size(); ++s) batch.add_span(prompts[s], static_cast<int32_t>(s), 0, false);
  std::vector<float> logits(prompts.size() * vocabulary);
  Sequences result(prompts.size());
  for (int64_t i = 0; i < count; ++i) {
    model.forward(batch, cache, logits);
    batch.clear();
    for (size_t s = 0; s < prompts.size(); ++s) {
      const auto row = logits.begin() + static_cast<ptrdiff_t>(s * vocabulary);
      const auto token = static_cast<int32_t>(std::max_element(row, row + static_cast<ptrdiff_t>(vocabulary)) - row);
      result[s].push_back(token);
      batch.add(token, static_cast<int32_t>(s), static_cast<int32_t>(cache.tokens(static_cast<int>(s))), true);
    }
  }
  return result;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app;
  std::string path, prompts_path, kv = "f32";
  int64_t count = 0;
  int threads = 1;
  bool batch = false;
  app.add_option("model", path)->required();
  app.add_option("--prompts", prompts_path)->required();
  app.add_option("-n", count)->required();
  app.add_option("--threads", threads);
  app.add_option("--kv", kv);
  app.add_flag("--batch", batch);
  CLI11_PARSE(app, argc, argv);
  try {
    const auto prompts = parse_json(read_text_file(prompts_path), prompts_path).get<Sequences>();
    ThreadPool pool(threads);
    const auto model = Model::load(open_checkpoint(path), pool);
    size_t longest = 0;
    for (const auto& prompt : prompts) longest = std::max(longest, prompt.size());
    const int slots = batch ? static_cast<int>(prompts.size()) : 1;
    KvCache cache(model->config(), slots, static_cast<int64_t>(longest) + count, find_dtype(kv)->type);
    Sequences result;
    if (batch) {
      result = together(*model, cache, prompts, count);
    } else {
      for (const auto& prompt : prompts) result.push_back(alone(*model, cache, prompt, count));
    }
    std::printf("%s\n", Json(result).dump().c_str());
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
