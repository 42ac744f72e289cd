#include <algorithm>
#include <bit>
#include <functional>

#include "base/error.h"
#include "text/bpe.h"

namespace pare {
namespace {

// Up to here looking through all pairs is faster than a heap.
constexpr size_t kShortWord = 24;

uint64_t pair_of(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

}  // namespace

size_t MergeTable::slot_of(uint64_t pair) const {
  uint64_t hash = pair * 0x9e3779b97f4a7c15u;
  hash ^= hash >> 32;
  const size_t mask = slots_.size() - 1;
  size_t slot = hash * 0xd6e8feb86659fd93u >> 20 & mask;
  while (slots_[slot].pair != pair && slots_[slot].pair != kEmpty) slot = (slot + 1) & mask;
  return slot;
}

void MergeTable::reserve(size_t rules) {
  const size_t slots = std::bit_ceil(std::max<size_t>(2 * rules, 16));
  if (slots > slots_.size()) grow(slots);
}

void MergeTable::grow(size_t slots) {
  std::vector<Slot> old(slots);
  old.swap(slots_);
  for (const Slot& slot : old) {
    if (slot.pair != kEmpty) slots_[slot_of(slot.pair)] = slot;
  }
}

void MergeTable::set(int32_t left, int32_t right, Rule rule) {
  reserve(used_ + 1);
  Slot& slot = slots_[slot_of(pair_of(left, right))];
  if (slot.pair == kEmpty) ++used_;
  slot = {pair_of(left, right), rule};
}

MergeTable::Rule MergeTable::find(int32_t left, int32_t right) const {
  if (slots_.empty()) return {};
  return slots_[slot_of(pair_of(left, right))].rule;  // an empty slot holds no rule
}

void Merger::merge(std::vector<int32_t>& symbols) {
  if (symbols.size() < 2) return;
  if (symbols.size() > size_t{1} << 30) fail("a word of {} symbols is too long to be merged", symbols.size());
  if (symbols.size() <= kShortWord) {
    merge_short(symbols);
  } else {
    merge_long(symbols);
  }
}

void Merger::merge_short(std::vector<int32_t>& symbols) {
  const auto rule_at = [&](size_t i) { return table_.find(symbols[i], symbols[i + 1]); };
  rules_.clear();
  for (size_t i = 0; i + 1 < symbols.size(); ++i) rules_.push_back(rule_at(i));
  while (!rules_.empty()) {
    size_t best = 0;
    for (size_t i = 1; i < rules_.size(); ++i) {
      if (rules_[i].rank < rules_[best].rank) best = i;
    }
    if (rules_[best].rank == MergeTable::kNone) return;
    symbols[best] = rules_[best].result;
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(best) + 1);
    rules_.erase(rules_.begin() + static_cast<ptrdiff_t>(best));
    if (best < rules_.size()) rules_[best] = rule_at(best);
    if (best > 0) rules_[best - 1] = rule_at(best - 1);
  }
}

void Merger::push_candidate(std::span<const int32_t> symbols, int32_t left) {
  const auto i = static_cast<size_t>(left);
  const MergeTable::Rule rule = table_.find(symbols[i], symbols[static_cast<size_t>(next_[i])]);
  if (rule.rank == MergeTable::kNone) return;
  heap_.push_back(static_cast<uint64_t>(rule.rank) << 32 | static_cast<uint32_t>(left));
}

void Merger::merge_long(std::vector<int32_t>& symbols) {
  constexpr int32_t kGone = -1;
  const auto count = static_cast<int32_t>(symbols.size());
  next_.resize(symbols.size());
  previous_.resize(symbols.size());
  heap_.clear();
  for (int32_t i = 0; i < count; ++i) {
    next_[static_cast<size_t>(i)] = i + 1;
    previous_[static_cast<size_t>(i)] = i - 1;
    if (i + 1 < count) push_candidate(symbols, i);
  }
  const auto later = std::greater<>();
  std::make_heap(heap_.begin(), heap_.end(), later);
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end(), later);
    const uint64_t top = heap_.back();
    heap_.pop_back();
    const auto left = static_cast<size_t>(top & 0xffffffffu);
    if (symbols[left] == kGone || next_[left] == count) continue;
    const auto right = static_cast<size_t>(next_[left]);
    // A candidate whose symbols have changed since is stale; the pair as it is now was pushed when it came to be.
    const MergeTable::Rule rule = table_.find(symbols[left], symbols[right]);
    if (rule.rank == MergeTable::kNone || static_cast<uint64_t>(rule.rank) != top >> 32) continue;
    symbols[left] = rule.result;
    symbols[right] = kGone;
    next_[left] = next_[right];
    if (next_[left] < count) previous_[static_cast<size_t>(next_[left])] = static_cast<int32_t>(left);
    for (const int32_t candidate : {previous_[left], static_cast<int32_t>(left)}) {
      if (candidate < 0 || next_[static_cast<size_t>(candidate)] == count) continue;
      const size_t before = heap_.size();
      push_candidate(symbols, candidate);
      if (heap_.size() > before) std::push_heap(heap_.begin(), heap_.end(), later);
    }
  }
  std::erase(symbols, kGone);
}

}  // namespace pare
