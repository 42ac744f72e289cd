#include "model/linear.h"

#include <algorithm>

namespace pare {
namespace {

// Waking the pool costs about as much as touching this many values.
constexpr int64_t kParallelWork = 16384;
// Slices a thread gets of a product: enough that one slow core does not hold up the rest, few enough to stay cheap.
constexpr int64_t kSlicesPerThread = 4;
// Multiply-adds of a slice, at least: each one waits once for memory before its stream of weights flows.
constexpr int64_t kSliceWork = 32768;

}  // namespace

void for_tasks(ThreadPool& pool, int64_t count, int64_t work, FunctionRef<void(int64_t, int64_t, int)> body) {
  if (work < kParallelWork) {
    if (count > 0) body(0, count, 0);
  } else {
    pool.parallel_for(count, 1, body);
  }
}

void for_rows(ThreadPool& pool, int64_t count, int64_t work, FunctionRef<void(int64_t, int64_t)> body) {
  if (work < kParallelWork || count < 2) {
    body(0, count);
    return;
  }
  const int64_t grain = std::max<int64_t>(1, count / (pool.size() * kSlicesPerThread));
  pool.parallel_for(count, grain, [&](int64_t begin, int64_t end, int) { body(begin, end); });
}

void LinearInput::set(const float* values, int64_t rows, int64_t columns) {
  values_ = values;
  rows_ = rows;
  columns_ = columns;
  ready_ = false;
}

LinearInput::View LinearInput::prepared(kernels::InputFormat format, ThreadPool& pool) {
  const auto& row = kernels::input_format(format);
  // Activations used as they are lie close together, whatever a prepared row would be padded to.
  if (!row.prepare) return {reinterpret_cast<const std::byte*>(values_), columns_ * int64_t{sizeof(float)}};
  const int64_t stride = row.row_bytes(columns_);
  if (!ready_ || format_ != format) {
    storage_.reserve(static_cast<size_t>(rows_ * stride));
    for_rows(pool, rows_, rows_ * columns_, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) row.prepare(values_ + i * columns_, columns_, storage_.data() + i * stride);
    });
    format_ = format;
    ready_ = true;
  }
  return {storage_.data(), stride};
}

void multiply(ThreadPool& pool, LinearInput& input, std::span<const Product> products) {
  struct Part {
    kernels::MultiplyArgs args;
    const Product* product;
    int64_t slice;  // weight rows a task
    int64_t first;  // task number of the first slice
  };
  constexpr size_t kMaxProducts = 4;
  Part parts[kMaxProducts];
  int64_t weight_rows = 0, tasks = 0, work = 0;
  for (const Product& product : products) weight_rows += product.linear->outputs();
  const int64_t row_work = std::max<int64_t>(1, products[0].linear->weight->columns * input.rows());
  const int64_t wanted = std::max({int64_t{1}, weight_rows / (pool.size() * kSlicesPerThread), kSliceWork / row_work});
  for (size_t i = 0; i < products.size(); ++i) {
    const PackedWeight& weight = *products[i].linear->weight;
    const auto prepared = input.prepared(weight.packing->input, pool);
    // Slices of at least 16 rows keep a register tile of any packing full.
    const int64_t group = std::max(16, weight.packing->row_group);
    const int64_t slice = (std::min(wanted, weight.rows) + group - 1) / group * group;
    parts[i] = {{weight.data, weight.rows, weight.columns, prepared.data, prepared.stride, input.rows(),
                 products[i].output, products[i].output_stride, 0, 0},
                &products[i],
                slice,
                tasks};
    tasks += (weight.rows + slice - 1) / slice;
    work += weight.rows * weight.columns * input.rows();
  }
  for_tasks(pool, tasks, work, [&](int64_t begin, int64_t end, int) {
    for (int64_t task = begin; task < end; ++task) {
      size_t i = products.size() - 1;
      while (parts[i].first > task) --i;
      kernels::MultiplyArgs args = parts[i].args;
      args.row_begin = (task - parts[i].first) * parts[i].slice;
      args.row_end = std::min(args.row_begin + parts[i].slice, args.weight_rows);
      const Linear& linear = *parts[i].product->linear;
      linear.weight->packing->multiply(args);
      if (linear.bias.empty()) continue;
      for (int64_t row = 0; row < args.input_rows; ++row) {
        float* out = args.output + row * args.output_stride;
        for (int64_t r = args.row_begin; r < args.row_end; ++r) out[r] += linear.bias[static_cast<size_t>(r)];
      }
    }
  });
}

}  // namespace pare
