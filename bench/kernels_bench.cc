// Kernels against the ceilings of this machine, which are measured right before and after each (they move):
// "of_ceiling" is the share reached of the fused multiply-add, int8 or memory read rate, whichever the row names.
//
//   kernels_bench --benchmark_filter='decode/f16.*threads:2' --benchmark_repetitions=5
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/random.h"
#include "base/thread_pool.h"
#include "kernels/attention.h"
#include "kernels/ceilings.h"
#include "kernels/elementwise.h"
#include "kernels/head.h"
#include "kernels/matmul.h"
#include "kernels/ternary.h"

namespace pare::kernels {
namespace {

/// Larger than the share of the last-level cache that any core can hold.
constexpr size_t kMemoryBytes = size_t{1} << 30;

ThreadPool& pool_of(int threads) {
  static std::vector<std::unique_ptr<ThreadPool>> pools(65);
  auto& pool = pools[static_cast<size_t>(threads)];
  if (!pool) pool = std::make_unique<ThreadPool>(threads);
  return *pool;
}

ReadCeiling& read_ceiling(int threads) {
  static std::vector<std::unique_ptr<ReadCeiling>> ceilings(65);
  auto& ceiling = ceilings[static_cast<size_t>(threads)];
  if (!ceiling) ceiling = std::make_unique<ReadCeiling>(pool_of(threads), kMemoryBytes);
  return *ceiling;
}

Buffer<float> random_floats(int64_t count, uint64_t seed) {
  Random random(seed);
  Buffer<float> values(static_cast<size_t>(count));
  for (float& v : values.span()) v = static_cast<float>(random.uniform() - 0.5);
  return values;
}

/// A matrix in a packing, many times over if it is to come from memory: [copies][rows, columns].
struct Weights {
  Weights(const Packing& packing_in, DType type, int64_t rows_in, int64_t columns_in, size_t at_least)
      : packing(packing_in), rows(rows_in), columns(columns_in), bytes(packing.packed_bytes(rows, columns)) {
    copies = std::max<int64_t>(1, static_cast<int64_t>(at_least) / bytes);
    data = Buffer<std::byte>(static_cast<size_t>(bytes * copies + kPackedSlack));
    fill(type);
    for (int64_t c = 1; c < copies; ++c) std::memcpy(data.data() + c * bytes, data.data(), static_cast<size_t>(bytes));
  }
  void fill(DType type) {
    if (packing.pack_codes) {
      Random random(1);
      std::vector<uint8_t> codes(static_cast<size_t>(rows * columns));
      for (uint8_t& code : codes) code = static_cast<uint8_t>(random.below(3));
      packing.pack_codes(codes.data(), columns, 0, rows, data.data());
      return;
    }
    const Buffer<float> values = random_floats(columns * rows, 1);
    std::vector<std::byte> file(static_cast<size_t>(info(type).bytes(rows * columns)));
    info(type).encode(values.data(), file.data(), rows * columns);
    if (packing.in_place)
      std::memcpy(data.data(), file.data(), file.size());
    else
      packing.pack({type, Shape{rows, columns}, file}, 0, rows, data.data());
  }
  const Packing& packing;
  int64_t rows, columns, bytes, copies = 1;
  Buffer<std::byte> data;
};

struct Inputs {
  Inputs(InputFormat format_in, int64_t rows, int64_t columns) {
    const InputFormatInfo& format = input_format(format_in);
    stride = format.stride(columns);
    data = Buffer<std::byte>(static_cast<size_t>(stride * rows));
    const Buffer<float> values = random_floats(rows * columns, 2);
    for (int64_t i = 0; i < rows; ++i) {
      const float* row = values.data() + i * columns;
      if (format.prepare)
        format.prepare(row, columns, data.data() + i * stride);
      else
        std::memcpy(data.data() + i * stride, row, static_cast<size_t>(columns) * 4);
    }
  }
  int64_t stride;
  Buffer<std::byte> data;
};

using Multiply = std::function<void(const MultiplyArgs&)>;

void multiply(ThreadPool& pool, const Weights& w, int64_t copy, const Inputs& x, int64_t input_rows, float* output,
              const Multiply& how) {
  const int64_t groups = (w.rows + w.packing.row_group - 1) / w.packing.row_group;
  // Pieces of at least 64 rows: small enough to share out evenly, large enough to work in blocks.
  const int64_t grain = std::max<int64_t>(1, std::max<int64_t>(64, w.rows / (8 * pool.size())) / w.packing.row_group);
  pool.parallel_for(
      groups, grain,
      [&](int64_t begin, int64_t end, int) {
        how({w.data.data() + copy * w.bytes, w.rows, w.columns, x.data.data(), x.stride, input_rows, output, w.rows,
             begin * w.packing.row_group, std::min(w.rows, end * w.packing.row_group)});
      },
      input_rows == 1 ? pool.stream_part() : ThreadPool::kEvenPart);
}

/// What a row of activations is multiplied by: all of the weights, or with `bounds` what bounds them.
struct OneRow {
  Multiply multiply;
  bool bounds = false;
};

/// One activation row against weights that come from memory, or from the second-level cache: what unpacking allows.
void decode(benchmark::State& state, const Packing& packing, DType type, int64_t rows, int64_t columns, int threads,
            bool cached, const OneRow& how) {
  ThreadPool& pool = pool_of(threads);
  const Weights w(packing, type, rows, columns, cached ? 0 : kMemoryBytes / 2);
  const Inputs x(packing.input_for(1), 1, columns);
  Buffer<float> output(static_cast<size_t>(rows));
  read_ceiling(threads).sample();
  int64_t copy = 0;
  for (auto _ : state) {
    multiply(pool, w, copy, x, 1, output.data(), how.multiply);
    copy = (copy + 1) % w.copies;
  }
  read_ceiling(threads).sample();
  const double ceiling = read_ceiling(threads).rate();
  const auto bytes = static_cast<double>(how.bounds ? packing.bounds->leading_bytes(rows, columns) : w.bytes);
  state.counters["GB/s"] = benchmark::Counter(bytes * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["Gweights/s"] =
      benchmark::Counter(static_cast<double>(rows * columns) * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
  if (!cached) {
    state.counters["of_ceiling"] = benchmark::Counter(bytes / ceiling, benchmark::Counter::kIsIterationInvariantRate);
    state.counters["ceiling"] = ceiling * 1e-9;
  }
}

/// Many activation rows: against the multiply-accumulate rate.
void prefill(benchmark::State& state, const Packing& packing, DType type, int64_t rows, int64_t columns,
             int64_t input_rows, int threads) {
  ThreadPool& pool = pool_of(threads);
  const Weights w(packing, type, rows, columns, 0);
  const Inputs x(packing.input_for(input_rows), input_rows, columns);
  Buffer<float> output(static_cast<size_t>(rows * input_rows));
  const auto measure = [&] {
    return packing.input == InputFormat::kFloat ? measure_fma_rate(pool) : measure_int8_rate(pool);
  };
  double ceiling = measure();
  for (auto _ : state) multiply(pool, w, 0, x, input_rows, output.data(), packing.multiply);
  ceiling = std::max(ceiling, measure());
  const auto products = static_cast<double>(rows * columns * input_rows);
  state.counters["GMAC/s"] = benchmark::Counter(products * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["of_ceiling"] = benchmark::Counter(products / ceiling, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["ceiling"] = ceiling * 1e-9;
}

/// `queries` rows (of one KV head) that see `context` tokens: the fused multiply-adds of scores and values, and the
/// bytes of keys and values.
void attention(benchmark::State& state, DType type, int head_dim, int queries, int64_t context) {
  const KvFormat& format = kv_format(type, cpu_features());
  const auto page_bytes = format.key_page_bytes(head_dim) + format.value_page_bytes(head_dim);
  const int64_t pages = (context + kKvPageTokens - 1) / kKvPageTokens;
  // A single row of queries reads its pages from memory, as between the layers of a model.
  const int64_t copies = queries > 16 ? 1 : std::max<int64_t>(1, (int64_t{256} << 20) / (pages * page_bytes));
  Buffer<std::byte> memory(static_cast<size_t>(copies * pages * page_bytes));
  std::vector<const std::byte*> keys, values;
  const Buffer<float> row = random_floats(head_dim + queries * head_dim, 3);
  for (int64_t p = 0; p < copies * pages; ++p) {
    std::byte* page = memory.data() + p * page_bytes;
    for (int slot = 0; slot < kKvPageTokens; ++slot) {
      format.store_key(row.data() + slot % 8, head_dim, page, slot);
      format.store_value(row.data() + slot % 8, head_dim, page + format.key_page_bytes(head_dim), slot);
    }
    keys.push_back(page);
    values.push_back(page + format.key_page_bytes(head_dim));
  }
  std::vector<const float*> query_rows;
  std::vector<float*> output_rows;
  Buffer<float> output(static_cast<size_t>(queries * head_dim));
  for (int q = 0; q < queries; ++q) {
    query_rows.push_back(row.data() + q * head_dim);
    output_rows.push_back(output.data() + q * head_dim);
  }
  const std::vector<int64_t> visible(static_cast<size_t>(queries), context);
  Buffer<float> scratch(static_cast<size_t>(attend_scratch(queries, head_dim)));
  const bool compute = queries > 16;
  const auto measure = [&] {
    if (compute) return measure_fma_rate(pool_of(1));
    read_ceiling(1).sample();
    return read_ceiling(1).rate();
  };
  double ceiling = measure();
  int64_t copy = 0;
  for (auto _ : state) {
    format.attend({keys.data() + copy * pages, values.data() + copy * pages, head_dim, head_dim, 0.1f, queries,
                   query_rows.data(), output_rows.data(), visible.data(), scratch.data()});
    copy = (copy + 1) % copies;
  }
  ceiling = std::max(ceiling, measure());
  const double products = 2.0 * head_dim * static_cast<double>(context) * queries;
  const auto bytes = static_cast<double>(pages * page_bytes);
  state.counters["GMAC/s"] = benchmark::Counter(products * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["GB/s"] = benchmark::Counter(bytes * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["of_ceiling"] =
      benchmark::Counter((compute ? products : bytes) / ceiling, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["ceiling"] = ceiling * 1e-9;
}

void prepare_input(benchmark::State& state, int64_t columns) {
  const InputFormatInfo& format = input_format(InputFormat::kInt8Block);
  const Buffer<float> row = random_floats(columns, 4);
  Buffer<std::byte> prepared(static_cast<size_t>(format.row_bytes(columns)));
  for (auto _ : state) {
    format.prepare(row.data(), columns, prepared.data());
    benchmark::DoNotOptimize(prepared.data());
  }
  state.counters["Gvalues/s"] =
      benchmark::Counter(static_cast<double>(columns) * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

void pack(benchmark::State& state, const Packing& packing, DType type) {
  const int64_t rows = 2048, columns = 2048;
  const Buffer<float> values = random_floats(columns * rows, 1);
  std::vector<std::byte> file(static_cast<size_t>(info(type).bytes(rows * columns)));
  info(type).encode(values.data(), file.data(), rows * columns);
  Buffer<std::byte> packed(static_cast<size_t>(packing.packed_bytes(rows, columns)));
  for (auto _ : state) packing.pack({type, Shape{rows, columns}, file}, 0, rows, packed.data());
  state.counters["GB/s"] =
      benchmark::Counter(static_cast<double>(file.size()) * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

template <class Body>
void small_operation(const char* name, int64_t n, Body body) {
  benchmark::RegisterBenchmark((std::string("elementwise/") + name).c_str(), [n, body](benchmark::State& state) {
    const Buffer<float> x = random_floats(n, 5), y = random_floats(n, 6);
    Buffer<float> out(static_cast<size_t>(n));
    for (auto _ : state) {
      body(elementwise(cpu_features()), x.data(), y.data(), out.data(), n);
      benchmark::DoNotOptimize(out.data());
    }
    state.counters["Gvalues/s"] =
        benchmark::Counter(static_cast<double>(n) * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
  });
}

/// Decode, prefill and packing with one packing.
void register_products(const Packing& p, DType type) {
  const auto name = [&p](const std::string& what, int64_t rows, int64_t columns, int threads) {
    return what + "/" + p.name() + "/" + std::to_string(rows) + "x" + std::to_string(columns) +
           "/threads:" + std::to_string(threads);
  };
  for (int threads = 1; threads <= usable_cores(); threads *= 2) {
    for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{2048, 2048}, {8192, 2048}, {2048, 8192}})
      benchmark::RegisterBenchmark(name("decode", rows, columns, threads).c_str(), [=, &p](benchmark::State& s) {
        decode(s, p, type, rows, columns, threads, false, {p.multiply});
      })->UseRealTime();
    const auto one_row = [&](const std::string& what, int64_t rows, bool cached, const OneRow& how) {
      benchmark::RegisterBenchmark(name(what, rows, 2048, threads).c_str(), [=, &p](benchmark::State& s) {
        decode(s, p, type, rows, 2048, threads, cached, how);
      })->UseRealTime();
    };
    if (p.multiply_one_stream) one_row("decode_one_stream", 8192, false, {p.multiply_one_stream});
    if (p.bounds) {
      // What activations contribute takes as long whatever it is.
      const auto bound = [](void (*how)(const BoundArgs&)) {
        return OneRow{[=](const MultiplyArgs& a) {
                        static const std::vector<UnitBounds> units(1024);
                        how({a, units.data(), a.output});
                      },
                      true};
      };
      one_row("bound", 8192, false, bound(p.bounds->bound));
      one_row("bound_one_stream", 8192, false, bound(p.bounds->bound_one_stream));
      one_row("bound_cached", 1024, true, bound(p.bounds->bound));
    }
    benchmark::RegisterBenchmark(name("decode_cached", 1024, 2048, threads).c_str(), [=, &p](benchmark::State& s) {
      decode(s, p, type, 1024, 2048, threads, true, {p.multiply});
    })->UseRealTime();
    for (int64_t inputs : {4, 16, 32, 128, 512})
      for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{2048, 2048}, {2048, 4096}})
        benchmark::RegisterBenchmark(
            name("prefill:" + std::to_string(inputs), rows, columns, threads).c_str(),
            [=, &p](benchmark::State& s) { prefill(s, p, type, rows, columns, inputs, threads); })
            ->UseRealTime();
  }
  if (p.pack)
    benchmark::RegisterBenchmark((std::string("pack/") + p.name()).c_str(),
                                 [=, &p](benchmark::State& s) { pack(s, p, type); });
}

void register_all() {
  const CpuFeatures features = cpu_features();
  for (const KernelRow& row : kernel_table())
    if ((features & row.required) == row.required) register_products(*row.packing, row.source);
  for (const Packing* packing : ternary_packings(features)) register_products(*packing, DType::kTQ2_0);
  for (const Packing* packing : split_packings(features)) register_products(*packing, packing->source);
  for (DType type : kv_types())
    for (int head_dim : {64, 128})
      for (int queries : {1, 4, 8, 512})
        benchmark::RegisterBenchmark((std::string("attention/") + info(type).name + "/dim:" + std::to_string(head_dim) +
                                      "/queries:" + std::to_string(queries) + "/context:2048")
                                         .c_str(),
                                     [=](benchmark::State& s) { attention(s, type, head_dim, queries, 2048); });
  benchmark::RegisterBenchmark("prepare/int8_block", [](benchmark::State& s) { prepare_input(s, 2048); });
  small_operation("rms_norm", 2048, [](const Elementwise& e, const float* x, const float* y, float* out, int64_t n) {
    e.rms_norm(x, y, 1e-5f, out, n);
  });
  small_operation("silu_multiply", 8192,
                  [](const Elementwise& e, const float* x, const float* y, float* out, int64_t n) {
                    e.silu_multiply(x, y, out, n);
                  });
  small_operation("exp_shifted", 8192, [](const Elementwise& e, const float* x, const float*, float* out, int64_t n) {
    benchmark::DoNotOptimize(e.exp_shifted(x, 0.5f, out, n));
  });
  small_operation("argmax", 32768, [](const Elementwise& e, const float* x, const float*, float*, int64_t n) {
    benchmark::DoNotOptimize(e.argmax(x, n));
  });
}

}  // namespace
}  // namespace pare::kernels

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  pare::kernels::register_all();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
