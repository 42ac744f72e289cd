#include "model/weight_store.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "kernels/ternary.h"
#include "model/ternary.h"

namespace pare {
namespace {

// Random matrices repeat so many groups of rows, or fewer of long rows: making a model of 10^11 weights must not take
// longer than writing them.
constexpr int64_t kRandomGroups = 16, kRandomValues = int64_t{1} << 20;
constexpr int64_t kPackBytes = 1 << 18;  // of source a task: enough to amortise its start

void pack_all(ThreadPool& pool, const kernels::Packing& packing, const TensorView& from, std::byte* to) {
  const int64_t rows = from.shape.rows();
  int64_t grain = std::max<int64_t>(1, kPackBytes / std::max<int64_t>(1, from.row_bytes()));
  grain = (grain + packing.row_group - 1) / packing.row_group * packing.row_group;
  pool.parallel_for(rows, grain, [&](int64_t begin, int64_t end, int) { packing.pack(from, begin, end, to); });
}

/// Reads codes of ternary rows, checks them, and packs them, all on every thread.
void pack_ternary(ThreadPool& pool, const kernels::Packing& packing, const WeightTensor& tensor,
                  const FillCodes& fill_codes, std::byte* to) {
  const int64_t rows = tensor.shape.rows(), columns = tensor.shape.columns();
  const int64_t group = packing.row_group;
  pool.parallel_for((rows + group - 1) / group, 4, [&](int64_t first, int64_t last, int) {
    Buffer<uint8_t> codes(static_cast<size_t>(group * columns));
    for (int64_t g = first; g < last; ++g) {
      const int64_t begin = g * group, end = std::min(rows, begin + group);
      fill_codes(begin, end, codes.data());
      check_ternary_codes({codes.data(), static_cast<size_t>((end - begin) * columns)}, begin, columns, tensor.name);
      packing.pack_codes(codes.data(), columns, begin, end, to);
    }
  });
}

/// The codes of a tensor in a ternary storage type, whose blocks must all have this scale.
FillCodes codes_of_blocks(const TensorView& from, const std::string& name, float block_scale) {
  return [from, name, block_scale](int64_t begin, int64_t end, uint8_t* codes) {
    for (int64_t row = begin; row < end; ++row, codes += from.shape.columns()) {
      const float found = kernels::ternary_codes(from, row, block_scale, codes);
      if (!(found == block_scale)) {
        fail("tensor {}: row {} has a block with scale {}, others have {}; ternary weights have one for all", name, row,
             found, block_scale);
      }
    }
  };
}

/// Rows of normal values as a type stores them.
std::vector<std::byte> random_stored(DType type, int64_t rows, int64_t columns, double deviation, Random& source) {
  std::vector<float> values(static_cast<size_t>(rows * columns));
  for (float& value : values) value = static_cast<float>(source.normal() * deviation);
  std::vector<std::byte> stored(static_cast<size_t>(info(type).bytes(rows * columns)));
  info(type).encode(values.data(), stored.data(), rows * columns);
  return stored;
}

/// Packed rows, a multiple of the packing's row group: normal values, or ternary codes if it packs those.
std::vector<std::byte> random_rows(const kernels::Packing& packing, DType type, int64_t rows, int64_t columns,
                                   double deviation, Random& source) {
  std::vector<std::byte> packed(static_cast<size_t>(packing.packed_bytes(rows, columns)));
  if (packing.pack_codes) {
    std::vector<uint8_t> codes(static_cast<size_t>(rows * columns));
    for (uint8_t& code : codes) code = static_cast<uint8_t>(source.below(3));
    packing.pack_codes(codes.data(), columns, 0, rows, packed.data());
    return packed;
  }
  std::vector<std::byte> stored = random_stored(type, rows, columns, deviation, source);
  if (packing.in_place) return stored;
  packing.pack({type, Shape{rows, columns}, stored}, 0, rows, packed.data());
  return packed;
}

/// Whether a matrix of this type runs in exact ternary kernels.
bool runs_ternary(DType type, const LinearConfig& linear) {
  return linear.activations == ActivationQuantization::kInt8Row && kernels::is_ternary(type);
}

}  // namespace

void PackedWeight::unpack_row(int64_t row, float* to) const {
  packing().unpack_row(data, rows, columns, row, to);
  if (scale == 1) return;
  for (int64_t k = 0; k < columns; ++k) to[k] *= scale;
}

WeightStore::WeightStore(ThreadPool& pool, const std::string& kernel) : pool_(pool), choice_(pool, kernel) {}

std::shared_ptr<std::byte> WeightStore::take(int64_t bytes) {
  std::shared_ptr<std::byte> memory = slabs_.take(static_cast<size_t>(bytes + kernels::kPackedSlack));
  // The system clears a page when it is first touched. Each here by one thread: two that pack into the same page would
  // both clear one, or wait.
  constexpr int64_t kPage = kHugePage;
  const auto address = reinterpret_cast<int64_t>(memory.get());
  const int64_t first = (address + kPage - 1) / kPage, last = (address + bytes + kPage - 1) / kPage;
  pool_.parallel_for(last - first, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t page = begin; page < end; ++page) memory.get()[(first + page) * kPage - address] = std::byte{};
  });
  return memory;
}

std::shared_ptr<const PackedWeight> WeightStore::ternary(const WeightTensor& tensor) {
  auto weight = std::make_shared<PackedWeight>();
  weight->type = tensor.type;
  weight->rows = tensor.shape.rows();
  weight->columns = tensor.shape.columns();
  std::vector<std::byte> made;
  FillCodes fill_codes = tensor.fill_codes;
  std::span<const std::byte> source = tensor.made_from;
  weight->scale = tensor.scale;
  if (!fill_codes) {
    const TensorView view = tensor.read(made);
    const float block_scale = weight->rows > 0 ? kernels::ternary_block_scale(view, 0) : 1;
    fill_codes = codes_of_blocks(view, tensor.name, block_scale);
    if (made.empty()) source = view.bytes;
    weight->scale *= block_scale;
  }
  check_ternary_scale(weight->scale, tensor.name);
  if (weight->columns > kernels::kMostTernaryColumns) {
    fail("tensor {}: rows of {} ternary weights, expected at most {}", tensor.name, weight->columns,
         kernels::kMostTernaryColumns);
  }
  weight->kernel = choice_.ternary(weight->rows, weight->columns);
  weight->packed = take(weight->bytes());
  weight->data = weight->packed.get();
  pack_ternary(pool_, weight->packing(), tensor, fill_codes, weight->packed.get());
  if (!source.empty()) MappedFile::drop_pages(source);
  return weight;
}

std::shared_ptr<const PackedWeight> WeightStore::matrix(const WeightTensor& tensor, const LinearConfig& linear,
                                                        bool output) {
  if (const auto known = known_.find(tensor.key); known != known_.end() && !tensor.key.empty()) {
    if (auto weight = known->second.lock()) return weight;
  }
  if (runs_ternary(tensor.type, linear)) {
    auto weight = ternary(tensor);
    if (!tensor.key.empty()) known_[tensor.key] = weight;
    return weight;
  }
  auto weight = std::make_shared<PackedWeight>();
  weight->kernel = choice_.of(output ? kernels::output_packing_for(tensor.type, cpu_features())
                                     : kernels::packing_for(tensor.type, cpu_features()));
  weight->type = tensor.type;
  weight->rows = tensor.shape.rows();
  weight->columns = tensor.shape.columns();
  weight->scale = tensor.scale;
  const TensorView view = tensor.read(weight->made);
  if (weight->packing().in_place) {
    weight->data = view.bytes.data();
    if (weight->made.empty()) weight->owner = tensor.owner;
  } else {
    weight->packed = take(weight->bytes());
    pack_all(pool_, weight->packing(), view, weight->packed.get());
    weight->data = weight->packed.get();
    if (weight->made.empty()) {
      MappedFile::drop_pages(view.bytes);
    } else {
      weight->made = {};
    }
  }
  if (!tensor.key.empty()) known_[tensor.key] = weight;
  return weight;
}

std::vector<float> WeightStore::vector(const WeightTensor& tensor) {
  std::vector<std::byte> storage;
  const TensorView view = tensor.read(storage);
  std::vector<float> values(static_cast<size_t>(tensor.shape.count()));
  info(tensor.type).decode(view.bytes.data(), values.data(), tensor.shape.count());
  return values;
}

std::shared_ptr<PackedWeight> WeightStore::empty_random(const Kernel& kernel, int64_t rows, int64_t columns,
                                                        DType type) {
  const DTypeInfo& dtype = info(type);
  if (columns % dtype.block_size != 0) {
    fail("rows of {} values cannot be stored as {}: expected a multiple of {}", columns, dtype.name, dtype.block_size);
  }
  auto weight = std::make_shared<PackedWeight>();
  weight->kernel = kernel;
  weight->type = type;
  weight->rows = rows;
  weight->columns = columns;
  weight->packed = take(weight->bytes());
  weight->data = weight->packed.get();
  return weight;
}

std::shared_ptr<const PackedWeight> WeightStore::random(int64_t rows, int64_t columns, DType type, uint64_t seed,
                                                        const LinearConfig& linear) {
  const auto weight = empty_random(runs_ternary(type, linear) ? choice_.ternary(rows, columns)
                                                              : choice_.of(kernels::packing_for(type, cpu_features())),
                                   rows, columns, type);
  const int64_t total = weight->bytes();
  const int64_t group = weight->packing().row_group;
  const int64_t period = group * std::clamp<int64_t>(kRandomValues / (group * columns), 1, kRandomGroups);
  Random source(seed);
  const double deviation = 1 / std::sqrt(static_cast<double>(columns));
  const std::vector<std::byte> packed = random_rows(weight->packing(), type, period, columns, deviation, source);
  if (weight->packing().pack_codes) weight->scale = static_cast<float>(deviation);
  const auto part = static_cast<int64_t>(packed.size());
  pool_.parallel_for((total + part - 1) / part, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      std::memcpy(weight->packed.get() + i * part, packed.data(),
                  static_cast<size_t>(std::min(part, total - i * part)));
    }
  });
  return weight;
}

std::shared_ptr<const PackedWeight> WeightStore::random_output(int64_t rows, int64_t columns, DType type,
                                                               uint64_t seed) {
  const kernels::Packing& packing = kernels::output_packing_for(type, cpu_features());
  if (!packing.bounds) return random(rows, columns, type, seed);
  const auto weight = empty_random(choice_.of(packing), rows, columns, type);
  Random source(seed);
  const int64_t group = packing.row_group, row_blocks = columns / info(type).block_size;
  const auto few = static_cast<int64_t>(kRandomGroups * group);
  const std::vector<std::byte> stored =
      random_stored(type, few, columns, 1 / std::sqrt(static_cast<double>(columns)), source);
  const auto block_bytes = static_cast<size_t>(info(type).block_bytes), row_bytes = row_blocks * block_bytes;
  std::vector<std::byte> all(static_cast<size_t>(rows) * row_bytes);
  pool_.parallel_for(rows, group, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      Random chosen(seed + static_cast<uint64_t>(row));
      std::byte* const to = all.data() + static_cast<size_t>(row) * row_bytes;
      for (size_t at = 0; at < row_bytes; at += block_bytes) {
        const uint64_t from = chosen.below(static_cast<uint64_t>(few * row_blocks));
        std::memcpy(to + at, stored.data() + from * block_bytes, block_bytes);
      }
    }
  });
  pack_all(pool_, packing, {type, Shape{rows, columns}, all}, weight->packed.get());
  return weight;
}

}  // namespace pare
