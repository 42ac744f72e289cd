#include <array>
#include <optional>

#include "base/error.h"
#include "formats/json_walk.h"
#include "formats/names.h"
#include "text/json_parts.h"
#include "text/piece_index.h"

namespace pare {
namespace {

/// Builds a document out of events.
class TreeBuilder {
 public:
  void begin(const JsonPlace& place, bool array) {
    JsonTree& made = put(place, array ? JsonTree::array() : JsonTree::object());
    open_.push_back(&made);
  }
  void end() { open_.pop_back(); }
  void scalar(const JsonPlace& place, const JsonScalar& value) {
    std::visit(
        [&]<class T>(const T& v) {
          if constexpr (std::is_same_v<T, std::string_view>) {
            put(place, std::string(v));
          } else {
            put(place, v);
          }
        },
        value);
  }
  JsonTree take() { return std::move(root_); }

 private:
  JsonTree& put(const JsonPlace& place, JsonTree value) {
    if (open_.empty()) return root_ = std::move(value);
    if (place.in_array) {
      // Elements of an open array stay where they are: only the innermost container grows.
      open_.back()->push_back(std::move(value));
      return open_.back()->back();
    }
    return (*open_.back())[place.keys.back()] = std::move(value);
  }
  JsonTree root_;
  std::vector<JsonTree*> open_;
};

class TreeListener : public JsonListener {
 public:
  void begin(const JsonPlace& place, bool array) override { builder_.begin(place, array); }
  void scalar(const JsonPlace& place, const JsonScalar& value) override { builder_.scalar(place, value); }
  void end(const JsonPlace&, bool) override { builder_.end(); }
  JsonTree take() { return builder_.take(); }

 private:
  TreeBuilder builder_;
};

class TokenizerListener : public JsonListener {
 public:
  explicit TokenizerListener(std::string_view where) : where_(where) {}

  void begin(const JsonPlace& place, bool array) override {
    if (depth_ > 0 || is_large(place)) {
      if (depth_ == 0) enter(place, array);
      ++depth_;
      if (part_ == Part::kVocabulary && depth_ > 1) fail("{}: model.vocab: expected ids", where_);
      if (part_ == Part::kMerges && depth_ > 1) begin_merge(array);
      return;
    }
    rest_.begin(place, array);
  }

  void scalar(const JsonPlace& place, const JsonScalar& value) override {
    if (depth_ == 0) {
      if (is_large(place)) fail("{}: model.{}: expected an object or an array", where_, place.keys[1]);
      return rest_.scalar(place, value);
    }
    if (part_ == Part::kVocabulary) add_piece(place, value);
    if (part_ == Part::kMerges) add_merge_part(value);
  }

  void end(const JsonPlace&, bool) override {
    if (depth_ == 0) return rest_.end();
    --depth_;
    if (part_ == Part::kMerges && depth_ == 1) end_merge();
  }

  TokenizerJson take() {
    if (!out_.vocabulary.empty()) {  // without one there is something better to say about the file
      make_index();
      for (const auto& [left, right] : early_merges_) out_.merges.push_back({id_in_merge(left), id_in_merge(right)});
    }
    out_.rest = rest_.take();
    return std::move(out_);
  }

 private:
  enum class Part { kVocabulary, kMerges, kIgnored };

  static bool is_large(const JsonPlace& place) {
    return place.keys.size() == 2 && !place.in_array && place.keys[0] == "model" &&
           (place.keys[1] == "vocab" || place.keys[1] == "merges");
  }

  void enter(const JsonPlace& place, bool array) {
    const bool vocabulary = place.keys[1] == "vocab";
    if (!vocabulary && !array) fail("{}: model.merges: expected an array", where_);
    part_ = !vocabulary ? Part::kMerges : array ? Part::kIgnored : Part::kVocabulary;
    if (vocabulary && array) out_.vocabulary_is_list = true;
  }

  void add_piece(const JsonPlace& place, const JsonScalar& value) {
    const uint64_t* id = std::get_if<uint64_t>(&value);
    if (!id || *id > INT32_MAX) {
      fail("{}: model.vocab: {}: expected an id from 0 to {}", where_, quote_name(place.keys.back()), INT32_MAX);
    }
    out_.vocabulary.emplace_back(place.keys.back(), static_cast<int32_t>(*id));
  }

  void begin_merge(bool array) {
    if (!array || depth_ > 2) bad_merge();
    parts_ = 0;
  }
  void add_merge_part(const JsonScalar& value) {
    const std::string_view* text = std::get_if<std::string_view>(&value);
    if (!text) bad_merge();
    if (depth_ == 2) {
      if (parts_ == 2) bad_merge();
      pair_[parts_++] = *text;
      return;
    }
    const size_t space = text->find(' ');
    if (space == std::string_view::npos || text->find(' ', space + 1) != std::string_view::npos) bad_merge();
    add_merge(text->substr(0, space), text->substr(space + 1));
  }
  void end_merge() {
    if (parts_ != 2) bad_merge();
    add_merge(pair_[0], pair_[1]);
  }
  [[noreturn]] void bad_merge() const {
    fail("{}: model.merges[{}]: expected two pieces, as \"left right\" or [\"left\", \"right\"]", where_,
         merges_read());
  }
  size_t merges_read() const { return out_.merges.size() + early_merges_.size(); }

  /// In every known file the vocabulary comes first, so that merges need not be kept as text.
  void add_merge(std::string_view left, std::string_view right) {
    if (out_.vocabulary.empty()) {
      early_merges_.emplace_back(left, right);
    } else {
      if (!index_) make_index();
      out_.merges.push_back({id_in_merge(left), id_in_merge(right)});
    }
  }
  void make_index() {
    index_.emplace(out_.vocabulary.size());
    for (const auto& [piece, id] : out_.vocabulary) index_->add(piece, id);
  }
  int32_t id_in_merge(std::string_view piece) const {
    const auto id = index_->find(piece);
    if (!id) fail("{}: model.merges[{}]: {} is no piece", where_, out_.merges.size(), quote_name(piece));
    return *id;
  }

  std::string_view where_;
  TreeBuilder rest_;
  TokenizerJson out_;
  Part part_ = Part::kIgnored;
  size_t depth_ = 0;  // containers open within model.vocab or model.merges, that one included
  size_t parts_ = 0;  // of the merge being read
  std::array<std::string, 2> pair_;
  std::optional<PieceIndex> index_;  // of the vocabulary, once it is read
  std::vector<std::pair<std::string, std::string>> early_merges_;
};

}  // namespace

TokenizerJson read_tokenizer_json(std::string_view text, std::string_view where) {
  TokenizerListener listener(where);
  walk_json(text, where, listener);
  TokenizerJson read = listener.take();
  if (!read.rest.is_object()) fail("{}: expected an object", where);
  return read;
}

JsonTree read_json_tree(std::string_view text, std::string_view where) {
  if (text.empty()) return JsonTree::object();
  TreeListener listener;
  walk_json(text, where, listener);
  JsonTree tree = listener.take();
  if (!tree.is_object()) fail("{}: expected an object", where);
  return tree;
}

bool is_null_or_missing(const JsonTree& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null();
}

bool get_flag(const JsonTree& object, const char* key, bool fallback, std::string_view where) {
  if (is_null_or_missing(object, key)) return fallback;
  const JsonTree& value = object.at(key);
  if (!value.is_boolean()) fail("{}: {} is {}, expected true or false", where, key, value.type_name());
  return value.get<bool>();
}

std::string get_text(const JsonTree& object, const char* key, std::string_view where) {
  if (is_null_or_missing(object, key)) fail("{}: {} is missing, expected a string", where, key);
  const JsonTree& value = object.at(key);
  if (!value.is_string()) fail("{}: {} is {}, expected a string", where, key, value.type_name());
  return value.get<std::string>();
}

std::string type_of_part(const JsonTree& part, const char* kind, std::string_view where) {
  if (!part.is_object()) fail("{}: {} is {}, expected an object", where, kind, part.type_name());
  return get_text(part, "type", fmt::format("{}: {}", where, kind));
}

}  // namespace pare
