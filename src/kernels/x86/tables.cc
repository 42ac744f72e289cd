#include "kernels/tables.h"
#include "kernels/family.h"

namespace pare::kernels {
namespace {

const ProductsRow kProducts[] = {
    {kCpuAvx512 | kCpuAvx512Vnni | kCpuAvx512Vbmi | kCpuAmxInt8, &amx::kBlocks},
    {kCpuAvx512 | kCpuAvx512Vnni, &avx512vnni::kBlocks},
    {kCpuAvx512, &avx512::kFloats},
    {kCpuAvx512, &avx512::kBlocks},
    {kCpuAvx2 | kCpuAvxVnni, &avxvnni::kBlocks},
    {kCpuAvx2, &avx2::kFloats},
    {kCpuAvx2, &avx2::kBlocks},
    {kCpuNone, &generic::kFloats},
    {kCpuNone, &generic::kBlocks},
};

const ProductsRow kTernaryRows[] = {
    {kCpuAvx512 | kCpuAvx512Vnni | kCpuAvx512Vbmi | kCpuAmxInt8, &amx::kTernary},
    {kCpuAvx512 | kCpuAvx512Vnni | kCpuAvx512Vbmi, &avx512vbmi::kTernary},
    {kCpuAvx512 | kCpuAvx512Vnni, &avx512vnni::kTernary},
    {kCpuAvx512, &avx512::kTernary},
    {kCpuAvx2 | kCpuAvxVnni, &avxvnni::kTernary},
    {kCpuAvx2, &avx2::kTernary},
    {kCpuNone, &generic::kTernary},
};

const ProductsRow kHeadRows[] = {
    {kCpuAvx512 | kCpuAvx512Vnni, &avx512vnni::kHeads},
    {kCpuAvx512, &avx512::kHeads},
    {kCpuAvx2 | kCpuAvxVnni, &avxvnni::kHeads},
    {kCpuAvx2, &avx2::kHeads},
    {kCpuNone, &generic::kHeads},
};

const ElementwiseRow kElementwiseRows[] = {
    {kCpuAvx512, &avx512::kElementwise},
    {kCpuAvx2, &avx2::kElementwise},
    {kCpuNone, &generic::kElementwise},
};

const KvRow kKvRows[] = {
    {kCpuAvx512, &avx512::kKvF16}, {kCpuAvx512, &avx512::kKvF32}, {kCpuAvx512, &avx512::kKvQ8_0},
    {kCpuAvx2, &avx2::kKvF16},     {kCpuAvx2, &avx2::kKvF32},     {kCpuAvx2, &avx2::kKvQ8_0},
    {kCpuNone, &generic::kKvF16},  {kCpuNone, &generic::kKvF32},  {kCpuNone, &generic::kKvQ8_0},
};

const InputRow kInputRows[] = {
    {kCpuNone, &kFloatInput},           {kCpuAvx512, &avx512::kInt8Block}, {kCpuAvx2, &avx2::kInt8Block},
    {kCpuNone, &generic::kInt8Block},   {kCpuAvx512, &avx512::kInt8Row},   {kCpuAvx2, &avx2::kInt8Row},
    {kCpuNone, &generic::kInt8Row},     {kCpuNone, &generic::kInt8Pairs},  {kCpuAvx2, &avx2::kInt8Triples},
    {kCpuNone, &generic::kInt8Triples},
};

const FloatLoopsRow kFloatLoopsRows[] = {
    {kCpuAvx512, &avx512::kFloatLoops},
    {kCpuAvx2, &avx2::kFloatLoops},
    {kCpuNone, &generic::kFloatLoops},
};

const Int8LoopsRow kInt8LoopsRows[] = {
    {kCpuAvx512 | kCpuAmxInt8, &amx::kInt8Loops},
    {kCpuAvx512 | kCpuAvx512Vnni, &avx512vnni::kInt8Loops},
    {kCpuAvx512, &avx512::kInt8Loops},
    {kCpuAvx2 | kCpuAvxVnni, &avxvnni::kInt8Loops},
    {kCpuAvx2, &avx2::kInt8Loops},
    {kCpuNone, &generic::kInt8Loops},
};

const FamilyTables kTables{kProducts, kTernaryRows, kHeadRows,       kElementwiseRows,
                           kKvRows,   kInputRows,   kFloatLoopsRows, kInt8LoopsRows};

}  // namespace

const FamilyTables& family_tables() { return kTables; }

}  // namespace pare::kernels
