#pragma once
#include <cstddef>
#include <cstdint>

namespace pare {

// The functions that the rows of dtype.cc point to, but for the decoders of blocks (block_parts.h): a file for each
// block type, float_types.cc for the plain ones. What they read and write as bytes needs no alignment: safetensors
// places tensors anywhere.

void decode_f32(const std::byte* from, float* to, int64_t count);
void encode_f32(const float* from, std::byte* to, int64_t count);
void decode_f16(const std::byte* from, float* to, int64_t count);
void encode_f16(const float* from, std::byte* to, int64_t count);
void decode_bf16(const std::byte* from, float* to, int64_t count);
void encode_bf16(const float* from, std::byte* to, int64_t count);

void encode_q8_0(const float* from, std::byte* to, int64_t count);
void encode_q4_0(const float* from, std::byte* to, int64_t count);
void encode_q4_1(const float* from, std::byte* to, int64_t count);
void encode_q5_0(const float* from, std::byte* to, int64_t count);
void encode_q5_1(const float* from, std::byte* to, int64_t count);
void encode_q2_k(const float* from, std::byte* to, int64_t count);
void encode_q3_k(const float* from, std::byte* to, int64_t count);
void encode_q4_k(const float* from, std::byte* to, int64_t count);
void encode_q5_k(const float* from, std::byte* to, int64_t count);
void encode_q6_k(const float* from, std::byte* to, int64_t count);
void encode_iq4_nl(const float* from, std::byte* to, int64_t count);
void encode_iq4_xs(const float* from, std::byte* to, int64_t count);
void encode_tq1_0(const float* from, std::byte* to, int64_t count);
void encode_tq2_0(const float* from, std::byte* to, int64_t count);
void encode_q2_0(const float* from, std::byte* to, int64_t count);

}  // namespace pare
