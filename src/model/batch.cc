#include "model/batch.h"

namespace pare {

void Batch::add(int32_t token, int32_t sequence_slot, int32_t at, bool logits) {
  tokens.push_back(token);
  sequence.push_back(sequence_slot);
  position.push_back(at);
  wants_logits.push_back(logits);
}

void Batch::add_span(std::span<const int32_t> ids, int32_t sequence_slot, int32_t first_position, bool all_logits) {
  for (size_t i = 0; i < ids.size(); ++i) {
    add(ids[i], sequence_slot, first_position + static_cast<int32_t>(i), all_logits || i + 1 == ids.size());
  }
}

void Batch::clear() { *this = {}; }

}  // namespace pare
