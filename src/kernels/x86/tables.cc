#include "kernels/tables.h"
#include "kernels/family.h"

namespace pare::kernels {
namespace {

const KernelRow kProducts[] = {
    {DType::kQ8_0, kCpuAvx512 | kCpuAvx512Vnni, &avx512vnni::kQ8_0},
    {DType::kQ4_0, kCpuAvx512 | kCpuAvx512Vnni, &avx512vnni::kQ4_0},
    {DType::kF32, kCpuAvx512, &avx512::kF32},
    {DType::kF16, kCpuAvx512, &avx512::kF16},
    {DType::kBF16, kCpuAvx512, &avx512::kBF16},
    {DType::kQ8_0, kCpuAvx512, &avx512::kQ8_0},
    {DType::kQ4_0, kCpuAvx512, &avx512::kQ4_0},
    {DType::kQ8_0, kCpuAvx2 | kCpuAvxVnni, &avxvnni::kQ8_0},
    {DType::kQ4_0, kCpuAvx2 | kCpuAvxVnni, &avxvnni::kQ4_0},
    {DType::kF32, kCpuAvx2, &avx2::kF32},
    {DType::kF16, kCpuAvx2, &avx2::kF16},
    {DType::kBF16, kCpuAvx2, &avx2::kBF16},
    {DType::kQ8_0, kCpuAvx2, &avx2::kQ8_0},
    {DType::kQ4_0, kCpuAvx2, &avx2::kQ4_0},
    {DType::kF32, kCpuNone, &generic::kF32},
    {DType::kF16, kCpuNone, &generic::kF16},
    {DType::kBF16, kCpuNone, &generic::kBF16},
    {DType::kQ8_0, kCpuNone, &generic::kQ8_0},
    {DType::kQ4_0, kCpuNone, &generic::kQ4_0},
};

const ElementwiseRow kElementwiseRows[] = {
    {kCpuAvx512, &avx512::kElementwise},
    {kCpuAvx2, &avx2::kElementwise},
    {kCpuNone, &generic::kElementwise},
};

const KvRow kKvRows[] = {
    {kCpuAvx512, &avx512::kKvF16}, {kCpuAvx512, &avx512::kKvF32}, {kCpuAvx2, &avx2::kKvF16},
    {kCpuAvx2, &avx2::kKvF32},     {kCpuNone, &generic::kKvF16},  {kCpuNone, &generic::kKvF32},
};

const InputRow kInputRows[] = {
    {kCpuNone, &kFloatInput},
    {kCpuAvx512, &avx512::kInt8Block},
    {kCpuAvx2, &avx2::kInt8Block},
    {kCpuNone, &generic::kInt8Block},
};

const FloatLoopsRow kFloatLoopsRows[] = {
    {kCpuAvx512, &avx512::kFloatLoops},
    {kCpuAvx2, &avx2::kFloatLoops},
    {kCpuNone, &generic::kFloatLoops},
};

const Int8LoopsRow kInt8LoopsRows[] = {
    {kCpuAvx512 | kCpuAvx512Vnni, &avx512vnni::kInt8Loops},
    {kCpuAvx512, &avx512::kInt8Loops},
    {kCpuAvx2 | kCpuAvxVnni, &avxvnni::kInt8Loops},
    {kCpuAvx2, &avx2::kInt8Loops},
    {kCpuNone, &generic::kInt8Loops},
};

const FamilyTables kTables{kProducts, kElementwiseRows, kKvRows, kInputRows, kFloatLoopsRows, kInt8LoopsRows};

}  // namespace

const FamilyTables& family_tables() { return kTables; }

}  // namespace pare::kernels
