#include "formats/json_walk.h"

#include <nlohmann/json.hpp>
#include <unordered_set>
#include <vector>

#include "base/error.h"
#include "formats/names.h"

namespace pare {
namespace {

using Parser = nlohmann::json;

constexpr size_t kMaxDepth = 16;

/// The parser's events with the place they happen at.
class Walker : public nlohmann::json_sax<Parser> {
 public:
  Walker(std::string_view where, JsonListener& listener) : where_(where), listener_(listener) {}

  bool null() override { return tell(nullptr); }
  bool boolean(bool value) override { return tell(value); }
  bool number_integer(int64_t value) override { return tell(value); }
  bool number_unsigned(uint64_t value) override { return tell(value); }
  bool number_float(double value, const std::string&) override { return tell(value); }
  bool string(std::string& value) override { return tell(std::string_view(value)); }
  bool binary(binary_t&) override { return false; }

  bool start_object(size_t) override { return open(false); }
  bool end_object() override { return close(); }
  bool start_array(size_t) override { return open(true); }
  bool end_array() override { return close(); }

  bool key(std::string& name) override {
    Container& object = open_.back();
    if (!object.seen.insert(name).second) fail("{}: key {} stands twice in one object", where_, quote_name(name));
    // The key of the member before gives way.
    keys_.resize(object.outer_keys);
    keys_.push_back(std::move(name));
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) override {
    fail("{}: not valid JSON at byte {}", where_, position);
  }

 private:
  struct Container {
    bool array;
    size_t outer_keys;  // keys of the objects around this container
    std::unordered_set<std::string> seen;
  };

  JsonPlace place() const { return {keys_, !open_.empty() && open_.back().array}; }

  bool tell(const JsonScalar& value) {
    listener_.scalar(place(), value);
    return true;
  }
  bool open(bool array) {
    if (open_.size() == kMaxDepth) fail("{}: JSON nested deeper than {} levels", where_, kMaxDepth);
    listener_.begin(place(), array);
    open_.push_back({array, keys_.size(), {}});
    return true;
  }
  bool close() {
    const bool array = open_.back().array;
    keys_.resize(open_.back().outer_keys);
    open_.pop_back();
    listener_.end(place(), array);
    return true;
  }

  std::string_view where_;
  JsonListener& listener_;
  std::vector<std::string> keys_;
  std::vector<Container> open_;
};

}  // namespace

void walk_json(std::string_view text, std::string_view where, JsonListener& listener) {
  Walker walker(where, listener);
  Parser::sax_parse(text.begin(), text.end(), &walker);
}

std::string json_literal(std::string_view text) { return Parser(text).dump(); }

}  // namespace pare
