#include "calibration.h"

#include "base/file.h"

namespace pare::cli {
namespace {

/// Offset of the first byte that is not part of a well-formed UTF-8 character (RFC 3629), or npos.
size_t first_invalid_utf8(std::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  for (size_t i = 0; i < text.size();) {
    const unsigned lead = byte(i);
    size_t length = 1;
    unsigned low = 0x80, high = 0xbf;  // of the second byte
    if (lead >= 0xc2 && lead <= 0xdf) {
      length = 2;
    } else if (lead >= 0xe0 && lead <= 0xef) {
      length = 3;
      if (lead == 0xe0) low = 0xa0;
      if (lead == 0xed) high = 0x9f;
    } else if (lead >= 0xf0 && lead <= 0xf4) {
      length = 4;
      if (lead == 0xf0) low = 0x90;
      if (lead == 0xf4) high = 0x8f;
    } else if (lead >= 0x80) {
      return i;
    }
    if (length > 1 && (byte(i + 1) < low || byte(i + 1) > high)) return i;
    for (size_t k = 2; k < length; ++k) {
      if (byte(i + k) < 0x80 || byte(i + k) > 0xbf) return i;
    }
    i += length;
  }
  return std::string_view::npos;
}

}  // namespace

void add_calibration_options(CLI::App* command, CalibrationArguments& arguments) {
  command
      ->add_option(
          "--calibration", arguments.source,
          "Text to measure on: a file, 'self' (the model writes it), or - (default: stories that come with pare)")
      ->type_name("FILE|self");
  command->add_option("--tokens", arguments.tokens, "Calibration tokens to use at most")
      ->type_name("N")
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 40))
      ->capture_default_str();
  command->add_option("--seed", arguments.seed, "Seed of --calibration self")->type_name("N")->capture_default_str();
}

std::string read_utf8_text(const std::string& file, Common& common) {
  std::string text = file == "-" ? read_stdin(common) : read_text_file(file);
  const std::string name = file == "-" ? "standard input" : file;
  const size_t bad = first_invalid_utf8(text);
  if (bad != std::string::npos) fail("{}: not UTF-8 text (at byte {})", name, bad);
  if (text.find_first_not_of(" \t\r\n") == std::string::npos) fail("{}: holds no text", name);
  return text;
}

CalibrationText read_calibration(const CalibrationArguments& arguments, Model& model, const Tokenizer& tokenizer,
                                 Common& common) {
  const CalibrationOptions options{.window = common.context, .max_tokens = arguments.tokens};
  if (arguments.source == "self") {
    return {self_calibration(model, tokenizer, options, arguments.seed, common.progress(), common.cancel()),
            "text that the model wrote itself"};
  }
  if (arguments.source.empty()) {
    return {calibration_windows(tokenizer, default_calibration_text(), options, model),
            "the stories that come with pare"};
  }
  const std::string name = arguments.source == "-" ? "standard input" : arguments.source;
  const std::string text = read_utf8_text(arguments.source, common);
  try {
    return {calibration_windows(tokenizer, text, options, model), name};
  } catch (const Error& error) {
    fail("{}: {}", name, error.what());
  }
}

}  // namespace pare::cli
