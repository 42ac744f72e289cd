#include "tensor/dtype.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "tensor/block_parts.h"
#include "tensor/codecs.h"

namespace pare {
namespace {

constexpr std::array kTypes = {
    // type, name, ggml_type, safetensors, general.file_type, values and bytes of a block
    DTypeInfo{DType::kF32, "f32", 0, "F32", 0, 1, 4, decode_f32, encode_f32},
    DTypeInfo{DType::kF16, "f16", 1, "F16", 1, 1, 2, decode_f16, encode_f16},
    DTypeInfo{DType::kBF16, "bf16", 30, "BF16", 32, 1, 2, decode_bf16, encode_bf16},
    DTypeInfo{DType::kQ8_0, "q8_0", 8, nullptr, 7, 32, 34, decode_blocks<DType::kQ8_0>, encode_q8_0},
    DTypeInfo{DType::kQ4_0, "q4_0", 2, nullptr, 2, 32, 18, decode_blocks<DType::kQ4_0>, encode_q4_0},
    DTypeInfo{DType::kQ4_1, "q4_1", 3, nullptr, 3, 32, 20, decode_blocks<DType::kQ4_1>, encode_q4_1},
    DTypeInfo{DType::kQ5_0, "q5_0", 6, nullptr, 8, 32, 22, decode_blocks<DType::kQ5_0>, encode_q5_0},
    DTypeInfo{DType::kQ5_1, "q5_1", 7, nullptr, 9, 32, 24, decode_blocks<DType::kQ5_1>, encode_q5_1},
    DTypeInfo{DType::kQ2_K, "q2_k", 10, nullptr, 10, 256, 84, decode_blocks<DType::kQ2_K>, encode_q2_k},
    DTypeInfo{DType::kQ3_K, "q3_k", 11, nullptr, 11, 256, 110, decode_blocks<DType::kQ3_K>, encode_q3_k},
    DTypeInfo{DType::kQ4_K, "q4_k", 12, nullptr, 14, 256, 144, decode_blocks<DType::kQ4_K>, encode_q4_k},
    DTypeInfo{DType::kQ5_K, "q5_k", 13, nullptr, 16, 256, 176, decode_blocks<DType::kQ5_K>, encode_q5_k},
    DTypeInfo{DType::kQ6_K, "q6_k", 14, nullptr, 18, 256, 210, decode_blocks<DType::kQ6_K>, encode_q6_k},
    DTypeInfo{DType::kIQ4_NL, "iq4_nl", 20, nullptr, 25, 32, 18, decode_blocks<DType::kIQ4_NL>, encode_iq4_nl},
    DTypeInfo{DType::kIQ4_XS, "iq4_xs", 23, nullptr, 30, 256, 136, decode_blocks<DType::kIQ4_XS>, encode_iq4_xs},
    DTypeInfo{DType::kTQ1_0, "tq1_0", 34, nullptr, 36, 256, 54, decode_blocks<DType::kTQ1_0>, encode_tq1_0},
    DTypeInfo{DType::kTQ2_0, "tq2_0", 35, nullptr, 37, 256, 66, decode_blocks<DType::kTQ2_0>, encode_tq2_0},
    DTypeInfo{DType::kQ2_0, "q2_0", 42, nullptr, 41, 64, 18, decode_blocks<DType::kQ2_0>, encode_q2_0},
};

constexpr bool rows_stand_at_their_number() {
  for (size_t i = 0; i < kTypes.size(); ++i) {
    if (static_cast<size_t>(kTypes[i].type) != i) return false;
  }
  return true;
}
static_assert(rows_stand_at_their_number(), "info() indexes the table by the enumerator");

template <class Matches>
const DTypeInfo* find(Matches matches) {
  const auto found = std::find_if(kTypes.begin(), kTypes.end(), matches);
  return found == kTypes.end() ? nullptr : &*found;
}

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return std::tolower(static_cast<unsigned char>(c)); };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [&](char x, char y) { return lower(x) == lower(y); });
}

}  // namespace

const DTypeInfo& info(DType type) { return kTypes[static_cast<size_t>(type)]; }

std::span<const DTypeInfo> all_dtypes() { return kTypes; }

const DTypeInfo* find_dtype(std::string_view name) {
  return find([&](const DTypeInfo& row) { return equal_ignoring_case(row.name, name); });
}

const DTypeInfo* find_dtype_gguf(uint32_t id) {
  return find([&](const DTypeInfo& row) { return row.gguf_id == id; });
}

std::optional<DType> fitting_dtype(DType wanted, int64_t columns) {
  struct Instead {
    DType wanted, type;
  };
  constexpr Instead kInstead[] = {
      {DType::kIQ4_XS, DType::kIQ4_NL}, {DType::kQ2_K, DType::kQ4_0},  {DType::kQ3_K, DType::kQ4_0},
      {DType::kTQ1_0, DType::kQ2_0},    {DType::kTQ2_0, DType::kQ2_0}, {DType::kQ2_0, DType::kQ4_0},
      {DType::kQ4_K, DType::kQ5_0},     {DType::kQ5_K, DType::kQ5_1},  {DType::kQ6_K, DType::kQ8_0},
  };
  while (columns % info(wanted).block_size != 0) {
    const auto* found = std::find_if(std::begin(kInstead), std::end(kInstead),
                                     [&](const Instead& row) { return row.wanted == wanted; });
    if (found == std::end(kInstead)) return std::nullopt;
    wanted = found->type;
  }
  return wanted;
}

const DTypeInfo* find_dtype_safetensors(std::string_view name) {
  return find([&](const DTypeInfo& row) { return row.safetensors && row.safetensors == name; });
}

std::string dtype_names() {
  std::string names;
  for (const DTypeInfo& row : kTypes) names += (names.empty() ? "" : ", ") + std::string(row.name);
  return names;
}

}  // namespace pare
