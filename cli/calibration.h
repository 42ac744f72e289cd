#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "common.h"
#include "redundancy/calibration.h"

namespace pare::cli {

/// Where calibration text comes from, as several commands ask for it.
struct CalibrationArguments {
  std::string source;      // --calibration: "" = the text that comes with pare, "self", or a file
  int64_t tokens = 65536;  // --tokens
  uint64_t seed = 0;       // --seed, for "self"
};

void add_calibration_options(CLI::App* command, CalibrationArguments& arguments);

struct CalibrationText {
  std::vector<std::vector<int32_t>> windows;
  std::string name;  // for people: "the text that comes with pare", a file, "text that the model wrote"
};

/// Reads, or lets the model write, calibration text cut into windows (of --ctx tokens if given). Throws Error naming
/// the file for a text that is unreadable, not UTF-8, or too short.
CalibrationText read_calibration(const CalibrationArguments& arguments, Model& model, const Tokenizer& tokenizer,
                                 Common& common);

/// Runs work on a model; where it fails, weights that are NaN or infinite are named first, since they are likely why.
template <class Work>
auto explain_non_finite(const Checkpoint& checkpoint, Common& common, Work&& work) {
  try {
    return work();
  } catch (const Interrupted&) {
    throw;
  } catch (const Error&) {
    check_finite(checkpoint, common.progress());
    throw;
  }
}

/// Reads a text to evaluate or calibrate on: a file, or standard input for "-". Throws Error if it is not UTF-8.
std::string read_utf8_text(const std::string& file, Common& common);

}  // namespace pare::cli
