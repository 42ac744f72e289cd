#include "model/weight_store.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/file.h"
#include "base/random.h"

namespace pare {
namespace {

constexpr int64_t kPackBytes = 1 << 18;  // of source a task: enough to amortise its start

void pack_all(ThreadPool& pool, const kernels::Packing& packing, const TensorView& from, std::byte* to) {
  const int64_t rows = from.shape.rows();
  int64_t grain = std::max<int64_t>(1, kPackBytes / std::max<int64_t>(1, from.row_bytes()));
  grain = (grain + packing.row_group - 1) / packing.row_group * packing.row_group;
  pool.parallel_for(rows, grain, [&](int64_t begin, int64_t end, int) { packing.pack(from, begin, end, to); });
}

}  // namespace

std::shared_ptr<const PackedWeight> WeightStore::matrix(const WeightTensor& tensor) {
  if (const auto known = known_.find(tensor.key); known != known_.end() && !tensor.key.empty()) {
    if (auto weight = known->second.lock()) return weight;
  }
  auto weight = std::make_shared<PackedWeight>();
  weight->packing = &kernels::packing_for(tensor.type, cpu_features());
  weight->type = tensor.type;
  weight->rows = tensor.shape.rows();
  weight->columns = tensor.shape.columns();
  const TensorView view = tensor.read(weight->made);
  if (weight->packing->in_place) {
    weight->data = view.bytes.data();
    if (weight->made.empty()) weight->owner = tensor.owner;
  } else {
    weight->packed = Buffer<std::byte>(static_cast<size_t>(weight->bytes()));
    pack_all(pool_, *weight->packing, view, weight->packed.data());
    weight->data = weight->packed.data();
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

std::shared_ptr<const PackedWeight> WeightStore::random(int64_t rows, int64_t columns, DType type, uint64_t seed) {
  const DTypeInfo& dtype = info(type);
  if (columns % dtype.block_size != 0) {
    fail("rows of {} values cannot be stored as {}: expected a multiple of {}", columns, dtype.name, dtype.block_size);
  }
  auto weight = std::make_shared<PackedWeight>();
  weight->packing = &kernels::packing_for(type, cpu_features());
  weight->type = type;
  weight->rows = rows;
  weight->columns = columns;
  weight->packed = Buffer<std::byte>(static_cast<size_t>(weight->bytes()));
  weight->data = weight->packed.data();
  // A period of rows that is a multiple of every row group, encoded once and repeated.
  const int64_t period = 16 * weight->packing->row_group;
  std::vector<float> values(static_cast<size_t>(period * columns));
  Random source(seed);
  const double deviation = 1 / std::sqrt(static_cast<double>(columns));
  for (float& value : values) value = static_cast<float>(source.normal() * deviation);
  std::vector<std::byte> encoded(static_cast<size_t>(dtype.bytes(period * columns)));
  dtype.encode(values.data(), encoded.data(), period * columns);
  std::vector<std::byte> packed(static_cast<size_t>(weight->packing->packed_bytes(period, columns)));
  if (weight->packing->in_place) {
    packed = encoded;
  } else {
    weight->packing->pack({type, Shape{period, columns}, encoded}, 0, period, packed.data());
  }
  const auto total = static_cast<int64_t>(weight->packed.size()), part = static_cast<int64_t>(packed.size());
  pool_.parallel_for((total + part - 1) / part, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      std::memcpy(weight->packed.data() + i * part, packed.data(),
                  static_cast<size_t>(std::min(part, total - i * part)));
    }
  });
  return weight;
}

}  // namespace pare
