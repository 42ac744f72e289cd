#pragma once
#include <span>

#include "kernels/attention.h"
#include "kernels/ceilings.h"
#include "kernels/elementwise.h"
#include "kernels/matmul.h"

// The dispatch tables of one family of machines, best first; the last row of each serves every machine. x86/tables.cc
// and arm/tables.cc are the only places that name instruction sets.

namespace pare::kernels {

struct ProductsRow {
  CpuFeatures required;
  const std::span<const Packing>* packings;
};

struct ElementwiseRow {
  CpuFeatures required;
  const Elementwise* functions;
};

struct KvRow {
  CpuFeatures required;
  const KvFormat* format;
};

struct InputRow {
  CpuFeatures required;
  const InputFormatInfo* info;
};

struct FloatLoopsRow {
  CpuFeatures required;
  const FloatLoops* loops;
};

struct Int8LoopsRow {
  CpuFeatures required;
  const Int8Loops* loops;
};

struct FamilyTables {
  std::span<const ProductsRow> products;
  std::span<const ProductsRow> ternary;
  std::span<const ProductsRow> heads;
  std::span<const ElementwiseRow> elementwise;
  std::span<const KvRow> kv;
  std::span<const InputRow> inputs;
  std::span<const FloatLoopsRow> float_loops;
  std::span<const Int8LoopsRow> int8_loops;
};

const FamilyTables& family_tables();

/// InputFormat::kFloat, which needs no preparation.
extern const InputFormatInfo kFloatInput;

}  // namespace pare::kernels
