#include "kernels/tables.h"
#include "kernels/family.h"

// The portable kernels, which the compiler makes NEON of; rows of hand-written ones come before them.

namespace pare::kernels {
namespace {

const ProductsRow kProducts[] = {
    {kCpuNone, &generic::kFloats},
    {kCpuNone, &generic::kBlocks},
};

const ElementwiseRow kElementwiseRows[] = {
    {kCpuNone, &generic::kElementwise},
};

const KvRow kKvRows[] = {
    {kCpuNone, &generic::kKvF16},
    {kCpuNone, &generic::kKvF32},
    {kCpuNone, &generic::kKvQ8_0},
};

const InputRow kInputRows[] = {
    {kCpuNone, &kFloatInput},
    {kCpuNone, &generic::kInt8Block},
};

const FloatLoopsRow kFloatLoopsRows[] = {
    {kCpuNone, &generic::kFloatLoops},
};

const Int8LoopsRow kInt8LoopsRows[] = {
    {kCpuNone, &generic::kInt8Loops},
};

const FamilyTables kTables{kProducts, kElementwiseRows, kKvRows, kInputRows, kFloatLoopsRows, kInt8LoopsRows};

}  // namespace

const FamilyTables& family_tables() { return kTables; }

}  // namespace pare::kernels
