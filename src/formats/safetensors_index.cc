#include "base/error.h"
#include "formats/json_walk.h"
#include "formats/names.h"
#include "formats/safetensors_types.h"

namespace pare {
namespace {

/// A name that cannot lead out of the folder.
bool is_plain_file_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.find_first_of("/\\") == name.npos && is_printable(name);
}

/// Gathers "weight_map" and passes over everything else.
class IndexListener : public JsonListener {
 public:
  explicit IndexListener(std::string_view where) : where_(where) {}

  void begin(const JsonPlace& place, bool array) override {
    const size_t depth = place.keys.size();
    if (depth == 0 && array) not_an_object();
    if (depth == 0 || place.keys[0] != "weight_map") return;
    if (depth > 1 || array) fail("{}: weight_map: expected an object of file names", where_);
    found_ = true;
  }
  void scalar(const JsonPlace& place, const JsonScalar& value) override {
    if (place.keys.empty()) not_an_object();
    if (place.keys[0] != "weight_map") return;
    const auto* shard = std::get_if<std::string_view>(&value);
    if (place.keys.size() != 2 || !shard) fail("{}: weight_map: expected an object of file names", where_);
    if (!is_plain_file_name(*shard)) {
      fail("{}: tensor {} is in {}, expected a file name of the same folder", where_, quote_name(place.keys[1]),
           quote_name(*shard));
    }
    map.emplace(place.keys[1], *shard);
  }
  void end(const JsonPlace& place, bool) override {
    if (place.keys.empty() && !found_) fail("{}: \"weight_map\" is missing", where_);
  }

  std::map<std::string, std::string> map;

 private:
  [[noreturn]] void not_an_object() const { fail("{}: expected an object with \"weight_map\"", where_); }

  std::string_view where_;
  bool found_ = false;
};

}  // namespace

std::map<std::string, std::string> parse_safetensors_index(std::string_view json, std::string_view where) {
  IndexListener listener(where);
  walk_json(json, where, listener);
  return std::move(listener.map);
}

}  // namespace pare
