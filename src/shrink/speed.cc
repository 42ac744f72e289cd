#include "shrink/speed.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <sstream>

#include "base/error.h"
#include "base/statistics.h"

namespace pare {
namespace {

/// A model ready to decode the same tokens again and again.
class Decoder {
 public:
  Decoder(Model& model, std::span<const int32_t> prompt, int64_t tokens, DType kv)
      : model_(model),
        prompt_(static_cast<int64_t>(prompt.size())),
        last_(prompt.back()),
        cache_(model.config(), 1, prompt_ + tokens, kv) {
    Batch batch;
    batch.add_span(prompt, 0, 0, false);
    model_.forward(batch, cache_, 1, largest_);
  }
  /// Seconds a token.
  double run(int64_t tokens, const CancelFlag* cancel) {
    cache_.truncate(0, prompt_);
    int32_t token = last_;
    const auto start = std::chrono::steady_clock::now();
    for (int64_t i = 0; i < tokens; ++i) {
      throw_if_cancelled(cancel);
      Batch batch;
      batch.add(token, 0, static_cast<int32_t>(prompt_ + i), true);
      model_.forward(batch, cache_, 1, largest_);
      token = largest_.front().token;
    }
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() /
           static_cast<double>(tokens);
  }

 private:
  Model& model_;
  int64_t prompt_;
  int32_t last_;
  KvCache cache_;
  std::vector<TokenLogit> largest_;
};

Candidate half_dropped(const SearchSpace& space, DropPart::Kind kind) {
  Candidate candidate = space.unchanged();
  size_t count = 0;
  for (const SearchSpace::Part& part : space.parts) count += part.part.kind == kind;
  size_t left = count / 2;
  for (size_t p = 0; p < space.parts.size() && left > 0; ++p) {
    if (space.parts[p].part.kind == kind) candidate.dropped[p] = 1, --left;
  }
  return candidate;
}

/// Matrices that a decoded token reads: not the embedding of a model with an output of its own.
bool is_read(const SearchSpace& space, const SearchSpace::Weight& weight, bool tied) {
  return tied || space.units[static_cast<size_t>(weight.unit)].tensor != "embedding";
}

struct Reads {
  double bytes = 0, values = 0;
};
Reads reads(const SearchSpace& space, const Candidate& candidate, bool tied) {
  Reads sum;
  for (const SearchSpace::Weight& weight : space.weights) {
    if (weight.part >= 0 && candidate.dropped[static_cast<size_t>(weight.part)]) continue;
    if (!is_read(space, weight, tied)) continue;
    sum.bytes += static_cast<double>(weight.bytes[candidate.option[static_cast<size_t>(weight.unit)]]);
    sum.values += static_cast<double>(weight.values);
  }
  return sum;
}

}  // namespace

DecodeComparison compare_decode(Model& base, Model& model, std::span<const int32_t> prompt,
                                const DecodeOptions& options, const CancelFlag* cancel) {
  if (prompt.empty()) fail("measuring decode speed takes a prompt of at least one token");
  const int64_t room = model.config().context - static_cast<int64_t>(prompt.size());
  const int64_t tokens = std::clamp<int64_t>(options.tokens, 1, std::max<int64_t>(1, room));
  Decoder first(base, prompt, tokens, options.kv), second(model, prompt, tokens, options.kv);
  std::vector<double> base_seconds, seconds, ratios;
  // The first round wakes caches and threads and does not count.
  for (int round = -1; round < options.rounds; ++round) {
    const double a = first.run(tokens, cancel), b = second.run(tokens, cancel);
    if (round < 0 && options.rounds > 0) continue;
    base_seconds.push_back(a), seconds.push_back(b), ratios.push_back(a / b);
  }
  return {median(base_seconds), median(seconds), median(ratios)};
}

// Decoding is bound by memory or by arithmetic, both in proportion to values at a type; beside that each part has a
// price of its own (norms, cache, starting threads). The slope between the base and the fastest type says what bytes
// cost; what is left of the base's time is overhead, shared between attentions and MLPs as dropping them shows.
SpeedModel fit_speed(const SearchSpace& space, bool tied_embedding,
                     const std::function<DecodeComparison(const Plan&)>& measure) {
  SpeedModel model;
  const Candidate unchanged = space.unchanged();
  const Reads base = reads(space, unchanged, tied_embedding);
  if (!(base.bytes > 0)) return model;
  std::vector<std::pair<DType, double>> by_type;  // seconds with all matrices at it, relative to the base
  double slope = 0;                               // of the base's time, a byte
  for (const DType type : space.types()) {
    const Candidate uniform = space.uniform(type);
    const double relative = 1 / measure(space.to_plan(uniform)).ratio;
    by_type.emplace_back(type, relative);
    const double saved = base.bytes - reads(space, uniform, tied_embedding).bytes;
    if (saved > 0) slope = std::max(slope, (1 - relative) / saved);
  }
  slope = std::min(slope, 0.95 / base.bytes);
  if (!(slope > 0)) slope = 0.5 / base.bytes;  // nothing gained from smaller types: half and half
  const double overhead = 1 - slope * base.bytes;
  double own[2] = {0, 0};  // of an attention, of an MLP
  int count[2] = {0, 0};
  for (const SearchSpace::Part& part : space.parts) ++count[part.part.kind == DropPart::Kind::kMlp];
  for (const int kind : {0, 1}) {
    const Candidate half = half_dropped(space, kind == 0 ? DropPart::Kind::kAttention : DropPart::Kind::kMlp);
    const int dropped = space.drops(half);
    if (dropped == 0) continue;
    const double relative = 1 / measure(space.to_plan(half)).ratio;
    const double bytes = base.bytes - reads(space, half, tied_embedding).bytes;
    own[kind] = std::max(0.0, (1 - relative - slope * bytes) / dropped);
  }
  const double parts = own[0] * count[0] + own[1] * count[1];
  const double shrink = parts > overhead ? overhead / parts : 1;
  for (const SearchSpace::Part& part : space.parts) {
    model.per_part.push_back(shrink * own[part.part.kind == DropPart::Kind::kMlp]);
  }
  model.fixed = std::max(0.0, overhead - parts);
  const auto per_value = [&](const std::optional<DType>& type) {
    const auto found = std::find_if(by_type.begin(), by_type.end(), [&](const auto& row) { return type == row.first; });
    if (found == by_type.end()) return slope * base.bytes / base.values;
    return std::max(0.0, found->second - overhead) / base.values;
  };
  for (const SearchSpace::Unit& unit : space.units) {
    const bool read = tied_embedding || unit.tensor != "embedding";
    std::vector<double> prices;
    for (const auto& type : unit.options) prices.push_back(read ? per_value(type) : 0);
    model.per_value.push_back(std::move(prices));
  }
  return model;
}

std::string to_string(const SpeedModel& model) {
  std::string text = fmt::format("{:.17g}", model.fixed);
  for (const auto& options : model.per_value) {
    for (const double price : options) text += fmt::format(" {:.17g}", price);
  }
  for (const double price : model.per_part) text += fmt::format(" {:.17g}", price);
  return text;
}

SpeedModel parse_speed_model(const std::string& text, const SearchSpace& space) {
  std::istringstream in(text);
  SpeedModel model;
  const auto next = [&] {
    double value = -1;
    in >> value;
    return value;
  };
  bool sane = true;
  const auto take = [&](double& to) { to = next(), sane = sane && std::isfinite(to) && to >= 0; };
  take(model.fixed);
  for (const SearchSpace::Unit& unit : space.units) {
    model.per_value.emplace_back(unit.options.size());
    for (double& price : model.per_value.back()) take(price);
  }
  model.per_part.resize(space.parts.size());
  for (double& price : model.per_part) take(price);
  return sane && in ? model : SpeedModel();
}

}  // namespace pare
