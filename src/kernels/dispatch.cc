#include <iterator>
#include <string>

#include "base/error.h"
#include "kernels/kv_pages.h"
#include "kernels/packing.h"
#include "kernels/tables.h"

// Which kernel serves which storage type on which machine: tables, best first. Nothing else names instruction sets.


namespace pare::kernels {
namespace {

const KernelRow kKernels[] = {
    {DType::kF32, kCpuNone, &generic::kF32},   {DType::kF16, kCpuNone, &generic::kF16},
    {DType::kBF16, kCpuNone, &generic::kBF16}, {DType::kQ8_0, kCpuNone, &generic::kQ8_0},
    {DType::kQ4_0, kCpuNone, &generic::kQ4_0},
};

struct ElementwiseRow {
  CpuFeatures required;
  const Elementwise* functions;
};
const ElementwiseRow kElementwiseRows[] = {
    {kCpuNone, &generic::kElementwise},
};

struct KvRow {
  CpuFeatures required;
  const KvFormat* format;
};
const KvRow kKvRows[] = {
    {kCpuNone, &generic::kKvF16},
    {kCpuNone, &generic::kKvF32},
};

const InputFormatInfo kFloatInput{InputFormat::kFloat, "float", input_row_bytes_float, nullptr};

struct InputRow {
  CpuFeatures required;
  const InputFormatInfo* info;
};
const InputRow kInputRows[] = {
    {kCpuNone, &kFloatInput},
    {kCpuNone, &generic::kInt8Block},
};

bool has(CpuFeatures features, CpuFeatures required) { return (features & required) == required; }

}  // namespace

std::span<const KernelRow> kernel_table() { return kKernels; }

const Packing& packing_for(DType type, CpuFeatures features) {
  for (const KernelRow& row : kKernels)
    if (row.source == type && has(features, row.required)) return *row.packing;
  fail("no kernel multiplies {} weights", info(type).name);
}

const InputFormatInfo& input_format(InputFormat format, CpuFeatures features) {
  for (const InputRow& row : kInputRows)
    if (row.info->format == format && has(features, row.required)) return *row.info;
  fail("no kernel prepares input format {}", static_cast<int>(format));
}

const InputFormatInfo& input_format(InputFormat format) {
  static const CpuFeatures features = cpu_features();
  return input_format(format, features);
}

const Elementwise& elementwise(CpuFeatures features) {
  for (const ElementwiseRow& row : kElementwiseRows)
    if (has(features, row.required)) return *row.functions;
  return generic::kElementwise;
}

const KvFormat& kv_format(DType type, CpuFeatures features) {
  for (const KvRow& row : kKvRows)
    if (row.format->type == type && has(features, row.required)) return *row.format;
  std::string known;
  for (const KvRow& row : kKvRows) {
    const std::string name = info(row.format->type).name;
    if (known.find(name) == std::string::npos) known += (known.empty() ? "" : ", ") + name;
  }
  fail("the KV cache cannot hold {}; it can hold {}", info(type).name, known);
}

int64_t attend_scratch(int query_count, int value_dim) { return query_count * attend_state_floats(value_dim); }

}  // namespace pare::kernels
