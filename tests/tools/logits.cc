// Writes a model's logits at every position, for tests that compare them with another implementation.
//
//   tool_logits MODEL --tokens FILE|- --out FILE [--kv f16|f32|q8_0] [--threads N] [--chunk N] [--batch]
//   [--drop-attention L,..] [--attention-threshold TAU]
//
// Tokens are JSON: a list of sequences, each a list of ids. The output holds float32, little endian: every sequence's
// [tokens, vocabulary] one after another.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>

#include "base/error.h"
#include "base/json.h"
#include "model/model.h"

namespace {

using namespace pare;

struct Options {
  std::string model, tokens, out, kv = "f32";
  int threads = 1;
  int64_t chunk = 0;
  bool batch = false;
  float attention_threshold = 0;
  std::vector<int> drop_attention, drop_mlp;
};

using Sequences = std::vector<std::vector<int32_t>>;

Sequences read_sequences(const std::string& path) {
  if (path != "-") return parse_json(read_text_file(path), path).get<Sequences>();
  const std::string text((std::istreambuf_iterator<char>(std::cin)), {});
  return parse_json(text, "standard input").get<Sequences>();
}

/// One sequence's next tokens: [begin, end) of it.
void add(Batch& batch, const std::vector<int32_t>& ids, int slot, size_t begin, size_t end) {
  batch.add_span(std::span(ids).subspan(begin, end - begin), slot, static_cast<int32_t>(begin), true);
}

/// Logits of every position: [sequences][tokens * vocabulary]. In each step every sequence (or one after another) gets
/// its next `chunk` tokens.
std::vector<std::vector<float>> run(Model& model, const Sequences& sequences, const Options& options) {
  const auto vocabulary = static_cast<size_t>(model.config().vocabulary);
  size_t longest = 1;
  for (const auto& ids : sequences) longest = std::max(longest, ids.size());
  KvCache cache(model.config(), static_cast<int>(sequences.size()), static_cast<int64_t>(longest),
                find_dtype(options.kv)->type);
  const size_t chunk = options.chunk > 0 ? static_cast<size_t>(options.chunk) : longest;
  std::vector<std::vector<float>> logits(sequences.size());
  const auto step = [&](size_t first, size_t last, size_t begin) {
    Batch batch;
    for (size_t s = first; s < last; ++s) {
      if (begin >= sequences[s].size()) continue;
      add(batch, sequences[s], static_cast<int>(s), begin, std::min(begin + chunk, sequences[s].size()));
    }
    std::vector<float> got(static_cast<size_t>(batch.rows()) * vocabulary);
    model.forward(batch, cache, got);
    for (size_t row = 0; row < batch.tokens.size(); ++row) {
      auto& to = logits[static_cast<size_t>(batch.sequence[row])];
      to.insert(to.end(), got.begin() + static_cast<ptrdiff_t>(row * vocabulary),
                got.begin() + static_cast<ptrdiff_t>((row + 1) * vocabulary));
    }
  };
  const size_t together = options.batch ? sequences.size() : 1;
  for (size_t first = 0; first < sequences.size(); first += together) {
    for (size_t begin = 0; begin < longest; begin += chunk) step(first, first + together, begin);
  }
  return logits;
}

int run_tool(const Options& options) {
  const auto sequences = read_sequences(options.tokens);
  Plan plan;
  plan.drop_attention = options.drop_attention;
  plan.drop_mlp = options.drop_mlp;
  ThreadPool pool(options.threads);
  const auto model = Model::load(apply_plan(open_checkpoint(options.model), plan), pool);
  model->set_attention_threshold(options.attention_threshold);
  std::ofstream out(options.out, std::ios::binary);
  for (const auto& values : run(*model, sequences, options)) {
    out.write(reinterpret_cast<const char*>(values.data()),
              static_cast<std::streamsize>(values.size() * sizeof(float)));
  }
  out.flush();
  if (!out) fail("{}: cannot write", options.out);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Raw logits of a model");
  Options options;
  app.add_option("MODEL", options.model)->required();
  app.add_option("--tokens", options.tokens)->required();
  app.add_option("--out", options.out)->required();
  app.add_option("--kv", options.kv)->check(CLI::IsMember({"f16", "f32", "q8_0"}));
  app.add_option("--threads", options.threads)->check(CLI::Range(1, 256));
  app.add_option("--chunk", options.chunk, "Tokens of a sequence per forward call; 0: all at once");
  app.add_flag("--batch", options.batch, "Run the sequences together instead of one after another");
  app.add_option("--attention-threshold", options.attention_threshold);
  app.add_option("--drop-attention", options.drop_attention)->delimiter(',');
  app.add_option("--drop-mlp", options.drop_mlp)->delimiter(',');
  CLI11_PARSE(app, argc, argv);
  try {
    return run_tool(options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "tool_logits: %s\n", error.what());
    return 1;
  }
}
