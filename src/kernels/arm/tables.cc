#include "kernels/tables.h"
#include "kernels/family.h"

namespace pare::kernels {
namespace {

const ProductsRow kProducts[] = {
    {kCpuNeon | kCpuI8mm, &neoni8mm::kBlocks},
    {kCpuNeon | kCpuDotprod, &neondot::kBlocks},
    {kCpuNeon, &neon::kFloats},
    {kCpuNeon, &neon::kBlocks},
    {kCpuNone, &generic::kFloats},
    {kCpuNone, &generic::kBlocks},
};

const ProductsRow kTernaryRows[] = {
    {kCpuNeon | kCpuI8mm, &neoni8mm::kTernary},
    {kCpuNeon | kCpuDotprod, &neondot::kTernary},
    {kCpuNeon, &neon::kTernary},
    {kCpuNone, &generic::kTernary},
};

const ProductsRow kHeadRows[] = {
    {kCpuNeon | kCpuI8mm, &neoni8mm::kHeads},
    {kCpuNeon | kCpuDotprod, &neondot::kHeads},
    {kCpuNeon, &neon::kHeads},
    {kCpuNone, &generic::kHeads},
};

const ElementwiseRow kElementwiseRows[] = {
    {kCpuNeon, &neon::kElementwise},
    {kCpuNone, &generic::kElementwise},
};

const KvRow kKvRows[] = {
    {kCpuNeon, &neon::kKvF16},    {kCpuNeon, &neon::kKvF32},    {kCpuNeon, &neon::kKvQ8_0},
    {kCpuNone, &generic::kKvF16}, {kCpuNone, &generic::kKvF32}, {kCpuNone, &generic::kKvQ8_0},
};

// The portable preparations are plain loops, which the compiler makes NEON of; int8_row also sums squares, in lanes.
const InputRow kInputRows[] = {
    {kCpuNone, &kFloatInput},       {kCpuNone, &generic::kInt8Block}, {kCpuNeon, &neon::kInt8Row},
    {kCpuNone, &generic::kInt8Row}, {kCpuNone, &generic::kInt8Pairs}, {kCpuNone, &generic::kInt8Triples},
};

const FloatLoopsRow kFloatLoopsRows[] = {
    {kCpuNeon, &neon::kFloatLoops},
    {kCpuNone, &generic::kFloatLoops},
};

const Int8LoopsRow kInt8LoopsRows[] = {
    {kCpuNeon | kCpuI8mm, &neoni8mm::kInt8Loops},
    {kCpuNeon | kCpuDotprod, &neondot::kInt8Loops},
    {kCpuNeon, &neon::kInt8Loops},
    {kCpuNone, &generic::kInt8Loops},
};

const FamilyTables kTables{kProducts, kTernaryRows, kHeadRows,       kElementwiseRows,
                           kKvRows,   kInputRows,   kFloatLoopsRows, kInt8LoopsRows};

}  // namespace

const FamilyTables& family_tables() { return kTables; }

}  // namespace pare::kernels
