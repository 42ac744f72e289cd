#include "kernels/tables.h"
#include "kernels/family.h"

// The portable kernels, which the compiler makes NEON of; rows of hand-written ones come before them.

namespace pare::kernels {
namespace {

const KernelRow kProducts[] = {
    {DType::kF32, kCpuNone, &generic::kF32},   {DType::kF16, kCpuNone, &generic::kF16},
    {DType::kBF16, kCpuNone, &generic::kBF16}, {DType::kQ8_0, kCpuNone, &generic::kQ8_0},
    {DType::kQ4_0, kCpuNone, &generic::kQ4_0},
};

const ElementwiseRow kElementwiseRows[] = {
    {kCpuNone, &generic::kElementwise},
};

const KvRow kKvRows[] = {
    {kCpuNone, &generic::kKvF16},
    {kCpuNone, &generic::kKvF32},
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
