// tool_tokenize MODEL [--through gguf|json] [--write-json FOLDER] [--write-gguf FILE] [--show-gguf all] [--time FILE]
//
// MODEL is a tokenizer.json, a SentencePiece model, a GGUF file or a folder. Requests come on standard input, a line
// each, text as hexadecimal bytes; answers go out a line each:
//   e[s][p] HEX   encode; s adds special tokens, p parses them    -> ids
//   d[k] ID...    decode; k keeps special tokens                  -> HEX
//   o[k] ID       decode_one                                      -> HEX
// --show-gguf prints the GGUF metadata that is no array, a key and a value a line.
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>

#include "base/error.h"
#include "base/file.h"
#include "formats/gguf.h"
#include "text/tokenizer.h"

namespace {

using pare::TokenizerData;

TokenizerData load(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) return pare::read_tokenizer_folder(path);
  if (path.extension() == ".gguf") return pare::read_tokenizer_gguf(pare::GgufFile::open(path).metadata);
  if (path.extension() == ".json") return pare::parse_tokenizer_json(pare::read_text_file(path), "", path.string());
  return pare::parse_sentencepiece(pare::MappedFile::open(path)->bytes(), path.string());
}

TokenizerData through(TokenizerData data, const std::string& format) {
  if (format == "json") {
    const pare::TokenizerFiles files = pare::to_tokenizer_files(data);
    return pare::parse_tokenizer_json(files.tokenizer_json, files.tokenizer_config_json, "written");
  }
  if (format == "gguf") {
    pare::GgufMetadata metadata("written");
    pare::write_tokenizer_gguf(data, metadata);
    return pare::read_tokenizer_gguf(metadata);
  }
  return data;
}

void write_text(const std::filesystem::path& path, const std::string& text) {
  pare::OutputFile out(path);
  out.write(text);
  out.commit();
}

std::string from_hex(const std::string& hex) {
  std::string out;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) out += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return out;
}

std::string to_hex(const std::string& bytes) {
  std::string out;
  for (const char byte : bytes) out += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return out;
}

std::string answer(const pare::Tokenizer& tokenizer, const std::string& line) {
  std::istringstream in(line);
  std::string command, out;
  in >> command;
  const auto has = [&](char flag) { return command.find(flag, 1) != std::string::npos; };
  if (command[0] == 'e') {
    std::string hex;
    in >> hex;
    const auto ids = tokenizer.encode(from_hex(hex), {.add_special = has('s'), .parse_special = has('p')});
    return fmt::format("{}", fmt::join(ids, " "));
  }
  std::vector<int32_t> ids;
  for (int32_t id; in >> id;) ids.push_back(id);
  return to_hex(command[0] == 'd' ? tokenizer.decode(ids, has('k')) : tokenizer.decode_one(ids.at(0), has('k')));
}

void show_scalars(const pare::GgufMetadata& metadata) {
  for (const auto& [key, value] : metadata.entries()) {
    std::visit(
        [&key = key]<class T>(const T& v) {
          if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string>) {
            std::cout << key << " " << fmt::format("{}", v) << "\n";
          }
        },
        value);
  }
}

void time_file(const pare::Tokenizer& tokenizer, const std::string& path) {
  const std::string text = pare::read_text_file(path);
  double best = 1e9;
  size_t count = 0;
  for (int i = 0; i < 5; ++i) {
    const std::clock_t start = std::clock();
    count = tokenizer.encode(text).size();
    best = std::min(best, static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC);
  }
  std::cout << fmt::format("{} tokens {:.2f} MB a second of processor time\n", count,
                           static_cast<double>(text.size()) / best / 1e6);
}

int run(int count, char** arguments) {
  std::string format, json_folder, gguf_file, timed, shown;
  for (int i = 2; i + 1 < count; i += 2) {
    const std::string option = arguments[i];
    if (option == "--through") format = arguments[i + 1];
    if (option == "--write-json") json_folder = arguments[i + 1];
    if (option == "--write-gguf") gguf_file = arguments[i + 1];
    if (option == "--show-gguf") shown = arguments[i + 1];
    if (option == "--time") timed = arguments[i + 1];
  }
  const TokenizerData data = through(load(arguments[1]), format);
  if (!json_folder.empty()) {
    const pare::TokenizerFiles files = pare::to_tokenizer_files(data);
    write_text(std::filesystem::path(json_folder) / "tokenizer.json", files.tokenizer_json);
    write_text(std::filesystem::path(json_folder) / "tokenizer_config.json", files.tokenizer_config_json);
  }
  if (!gguf_file.empty() || !shown.empty()) {
    pare::GgufMetadata metadata("written");
    metadata.set("general.architecture", std::string("llama"));
    pare::write_tokenizer_gguf(data, metadata);
    if (!shown.empty()) show_scalars(metadata);
    if (gguf_file.empty()) return 0;
    pare::OutputFile out(gguf_file);
    pare::write_gguf(out, metadata, {});
    out.commit();
  }
  const pare::Tokenizer tokenizer(data);
  if (!timed.empty()) time_file(tokenizer, timed);
  for (std::string line; std::getline(std::cin, line);) std::cout << answer(tokenizer, line) << std::endl;
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 2) return 2;
  try {
    return run(count, arguments);
  } catch (const pare::Error& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
