#pragma once
#include <bit>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace pare {

/// Pieces to ids: an open-addressing table, for vocabularies of 100,000 pieces are looked through several times a load.
/// The pieces must outlive it.
class PieceIndex {
 public:
  explicit PieceIndex(size_t expected) { grow(std::bit_ceil(2 * expected + 16)); }

  /// Adds a piece unless it is there; the id that it has then.
  int32_t add(std::string_view piece, int32_t id) {
    if (2 * (used_ + 1) > slots_.size()) grow(2 * slots_.size());
    Slot& slot = slots_[slot_of(piece, std::hash<std::string_view>()(piece))];
    if (slot.id < 0) {
      slot = {piece, static_cast<uint32_t>(std::hash<std::string_view>()(piece)), id};
      ++used_;
    }
    return slot.id;
  }

  std::optional<int32_t> find(std::string_view piece) const {
    const Slot& slot = slots_[slot_of(piece, std::hash<std::string_view>()(piece))];
    if (slot.id < 0) return std::nullopt;
    return slot.id;
  }

 private:
  struct Slot {
    std::string_view piece;
    uint32_t hash = 0;
    int32_t id = -1;
  };

  size_t slot_of(std::string_view piece, size_t hash) const {
    const size_t mask = slots_.size() - 1;
    size_t at = hash & mask;
    while (slots_[at].id >= 0 && !(slots_[at].hash == static_cast<uint32_t>(hash) && slots_[at].piece == piece)) {
      at = (at + 1) & mask;
    }
    return at;
  }

  void grow(size_t slots) {
    std::vector<Slot> old(slots);
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.id >= 0) slots_[slot_of(slot.piece, std::hash<std::string_view>()(slot.piece))] = slot;
    }
  }

  std::vector<Slot> slots_;
  size_t used_ = 0;
};

/// Every piece of the data that is in use. Of pieces that stand twice the first counts.
inline PieceIndex index_pieces(const TokenizerData& data) {
  PieceIndex index(data.pieces.size());
  for (size_t id = 0; id < data.pieces.size(); ++id) {
    if (data.types[id] != TokenType::kUnused) index.add(data.pieces[id], static_cast<int32_t>(id));
  }
  return index;
}

}  // namespace pare
