#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "text/special_tokens.h"
#include "text/tokenizer.h"

namespace pare {
namespace {

constexpr size_t kMaxTokenizer = size_t{1} << 28, kMaxConfig = size_t{1} << 25;  // bytes

/// The text of a file of the folder, "" if there is none.
std::string read_if_there(const std::filesystem::path& path, size_t most) {
  std::error_code error;
  return std::filesystem::exists(path, error) ? read_text_file(path, most) : "";
}

TokenizerData read_model(const std::filesystem::path& path, const std::string& config_json,
                         const std::filesystem::path& config_path) {
  const auto file = MappedFile::open(path);
  TokenizerData data = parse_sentencepiece(file->bytes(), path.string());
  const JsonTree config = read_json_tree(config_json, config_path.string());
  add_tokenizer_config(config, data, config_path.string());
  add_added_bos_eos(config, data, config_path.string());
  return data;
}

}  // namespace

TokenizerData read_tokenizer_folder(const std::filesystem::path& folder) {
  const std::filesystem::path config_path = folder / "tokenizer_config.json";
  const std::string config = read_if_there(config_path, kMaxConfig);
  const std::filesystem::path json_path = folder / "tokenizer.json", model_path = folder / "tokenizer.model";
  TokenizerData data;
  std::error_code error;
  if (std::filesystem::exists(json_path, error)) {
    data = parse_tokenizer_json(read_text_file(json_path, kMaxTokenizer), config, json_path.string());
  } else if (std::filesystem::exists(model_path, error)) {
    data = read_model(model_path, config, config_path);
  } else {
    fail("{}: neither tokenizer.json nor tokenizer.model is there", folder.string());
  }
  const auto read_tree = [&](const char* name) {
    return read_json_tree(read_if_there(folder / name, kMaxConfig), (folder / name).string());
  };
  add_special_tokens_map(read_tree("special_tokens_map.json"), data, (folder / "special_tokens_map.json").string());
  for (const char* name : {"generation_config.json", "config.json"}) {
    add_generation_config(read_tree(name), data, (folder / name).string());
  }
  if (data.chat_template.empty()) data.chat_template = read_if_there(folder / "chat_template.jinja", kMaxConfig);
  return data;
}

}  // namespace pare
