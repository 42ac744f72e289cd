#include <string>
#include <vector>

#include "base/error.h"
#include "kernels/family.h"
#include "kernels/kv_pages.h"
#include "kernels/packing.h"

// Chooses from the tables of this family of machines: the first row that matches.

namespace pare::kernels {
namespace {

bool has(CpuFeatures features, CpuFeatures required) { return (features & required) == required; }

}  // namespace

const InputFormatInfo kFloatInput{InputFormat::kFloat, "float", input_row_bytes_float, nullptr};

std::span<const KernelRow> kernel_table() {
  static const std::vector<KernelRow> table = [] {
    std::vector<KernelRow> rows;
    for (const ProductsRow& products : family_tables().products)
      for (const Packing& packing : *products.packings) rows.push_back({packing.source, products.required, &packing});
    return rows;
  }();
  return table;
}

const Packing& packing_for(DType type, CpuFeatures features) {
  for (const KernelRow& row : kernel_table())
    if (row.source == type && has(features, row.required)) return *row.packing;
  fail("no kernel multiplies {} weights", info(type).name);
}

const InputFormatInfo& input_format(InputFormat format, CpuFeatures features) {
  for (const InputRow& row : family_tables().inputs)
    if (row.info->format == format && has(features, row.required)) return *row.info;
  fail("no kernel prepares input format {}", static_cast<int>(format));
}

const InputFormatInfo& input_format(InputFormat format) {
  static const CpuFeatures features = cpu_features();
  return input_format(format, features);
}

const Elementwise& elementwise(CpuFeatures features) {
  for (const ElementwiseRow& row : family_tables().elementwise)
    if (has(features, row.required)) return *row.functions;
  fail("no kernels serve CPU features '{}'", describe(features));
}

const Elementwise& elementwise() {
  static const Elementwise& of_this_process = elementwise(cpu_features());
  return of_this_process;
}

const KvFormat& kv_format(DType type, CpuFeatures features) {
  for (const KvRow& row : family_tables().kv)
    if (row.format->type == type && has(features, row.required)) return *row.format;
  fail("the KV cache cannot hold {}; it can hold {}", info(type).name, kv_type_names());
}

std::vector<DType> kv_types() {
  std::vector<DType> types;
  for (const KvRow& row : family_tables().kv) {
    // Rows that need nothing serve every machine: each type has one.
    if (row.required == kCpuNone) types.push_back(row.format->type);
  }
  return types;
}

std::string kv_type_names() {
  std::string names;
  for (const DType type : kv_types()) names += (names.empty() ? "" : ", ") + std::string(info(type).name);
  return names;
}

int64_t two_pass_span_floats(int maps, int value_parts, int value_dim, int query_count) {
  return query_count * (kAttendStateHead + value_parts * padded_value_dim(value_dim) + int64_t{maps} * kKvSpanTokens);
}

int64_t attend_scratch(int query_count, int value_dim, int64_t spans) {
  return spans * query_count * attend_state_floats(value_dim);
}

}  // namespace pare::kernels
