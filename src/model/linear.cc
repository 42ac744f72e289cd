#include "model/linear.h"

#include <algorithm>
#include <optional>

#include "base/cache_lines.h"
#include "kernels/elementwise.h"

namespace pare {
namespace {

// Waking the pool costs about as much as touching this many values.
constexpr int64_t kParallelWork = 16384;
// Pieces a thread's share of a product is cut into, at most: fine enough that all threads end at about the same time.
// The last of the pieces that a thread takes are single ones.
constexpr int64_t kSlicesPerThread = 256;
// Multiply-adds of a slice, at least: less than that takes no longer than handing it out.
constexpr int64_t kSliceWork = 32768;
// Panels (see Packing) are halved down to so many rows where a thread would get fewer of them than this.
constexpr int64_t kLeastPanelRows = 32, kPanelsPerThread = 8;
// Few activation rows: kernels read so many weight rows side by side, at most, and those that are left of a piece in
// smaller tiles, which fetch more slowly. Pieces are whole ones where a thread gets enough of them: of many threads one
// is always slower than the others, and the last pieces must be small.
constexpr int64_t kStreamRows = 128;
constexpr int64_t streams_per_thread(int threads) { return threads > 2 ? 16 : 8; }
// Activation rows of a part are a multiple of this, but of the last; and not so few that unpacking weights for them
// would cost more.
constexpr int64_t kPartGrain = 32, kLeastPartRows = 64;

// Of the outputs of a linear that are not kept, so much is made at a time: it stays in a near cache.
constexpr int64_t kProductsBytes = 128 << 10;

// What the thread that begins loops reads next, beside weights, it asks for in so many parts, one after each of its
// first pieces: at that time all others wait for it, and it comes from memory.
constexpr size_t kGainParts = 4;

// Of what a thread will write next, so many cache lines are asked for after each piece of a product: more at once would
// be in the way of what the next piece reads.
constexpr int kLinesAPiece = 32;

/// What the thread that begins loops reads of a group, to tell what comes after the one before.
void ask_for_group(const LinearGroup* group) {
  const auto* from = reinterpret_cast<const std::byte*>(group);
  for (size_t i = 0; group && i < sizeof(LinearGroup); i += kCacheLine) __builtin_prefetch(from + i);
}

/// Asks for the beginning of `bytes` and drops it.
void ask_for_first(std::span<const std::byte>& bytes, size_t count) {
  const size_t here = std::min(count, bytes.size());
  for (size_t i = 0; i < here; i += kCacheLine) __builtin_prefetch(bytes.data() + i, 0, 2);
  bytes = bytes.subspan(here);
}

}  // namespace

void for_tasks(ThreadPool& pool, int64_t count, int64_t work, FunctionRef<void(int64_t, int64_t, int)> body,
               int64_t part, std::span<const std::byte> results) {
  if (work < kParallelWork) {
    if (count > 0) body(0, count, 0);
  } else {
    pool.parallel_for(count, 1, body, part, results);
  }
}

void for_rows(ThreadPool& pool, int64_t count, int64_t work, FunctionRef<void(int64_t, int64_t)> body) {
  if (work < kParallelWork || count < 2) {
    body(0, count);
    return;
  }
  pool.parallel_for(count, 1, [&](int64_t begin, int64_t end, int) { body(begin, end); });
}

void LinearInput::set(const float* values, int64_t rows, int64_t columns) {
  values_ = values;
  rows_ = rows;
  columns_ = columns;
  norm_ = {};
  for (Prepared& prepared : prepared_) {
    if (prepared.ready) prepared.now = 1 - prepared.now;
    prepared.ready = false;
  }
}

void LinearInput::set_normed(const float* from, const std::vector<float>& gain, float epsilon, float* normed,
                             int64_t rows) {
  set(normed, rows, static_cast<int64_t>(gain.size()));
  norm_ = {from, gain.data(), epsilon, normed};
}

/// A row as it is multiplied. Where it is still to be normalised, that is done in the worker's own memory: rows that
/// other threads wrote are read only, not written once more.
const float* LinearInput::row(int64_t row, int worker) {
  const int64_t at = row * columns_;
  if (!norm_.from) return values_ + at;
  Buffer<float>& normed = normed_[static_cast<size_t>(worker)];
  normed.reserve(static_cast<size_t>(columns_));
  kernels::elementwise().rms_norm(norm_.from + at, norm_.gain, norm_.epsilon, normed.data(), columns_);
  return normed.data();
}

const float* LinearInput::values(ThreadPool& pool) {
  if (norm_.from) {
    for_rows(pool, rows_, rows_ * columns_, [&](int64_t begin, int64_t end) {
      for (int64_t at = begin * columns_; at < end * columns_; at += columns_)
        kernels::elementwise().rms_norm(norm_.from + at, norm_.gain, norm_.epsilon, norm_.to + at, columns_);
    });
    norm_ = {};
  }
  return values_;
}

LinearInput::View LinearInput::prepared(kernels::InputFormat format, ThreadPool& pool) {
  const auto& kind = kernels::input_format(format);
  // Activations used as they are lie close together, whatever a prepared row would be padded to.
  if (!kind.prepare) return {reinterpret_cast<const std::byte*>(values(pool)), columns_ * int64_t{sizeof(float)}};
  const int64_t stride = kind.stride(columns_);
  Prepared& prepared = prepared_[static_cast<size_t>(format)];
  Buffer<std::byte>& storage = prepared.storage[prepared.now];
  if (!prepared.ready) {
    storage.reserve(static_cast<size_t>(rows_ * stride));
    std::byte* const to = storage.data();
    for_tasks(pool, rows_, rows_ * columns_, [&](int64_t begin, int64_t end, int worker) {
      for (int64_t i = begin; i < end; ++i) {
        if (norm_.from && kind.prepare_normed)
          kind.prepare_normed(norm_.from + i * columns_, norm_.gain, norm_.epsilon, columns_, to + i * stride);
        else
          kind.prepare(row(i, worker), columns_, to + i * stride);
      }
    });
    prepared.ready = true;
  }
  return {storage.data(), stride};
}

LinearInput::Next LinearInput::next(kernels::InputFormat format, int64_t columns) {
  const auto& kind = kernels::input_format(format);
  if (!kind.prepare) return {};
  Prepared& prepared = prepared_[static_cast<size_t>(format)];
  Buffer<std::byte>& storage = prepared.storage[prepared.ready ? 1 - prepared.now : prepared.now];
  const int64_t stride = kind.stride(columns);
  storage.reserve(static_cast<size_t>(rows_ * stride));
  return {storage.data(), rows_, stride};
}

Lines LinearInput::Next::of(int worker, int workers) const {
  // A single row is prepared by the thread that begins loops.
  if (rows < 2) return worker == 0 ? Lines{data, data + rows * stride} : Lines{};
  return {data + ThreadPool::share_begin(rows, worker, workers) * stride,
          data + ThreadPool::share_begin(rows, worker + 1, workers) * stride};
}

namespace {

/// The rows of a group, as its Deal says: what a thread reads of a part of the activations stays in its cache.
class Dealing {
 public:
  /// Pieces have no more than so many bytes of outputs each, or as few rows as that goes.
  Dealing(const LinearGroup& group, int64_t input_rows, int threads, int64_t most_bytes)
      : group_(group), deal_(deal_of(group, input_rows, threads)) {
    if (most_bytes == INT64_MAX) return;
    const int64_t part_rows = (input_rows + deal_.parts - 1) / deal_.parts;
    most_units_ = std::max<int64_t>(most_bytes / (part_rows * deal_.unit * int64_t{sizeof(float)}), 1);
  }
  int64_t work() const { return deal_.work; }
  int64_t ranges() const { return deal_.ranges; }
  bool in_panels() const { return deal_.in_panels; }
  const Deal& deal() const { return deal_; }

  struct Rows {
    size_t linear;
    int64_t begin, end;
    int64_t first_input, end_input;
  };
  /// Calls visit(rows) for what ranges [first_range, end_range) hold, in order.
  template <class Visit>
  void each(int64_t first_range, int64_t end_range, Visit visit) const {
    const int64_t units = deal_.units, all = units * deal_.parts;
    const int64_t first = all * first_range / deal_.ranges, end = all * end_range / deal_.ranges;
    for (int64_t part = first / units; part * units < end; ++part) {
      each_of_part(part, std::max(first - part * units, int64_t{0}), std::min(end - part * units, units), visit);
    }
  }
  /// First of the ranges that a worker begins with.
  int64_t share(int worker) const { return ThreadPool::share_begin(deal_.ranges, worker, deal_.threads); }
  /// The weights that ranges [first_range, end_range) begin with, as far as they lie in one piece.
  std::span<const std::byte> weights_of(int64_t first_range, int64_t end_range) const {
    std::span<const std::byte> found;
    if (first_range >= end_range) return found;
    each(first_range, end_range, [&](const Rows& rows) {
      const PackedWeight& weight = *group_.linears[rows.linear].weight;
      if (found.empty()) found = {weight.at(rows.begin), weight.at(rows.end)};
    });
    return found;
  }
  const std::byte* address(const Rows& rows) const { return group_.linears[rows.linear].weight->at(rows.begin); }

 private:
  static const Deal& deal_of(const LinearGroup& group, int64_t input_rows, int threads) {
    Deal& deal = group.deal;
    if (deal.input_rows == input_rows && deal.threads == threads) return deal;
    deal = {.input_rows = input_rows, .threads = threads};
    int64_t rows = 0, panel = 0, most_inputs = 0;
    for (const Linear& linear : group.linears) {
      const kernels::Packing& packing = linear.weight->packing();
      deal.unit = std::max<int64_t>(deal.unit, packing.row_group);
      if (input_rows >= packing.panel_inputs) panel = std::max(panel, packing.panel_rows);
      most_inputs = std::max(most_inputs, rows_of_part(*linear.weight, input_rows));
      deal.inputs |= 1u << static_cast<unsigned>(packing.input_for(input_rows));
      rows += linear.outputs();
    }
    const PackedWeight& weight = *group.linears[0].weight;
    deal.input = weight.packing().input_for(input_rows);
    deal.columns = weight.columns;
    deal.in_panels = panel > 0;
    if (deal.in_panels && most_inputs < input_rows) deal.parts = (input_rows + most_inputs - 1) / most_inputs;
    while (panel > kLeastPanelRows && rows < panel * kPanelsPerThread * threads) panel /= 2;
    deal.unit = std::max(deal.unit, panel);
    while (!deal.in_panels && deal.unit < kStreamRows && rows >= 2 * deal.unit * streams_per_thread(threads) * threads)
      deal.unit *= 2;
    deal.work = rows * deal.columns * input_rows;
    for (const Linear& linear : group.linears) {
      const int64_t units = (linear.outputs() + deal.unit - 1) / deal.unit;
      deal.units = group.side_by_side ? units : deal.units + units;
    }
    const int64_t slices = std::clamp<int64_t>(deal.work / (threads * kSliceWork), 1, kSlicesPerThread);
    deal.ranges = std::min(threads * slices, deal.units * deal.parts);
    return deal;
  }
  static int64_t rows_of_part(const PackedWeight& weight, int64_t input_rows) {
    const kernels::Packing& packing = weight.packing();
    const int64_t stride = kernels::input_format(packing.input_for(input_rows)).stride(weight.columns);
    const int64_t fit = packing.panel_input_bytes / stride / kPartGrain * kPartGrain;
    const int64_t most = std::min(packing.panel_input_rows, std::max(fit, kLeastPartRows));
    // Parts begin at multiples of the grain: smaller ones would be empty. Without panels there are none.
    return most > input_rows ? most : (most + kPartGrain - 1) / kPartGrain * kPartGrain;
  }
  /// Units [begin, end) of a part.
  template <class Visit>
  void each_of_part(int64_t part, int64_t begin, int64_t end, Visit visit) const {
    for (int64_t at = begin; at < end; at += std::min(most_units_, end - at)) {
      each_linear(part, at, at + std::min(most_units_, end - at), visit);
    }
  }
  template <class Visit>
  void each_linear(int64_t part, int64_t begin, int64_t end, Visit visit) const {
    int64_t first = 0;  // unit of the linear's first row
    for (size_t i = 0; i < group_.linears.size(); ++i) {
      const int64_t rows = group_.linears[i].outputs(), unit = deal_.unit, units = (rows + unit - 1) / unit;
      const int64_t from = std::max(begin - first, int64_t{0}), to = std::min(end - first, units);
      if (from < to) visit(Rows{i, from * unit, std::min(to * unit, rows), first_input(part), first_input(part + 1)});
      if (!group_.side_by_side) first += units;
    }
  }
  /// Parts begin at whole tiles of any kernel.
  int64_t first_input(int64_t part) const {
    const int64_t at = (deal_.input_rows * part / deal_.parts + kPartGrain - 1) / kPartGrain * kPartGrain;
    return part == deal_.parts ? deal_.input_rows : std::min(at, deal_.input_rows);
  }

  const LinearGroup& group_;
  const Deal& deal_;
  int64_t most_units_ = INT64_MAX;
};

}  // namespace

void Multiplier::run(const LinearGroup& group, LinearInput& input, std::span<float* const> outputs) {
  run_to(group, input, {.outputs = outputs});
}

void Multiplier::run(const LinearGroup& group, LinearInput& input, float* to,
                     FunctionRef<void(const Products&)> finish) {
  run_to(group, input, {.to = to, .finish = finish});
}

void Multiplier::bound(const LinearGroup& group, LinearInput& input, const kernels::UnitBounds* units, float* most) {
  run_to(group, input, {.units = units, .most = most});
}

void Multiplier::run_to(const LinearGroup& group, LinearInput& input, const Target& target) {
  const Dealing dealing(group, input.rows(), pool_.size(), target.finish ? kProductsBytes : INT64_MAX);
  const std::optional<Dealing> next =
      group.next ? std::optional<Dealing>(std::in_place, *group.next, input.rows(), pool_.size(), INT64_MAX)
                 : std::nullopt;
  const auto format = [&](const PackedWeight& weight) { return weight.packing().input_for(input.rows()); };
  for (unsigned i = 0; i < kernels::kInputFormats; ++i)
    if (dealing.deal().inputs >> i & 1) input.prepared(static_cast<kernels::InputFormat>(i), pool_);
  LinearInput::Next next_input;
  if (next) next_input = input.next(next->deal().input, next->deal().columns);
  const std::span<const std::byte> gain =
      group.next && input.rows() == 1 ? std::as_bytes(group.next->gain) : std::span<const std::byte>();
  ++loop_;
  // A single row is normalised and prepared by the thread that begins loops.
  const std::span<const float> results(
      target.to, target.finish && input.rows() == 1 ? static_cast<size_t>(group.linears[0].outputs()) : 0);
  const auto compute = [&](const Dealing::Rows& rows, const std::byte* then, Worker& mine) {
    const Linear& linear = group.linears[rows.linear];
    const PackedWeight& weight = *linear.weight;
    const auto prepared = input.prepared(format(weight), pool_);
    const int64_t inputs = rows.end_input - rows.first_input, columns = rows.end - rows.begin;
    float *output = nullptr, *written = nullptr;
    int64_t stride = weight.rows;
    if (target.finish) {
      const auto size = static_cast<size_t>(inputs * columns);
      if (rows.linear == 0) mine.products.reserve(size * group.linears.size());
      stride = columns;
      output = mine.products.data() + rows.linear * size - rows.begin;  // where column 0 would be
      written = rows.linear == 0 ? target.to + rows.first_input * weight.rows : nullptr;
    } else if (!target.most) {
      written = output = target.outputs[rows.linear] + rows.first_input * weight.rows;
    }
    const kernels::MultiplyArgs args{weight.data,
                                     weight.rows,
                                     weight.columns,
                                     prepared.data + rows.first_input * prepared.stride,
                                     prepared.stride,
                                     inputs,
                                     output,
                                     stride,
                                     rows.begin,
                                     rows.end,
                                     weight.scale,
                                     then,
                                     dealing.address(rows) == mine.expected,
                                     written,
                                     weight.rows};
    mine.expected = then;
    if (target.most) return weight.kernel.bound({args, target.units, target.most});
    weight.kernel.multiply(args);
    const bool scale = weight.scale != 1 && !weight.packing().applies_scale;
    for (int64_t row = 0; row < inputs && (scale || !linear.bias.empty()); ++row) {
      float* out = output + row * stride;
      for (int64_t r = rows.begin; scale && r < rows.end; ++r) out[r] *= weight.scale;
      if (linear.bias.empty()) continue;
      for (int64_t r = rows.begin; r < rows.end; ++r) out[r] += linear.bias[static_cast<size_t>(r)];
    }
    if (!target.finish || rows.linear + 1 < group.linears.size()) return;
    target.finish({rows.begin, rows.end, rows.first_input, rows.end_input, mine.products.data()});
  };
  for_tasks(
      pool_, dealing.ranges(), dealing.work(),
      [&](int64_t begin, int64_t end, int worker) {
        Worker& mine = workers_[static_cast<size_t>(worker)];
        if (mine.loop != loop_) {
          mine.loop = loop_;
          mine.writes = next_input.of(worker, pool_.size());
          mine.gain = worker == 0 ? gain : std::span<const std::byte>();
        }
        // What is read after a piece is known one piece ahead: the next of these ranges, of this worker's share, or
        // what its share of the next group begins with.
        const bool more = dealing.share(worker) <= begin && end < dealing.share(worker + 1);
        const std::span<const std::byte> later = more   ? dealing.weights_of(end, dealing.share(worker + 1))
                                                 : next ? next->weights_of(next->share(worker), next->share(worker + 1))
                                                        : std::span<const std::byte>();
        std::optional<Dealing::Rows> piece;
        dealing.each(begin, end, [&](const Dealing::Rows& rows) {
          if (piece) compute(*piece, dealing.address(rows), mine);
          piece = rows;
        });
        compute(*piece, later.data(), mine);
        mine.writes.ask(kLinesAPiece);
        ask_for_first(mine.gain, more ? gain.size() / kGainParts : gain.size());
        if (!more) {
          pool_.ask_while_waiting(worker, mine.writes, later);
          if (worker == 0 && next) ask_for_group(group.next->next);
        }
      },
      dealing.in_panels() ? ThreadPool::kEvenPart : pool_.stream_part(), std::as_bytes(results));
}

}  // namespace pare
