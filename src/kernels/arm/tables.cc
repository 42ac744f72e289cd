#include "kernels/tables.h"
#include "kernels/family.h"

namespace pare::kernels {
namespace {

const KernelRow kProducts[] = {
    {DType::kQ8_0, kCpuNeon | kCpuDotprod, &dotprod::kQ8_0},
    {DType::kQ4_0, kCpuNeon | kCpuDotprod, &dotprod::kQ4_0},
    {DType::kF32, kCpuNeon, &neon::kF32},
    {DType::kF16, kCpuNeon, &neon::kF16},
    {DType::kBF16, kCpuNeon, &neon::kBF16},
    {DType::kQ8_0, kCpuNeon, &neon::kQ8_0},
    {DType::kQ4_0, kCpuNeon, &neon::kQ4_0},
    {DType::kF32, kCpuNone, &generic::kF32},
    {DType::kF16, kCpuNone, &generic::kF16},
    {DType::kBF16, kCpuNone, &generic::kBF16},
    {DType::kQ8_0, kCpuNone, &generic::kQ8_0},
    {DType::kQ4_0, kCpuNone, &generic::kQ4_0},
};

const ElementwiseRow kElementwiseRows[] = {
    {kCpuNeon, &neon::kElementwise},
    {kCpuNone, &generic::kElementwise},
};

const KvRow kKvRows[] = {
    {kCpuNeon, &neon::kKvF16},
    {kCpuNeon, &neon::kKvF32},
    {kCpuNone, &generic::kKvF16},
    {kCpuNone, &generic::kKvF32},
};

const InputRow kInputRows[] = {
    {kCpuNone, &kFloatInput},
    {kCpuNeon, &neon::kInt8Block},
    {kCpuNone, &generic::kInt8Block},
};

const FloatLoopsRow kFloatLoopsRows[] = {
    {kCpuNeon, &neon::kFloatLoops},
    {kCpuNone, &generic::kFloatLoops},
};

const Int8LoopsRow kInt8LoopsRows[] = {
    {kCpuNeon | kCpuDotprod, &dotprod::kInt8Loops},
    {kCpuNeon, &neon::kInt8Loops},
    {kCpuNone, &generic::kInt8Loops},
};

const FamilyTables kTables{kProducts, kElementwiseRows, kKvRows, kInputRows, kFloatLoopsRows, kInt8LoopsRows};

}  // namespace

const FamilyTables& family_tables() { return kTables; }

}  // namespace pare::kernels
