#include "base/json.h"

#include <algorithm>
#include <set>
#include <vector>

#include "base/error.h"

namespace pare {
namespace {

constexpr size_t kMaxDepth = 64;

/// Builds the document while it watches depth and duplicate keys, which nlohmann's own parser lets through.
class Builder : public nlohmann::detail::json_sax_dom_parser<Json> {
 public:
  using Base = nlohmann::detail::json_sax_dom_parser<Json>;
  Builder(Json& document, std::string_view text, std::string_view where)
      : Base(document, false), text_(text), where_(where) {}

  bool start_object(size_t count) {
    deeper();
    keys_.emplace_back();
    return Base::start_object(count);
  }
  bool end_object() {
    keys_.pop_back();
    return Base::end_object();
  }
  bool start_array(size_t count) {
    deeper();
    keys_.emplace_back();
    return Base::start_array(count);
  }
  bool end_array() {
    keys_.pop_back();
    return Base::end_array();
  }
  bool key(std::string& name) {
    if (!keys_.back().insert(name).second) fail("{}: key \"{}\" stands twice in one object", where_, name);
    return Base::key(name);
  }
  bool parse_error(size_t position, const std::string& token, const nlohmann::detail::exception& error) {
    (void)token, (void)error;
    const std::string_view before = text_.substr(0, std::min(position, text_.size()));
    const auto line = std::count(before.begin(), before.end(), '\n') + 1;
    const size_t start = before.rfind('\n');
    const size_t column = before.size() - (start == std::string_view::npos ? 0 : start + 1);
    fail("{}: line {}, column {}: not valid JSON", where_, line, column);
  }

 private:
  void deeper() {
    if (keys_.size() >= kMaxDepth) fail("{}: JSON nested deeper than {} levels", where_, kMaxDepth);
  }
  std::string_view text_, where_;
  std::vector<std::set<std::string>> keys_;
};

}  // namespace

Json parse_json(std::string_view text, std::string_view where) {
  Json root;
  Builder builder(root, text, where);
  try {
    Json::sax_parse(text.begin(), text.end(), &builder);
  } catch (const nlohmann::json::exception&) {
    fail("{}: not valid JSON (a number out of range or text that is not UTF-8)", where);
  }
  return root;
}

}  // namespace pare
