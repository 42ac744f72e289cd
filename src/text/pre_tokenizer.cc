#include "text/pre_tokenizer.h"

#include <algorithm>

#include "base/error.h"
#include "text/unicode.h"

namespace pare {
namespace {

// Each step is a level of recursion.
constexpr size_t kMaxSteps = 32;

/// One stretch of the text in a split: a match or what lies between matches. Stretches may be empty.
struct Stretch {
  size_t begin, end;
  bool match;
};

/// Joins and drops stretches as the behavior says, and hands on what is left.
template <class Emit>
class Joiner {
 public:
  Joiner(SplitBehavior behavior, Emit emit) : behavior_(behavior), emit_(std::move(emit)) {}

  void add(Stretch stretch) {
    switch (behavior_) {
      case SplitBehavior::kIsolated:
        emit_(stretch.begin, stretch.end);
        return;
      case SplitBehavior::kRemoved:
        if (!stretch.match) emit_(stretch.begin, stretch.end);
        return;
      case SplitBehavior::kContiguous:
        return join(stretch, stretch.match == previous_match_);
      // A match goes to the stretch before it, unless that is a match as well.
      case SplitBehavior::kMergedWithPrevious:
        return join(stretch, stretch.match && !previous_match_);
      // A match waits for the stretch after it, unless that is a match as well.
      case SplitBehavior::kMergedWithNext:
        return join(stretch, previous_match_ && !stretch.match);
    }
  }
  void finish() {
    if (held_) emit_(held_->begin, held_->end);
  }

 private:
  void join(Stretch stretch, bool with_held) {
    if (held_ && with_held) {
      held_->end = stretch.end;
    } else {
      finish();
      held_ = stretch;
    }
    previous_match_ = stretch.match;
  }

  SplitBehavior behavior_;
  Emit emit_;
  std::optional<Stretch> held_;
  bool previous_match_ = false;
};

}  // namespace

PreTokenizer::PreTokenizer(std::span<const PreTokenizerStep> steps) {
  if (steps.size() > kMaxSteps) fail("a pre-tokenizer of {} steps, expected at most {}", steps.size(), kMaxSteps);
  bool bytes = false;
  for (const PreTokenizerStep& step : steps) {
    ends_in_characters_ = bytes;
    switch (step.kind) {
      case PreTokenizerStep::Kind::kSplit:
        steps_.push_back({Step::Kind::kSplit, step, Regex(step.pattern)});
        break;
      case PreTokenizerStep::Kind::kMetaspace:
        steps_.push_back({Step::Kind::kMetaspace, step, {}});
        break;
      case PreTokenizerStep::Kind::kByteLevel:
        if (bytes) fail("a pre-tokenizer with two ByteLevel steps");
        bytes = true;
        if (step.prefix == PrefixSpace::kAlways) steps_.push_back({Step::Kind::kPrefix, step, {}});
        if (step.split_words) steps_.push_back({Step::Kind::kSplit, {}, Regex(kGpt2Pattern)});
        steps_.push_back({Step::Kind::kBytes, step, {}});
        break;
    }
  }
}

PreTokenizer::Run::Run(const PreTokenizer& owner) : owner_(owner), matchers_(owner.steps_.size()) {
  for (size_t i = 0; i < matchers_.size(); ++i) {
    if (owner.steps_[i].pattern) matchers_[i].emplace(*owner.steps_[i].pattern);
  }
}

void PreTokenizer::Run::split(std::string_view text, bool first, Word word) { next(0, {text, first}, word); }

void PreTokenizer::Run::next(size_t step, Piece piece, Word word) {
  if (piece.text.empty()) return;
  if (step == owner_.steps_.size()) {
    // Steps after ByteLevel saw its characters; the word is the bytes they stand for.
    if (owner_.ends_in_characters_) return word(bytes_of_piece(piece.text).value_or(std::string(piece.text)));
    return word(piece.text);
  }
  switch (owner_.steps_[step].kind) {
    case Step::Kind::kSplit:
      return split_step(step, piece, word);
    case Step::Kind::kMetaspace:
      return metaspace_step(step, piece, word);
    case Step::Kind::kPrefix:
      return prefix_step(step, piece, word);
    case Step::Kind::kBytes:
      return bytes_step(step, piece, word);
  }
}

void PreTokenizer::Run::split_step(size_t step, Piece piece, Word word) {
  const PreTokenizerStep& rule = owner_.steps_[step].rule;
  Joiner joiner(rule.behavior, [&](size_t begin, size_t end) {
    next(step + 1, {piece.text.substr(begin, end - begin), piece.first && begin == 0}, word);
  });
  size_t done = 0;
  matchers_[step]->for_each(piece.text, [&](RegexMatch match) {
    if (done != match.begin) joiner.add({done, match.begin, rule.invert});
    joiner.add({match.begin, match.end, !rule.invert});
    done = match.end;
  });
  if (done != piece.text.size()) joiner.add({done, piece.text.size(), rule.invert});
  joiner.finish();
}

void PreTokenizer::Run::prefix_step(size_t step, Piece piece, Word word) {
  if (piece.text.starts_with(' ')) return next(step + 1, piece, word);
  const std::string prefixed = ' ' + std::string(piece.text);
  next(step + 1, {prefixed, piece.first}, word);
}

void PreTokenizer::Run::bytes_step(size_t step, Piece piece, Word word) {
  // With nothing to come the characters would only be turned back.
  if (!owner_.ends_in_characters_) return next(step + 1, piece, word);
  const std::string characters = byte_level_text(piece.text);
  next(step + 1, {characters, piece.first}, word);
}

void PreTokenizer::Run::metaspace_step(size_t step, Piece piece, Word word) {
  const PreTokenizerStep& rule = owner_.steps_[step].rule;
  std::string changed;
  const bool starts = piece.text.starts_with(' ') || piece.text.starts_with(kSpaceSymbol);
  if (!starts && (rule.prefix == PrefixSpace::kAlways || (rule.prefix == PrefixSpace::kFirst && piece.first))) {
    changed += kSpaceSymbol;
  }
  for (const char c : piece.text) {
    if (c == ' ') {
      changed += kSpaceSymbol;
    } else {
      changed += c;
    }
  }
  if (!rule.split_words) return next(step + 1, {changed, piece.first}, word);
  // Each symbol begins a word; the first word may have none.
  const std::string_view text = changed;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(kSpaceSymbol, begin + 1), text.size());
    next(step + 1, {text.substr(begin, end - begin), piece.first && begin == 0}, word);
    begin = end;
  }
}

}  // namespace pare
