#pragma once
#include <cstdint>
#include <vector>

#include "model/config.h"

namespace pare {

/// Inverse frequencies [dims / 2] and the factor on cos and sin, as transformers computes them in float32 for a
/// sequence of `sequence_length` tokens (which only dynamic and longrope scaling look at).
struct RopeFrequencies {
  std::vector<float> inverse;
  float attention_factor = 1;
};
RopeFrequencies rope_frequencies(const RopeConfig& rope, int64_t sequence_length);

/// Whether frequencies depend on how long the sequence becomes.
bool depends_on_length(const RopeConfig& rope);

/// cos and sin [dims / 2] of a position, times the attention factor. Own sine and cosine, so that every machine agrees.
void rope_row(const RopeFrequencies& frequencies, int64_t position, float* cos, float* sin);

/// For llama.cpp: what the plain frequencies are divided by [dims / 2] (rope_freqs.weight), for llama3 scaling.
std::vector<float> llama3_divisors(const RopeConfig& rope);

}  // namespace pare
