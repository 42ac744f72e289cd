// pare tokenize: text to token ids and back.
#include <charconv>

#include "commands.h"
#include "format.h"

namespace pare::cli {
namespace {

struct TokenizeOptions {
  std::filesystem::path model;
  bool pieces = false, no_special = false, plain = false, decode = false, count = false;
};

/// A folder needs no weights for this, nor does a GGUF file more than its header.
Tokenizer open_tokenizer(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) return Tokenizer(read_tokenizer_folder(path));
  return Tokenizer(read_tokenizer_gguf(GgufFile::open(path).metadata));
}

/// Ids separated by blanks, commas or brackets, as `pare tokenize` and JSON write them.
std::vector<int32_t> parse_ids(std::string_view text) {
  std::vector<int32_t> ids;
  while (true) {
    const size_t start = text.find_first_not_of(" \t\r\n,[]");
    if (start == std::string_view::npos) return ids;
    text.remove_prefix(start);
    const std::string_view word = text.substr(0, text.find_first_of(" \t\r\n,[]"));
    int32_t id = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    if (error != std::errc() || end != word.data() + word.size() || id < 0) {
      fail("standard input: '{}' is not a token id; expected numbers separated by blanks or commas",
           shorten(printable(word), 40));
    }
    ids.push_back(id);
    text.remove_prefix(word.size());
  }
}

void decode(const TokenizeOptions& options, const Tokenizer& tokenizer, const std::string& input, Common& common) {
  const std::string text = tokenizer.decode(parse_ids(input), !options.no_special);
  if (common.json) {
    common.print_json({{"text", text}});
  } else {
    common.print(text);
  }
}

void encode(const TokenizeOptions& options, const Tokenizer& tokenizer, const std::string& input, Common& common) {
  EncodeOptions how;
  how.add_special = !options.no_special;
  how.parse_special = !options.plain;
  const auto ids = tokenizer.encode(input, how);
  const auto& all = tokenizer.data().pieces;
  if (common.json) {
    Json out = {{"count", ids.size()}, {"ids", ids}};
    if (options.pieces) {
      Json pieces = Json::array();
      for (const int32_t id : ids) pieces.push_back(all[static_cast<size_t>(id)]);
      out["pieces"] = std::move(pieces);
    }
    common.print_json(out);
    return;
  }
  if (options.count) {
    common.print("{}\n", ids.size());
    return;
  }
  if (options.pieces) {
    Table table;
    table.column("").column("", Table::Align::kLeft);
    for (const int32_t id : ids) table.row({std::to_string(id), printable(all[static_cast<size_t>(id)])});
    common.print(table.render(common.style()));
    return;
  }
  common.print("{}\n", fmt::join(ids, " "));
}

}  // namespace

void add_tokenize_command(CLI::App& app, Common& common) {
  auto options = std::make_shared<TokenizeOptions>();
  auto* command = add_command(
      app, common, "tokenize", "Turn text on standard input into token ids, or ids into text",
      {"echo -n 'Hello world' | pare tokenize model.gguf", "echo -n 'Hello world' | pare tokenize model.gguf --pieces",
       "echo '15043 3186' | pare tokenize model.gguf --decode", "pare tokenize model.gguf --count < book.txt"});
  add_model_argument(command, options->model, common);
  command->add_flag("--pieces", options->pieces, "Show each token's piece beside its id");
  command->add_flag("--no-special", options->no_special,
                    "Add no beginning or end token; with --decode: leave control tokens out");
  command->add_flag("--plain", options->plain,
                    "Take '<|...|>' and the like in the text as text, not as control tokens");
  command->add_flag("--decode", options->decode, "The reverse: ids on standard input become text");
  command->add_flag("--count", options->count, "Print only the number of tokens");
  on_run(command, [options, &common] {
    const Tokenizer tokenizer = open_tokenizer(options->model);
    const std::string input = read_stdin(common);
    if (options->decode) {
      decode(*options, tokenizer, input, common);
    } else {
      encode(*options, tokenizer, input, common);
    }
  });
}

}  // namespace pare::cli
