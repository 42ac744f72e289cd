#include "model/kernel_choice.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>

#include "base/buffer.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/random.h"
#include "base/statistics.h"
#include "kernels/ternary.h"

namespace pare {
namespace {

// Weights read in a pass, and their bytes at most, of all packings that are timed together: past what any cache holds;
// more would only take longer.
constexpr int64_t kFewestWeights = int64_t{1} << 22, kMostWeights = int64_t{1} << 31, kMostBytes = int64_t{1} << 29;
constexpr int kPasses = 9;
// What the passes may take of a kernel so slow that nothing depends on more of them.
constexpr double kEnoughSeconds = 0.5;
// Rows of matrices that share a prepared row of activations, about: its preparation counts, too.
constexpr int64_t kRowsAnInput = 4096;
// Columns that kernels are timed with where their number decides nothing.
constexpr int64_t kAnyColumns = 4096;
constexpr size_t kMaxCacheBytes = size_t{1} << 20;

/// The program that this is, as far as its kernels' times go: another build's may be faster or slower.
std::string program() {
  const std::filesystem::path file = "/proc/self/exe";
  std::error_code error;
  const auto bytes = std::filesystem::file_size(file, error);
  if (error) return "?";
  return fmt::format("{}-{}", bytes, std::filesystem::last_write_time(file, error).time_since_epoch().count());
}

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// What was remembered; an empty object if there is nothing, or nothing sound: it is only a cache.
Json read_cache() {
  const auto path = KernelChoice::cache_path();
  std::error_code error;
  if (path.empty() || !std::filesystem::is_regular_file(path, error)) return Json::object();
  try {
    Json json = parse_json(read_text_file(path, kMaxCacheBytes), path.string());
    return json.is_object() ? json : Json::object();
  } catch (const Error&) {
    return Json::object();
  }
}

void remember(const std::string& key, const std::vector<KernelTime>& times) {
  const auto path = KernelChoice::cache_path();
  if (path.empty()) return;
  // Read again: another process may have added to it. One of two that write at once is lost, and measured again.
  Json json = read_cache();
  for (const KernelTime& time : times) json[key][time.kernel.name()] = time.weights_per_second;
  std::error_code error;
  std::filesystem::create_directories(path.parent_path(), error);
  try {
    OutputFile file(path);
    file.write(json.dump(1) + "\n");
    file.commit();
  } catch (const Error&) {
    // A read-only home costs a measurement a run, nothing else.
  }
}

void sort_fastest_first(std::vector<KernelTime>& times) {
  std::stable_sort(times.begin(), times.end(),
                   [](const auto& a, const auto& b) { return a.weights_per_second > b.weights_per_second; });
}

/// Both ways to read each.
std::vector<Kernel> kernels_of(const std::vector<const kernels::Packing*>& packings) {
  std::vector<Kernel> found;
  for (const auto* packing : packings) {
    found.push_back({packing, false});
    if (packing->multiply_one_stream) found.push_back({packing, true});
  }
  return found;
}

}  // namespace

std::filesystem::path KernelChoice::cache_path() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  if (cache && *cache == '/') return std::filesystem::path(cache) / "pare" / "kernels.json";
  if (home && *home == '/') return std::filesystem::path(home) / ".cache" / "pare" / "kernels.json";
  return {};
}

KernelChoice::KernelChoice(ThreadPool& pool, const std::string& forced) : pool_(pool) {
  auto packings = kernels::ternary_packings(cpu_features());
  std::string known;
  for (const auto* packing : packings) known += (known.empty() ? "" : ", ") + std::string(packing->layout);
  if (!forced.empty()) std::erase_if(packings, [&](const auto* packing) { return forced != packing->layout; });
  candidates_ = kernels_of(packings);
  if (candidates_.empty()) fail("kernel '{}': expected one of those that run here: {}", forced, known);
}

void KernelChoice::expect(int64_t weights) {
  // A power of two, so that models of about the same size share what was measured.
  weights_ =
      static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(std::clamp(weights, kFewestWeights, kMostWeights))));
}

Kernel KernelChoice::ternary(int64_t rows, int64_t columns) {
  return rows == 0 || columns == 0 ? candidates_.front() : fastest(candidates_, columns);
}

Kernel KernelChoice::of(const kernels::Packing& packing) { return fastest(kernels_of({&packing}), kAnyColumns); }

KernelChoice::Times KernelChoice::times(const kernels::Packing& packing) {
  const auto candidates = kernels_of({&packing});
  return candidates.size() > 1 ? times(candidates, kAnyColumns) : Times();
}

Kernel KernelChoice::fastest(const std::vector<Kernel>& candidates, int64_t columns) {
  if (candidates.size() == 1) return candidates.front();
  // In the order of the tables: a later one must be clearly faster, or noise would choose.
  const auto& all = times(candidates, columns).by_speed;
  Kernel best = candidates.front();
  double rate = 0;
  for (const Kernel& kernel : candidates) {
    const auto found = std::find_if(all.begin(), all.end(), [&](const auto& time) { return time.kernel == kernel; });
    if (found == all.end() || found->weights_per_second <= rate * kClearly) continue;
    best = kernel;
    rate = found->weights_per_second;
  }
  return best;
}

std::string KernelChoice::key(int64_t columns) const {
  static const std::string build = program();
  return fmt::format("{}; {} threads; {} columns; {}M weights; program {}", cpu_name(), pool_.size(), columns,
                     weights_ >> 20, build);
}

const KernelChoice::Times& KernelChoice::times(const std::vector<Kernel>& candidates, int64_t columns) {
  const std::pair at{candidates.front().packing, columns};
  if (const auto known = times_.find(at); known != times_.end()) return known->second;
  std::vector<KernelTime> times;
  bool read = true;
  const Json cache = read_cache();
  const auto remembered = cache.find(key(columns));
  for (const Kernel& kernel : candidates) {
    if (remembered == cache.end() || !remembered->is_object()) break;
    const auto rate = remembered->find(kernel.name());
    if (rate != remembered->end() && rate->is_number()) times.push_back({kernel, rate->get<double>()});
  }
  if (times.size() != candidates.size()) {
    times = measure(candidates, columns);
    remember(key(columns), times);
    read = false;
  }
  sort_fastest_first(times);
  return times_[at] = {std::move(times), columns, read};
}

/// Weights of a packing and a row of activations, as timing wants them: a tall matrix, a few of its groups of rows over
/// and over.
struct KernelChoice::Trial {
  const kernels::Packing& packing;
  int64_t columns, period, periods = 0;  // a period: rows that repeat
  bool whole = false;                    // as many weights as wanted
  Buffer<std::byte> weights = {}, input = {};
  std::vector<float> values = {}, output = {};

  Trial(const kernels::Packing& of, int64_t row, int64_t wanted, int64_t most_bytes, ThreadPool& pool)
      : packing(of), columns(row), period(8 * of.row_group), values(static_cast<size_t>(row), 1.0f) {
    const int64_t part = packing.packed_bytes(period, columns);
    const int64_t all = wanted / (period * columns), most = most_bytes / part;
    periods = std::max<int64_t>(pool.size(), std::min(all, most));
    whole = all <= most;
    weights.reserve(static_cast<size_t>(periods * part + kernels::kPackedSlack));
    if (packing.pack_codes) {
      std::vector<uint8_t> codes(static_cast<size_t>(period * columns));
      Random random(1);
      for (uint8_t& code : codes) code = static_cast<uint8_t>(random.below(3));
      packing.pack_codes(codes.data(), columns, 0, period, weights.data());
    } else {
      std::memset(weights.data(), 0x11, static_cast<size_t>(part));  // blocks of any content take as long
    }
    pool.parallel_for(periods - 1, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i)
        std::memcpy(weights.data() + (i + 1) * part, weights.data(), static_cast<size_t>(part));
    });
    input.reserve(static_cast<size_t>(format().row_bytes(columns)));
    if (!format().prepare) std::memcpy(input.data(), values.data(), static_cast<size_t>(columns) * sizeof(float));
    output.resize(static_cast<size_t>(periods * period));
  }
  const kernels::InputFormatInfo& format() const { return kernels::input_format(packing.input_for(1)); }

  double weights_per_second(const Kernel& kernel, ThreadPool& pool) {
    const int64_t rows = periods * period;
    const double begin = now();
    for (int64_t row = 0; row < rows; row += kRowsAnInput)
      if (format().prepare) format().prepare(values.data(), columns, input.data());
    pool.parallel_for(
        periods, 1,
        [&](int64_t first, int64_t last, int) {
          kernel.multiply({.weights = weights.data(),
                           .weight_rows = rows,
                           .columns = columns,
                           .input = input.data(),
                           .input_stride = format().row_bytes(columns),
                           .input_rows = 1,
                           .output = output.data(),
                           .output_stride = rows,
                           .row_begin = first * period,
                           .row_end = last * period});
        },
        pool.stream_part());
    return static_cast<double>(rows * columns) / (now() - begin);
  }
};

std::vector<KernelTime> KernelChoice::measure(std::span<const Kernel> kernels, int64_t columns) {
  const auto packings = std::count_if(kernels.begin(), kernels.end(), [](const Kernel& k) { return !k.one_stream; });
  std::deque<Trial> trials;  // of each packing
  for (const Kernel& kernel : kernels)
    if (!kernel.one_stream) trials.emplace_back(*kernel.packing, columns, weights_, kMostBytes / packings, pool_);
  const auto trial_of = [&](const Kernel& kernel) -> Trial& {
    return *std::find_if(trials.begin(), trials.end(), [&](const Trial& t) { return &t.packing == kernel.packing; });
  };
  std::vector<std::vector<double>> rates(kernels.size());
  for (Trial& trial : trials)
    trial.weights_per_second({&trial.packing}, pool_);  // touches everything for the first time
  // In turns: memory that is shared with others changes its speed from one moment to the next. Other packings' weights
  // drive those of this one out of the caches in between: from where some of them may stay, they are read once before.
  const double start = now(), enough = kEnoughSeconds * static_cast<double>(kernels.size());
  for (int pass = 0; pass < kPasses && (pass == 0 || now() - start < enough); ++pass)
    for (size_t i = 0; i < kernels.size(); ++i) {
      Trial& trial = trial_of(kernels[i]);
      if (packings > 1 && trial.whole) trial.weights_per_second(kernels[i], pool_);
      rates[i].push_back(trial.weights_per_second(kernels[i], pool_));
    }
  std::vector<KernelTime> times;
  for (size_t i = 0; i < kernels.size(); ++i) times.push_back({kernels[i], median(rates[i])});
  return times;
}

}  // namespace pare
