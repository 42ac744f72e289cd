#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace pare {

/// Ragged rows to run together: each is one token of one sequence. Rows of a sequence lie together, positions
/// ascending, and continue what the cache holds of it.
struct Batch {
  std::vector<int32_t> tokens;        // [rows]
  std::vector<int32_t> sequence;      // [rows] slot of the KvCache
  std::vector<int32_t> position;      // [rows]
  std::vector<int32_t> adapter;       // [rows] or empty: none
  std::vector<uint8_t> wants_logits;  // [rows]
  /// Length that each row's sequence will have after this submission, for rope scalings that depend on it
  /// (transformers recomputes frequencies for the whole call). [rows] or empty: position of its last row here + 1.
  std::vector<int32_t> sequence_length;

  int64_t rows() const { return static_cast<int64_t>(tokens.size()); }
  void add(int32_t token, int32_t sequence_slot, int32_t at, bool logits);
  /// Appends consecutive tokens of one sequence; logits of all of them, or of the last only.
  void add_span(std::span<const int32_t> ids, int32_t sequence_slot, int32_t first_position, bool all_logits);
  void clear();
};

}  // namespace pare
