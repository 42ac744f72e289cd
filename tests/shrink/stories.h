#pragma once
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "model/checkpoint.h"
#include "redundancy/calibration.h"
#include "redundancy/greedy.h"
#include "shrink/shrink.h"

namespace pare::test {

inline std::filesystem::path stories260k() {
  const char* shared = std::getenv("PARE_SHARED");
  const std::filesystem::path root = shared ? shared : PARE_SOURCE_DIR "/../shared";
  return root / "data/models/stories260K/stories260K.gguf";
}

/// stories260K loaded, with a little calibration text.
struct Stories {
  Checkpoint checkpoint = open_checkpoint(stories260k());
  ThreadPool pool{2};
  Variants variants{checkpoint, pool};
  Tokenizer tokenizer{*checkpoint.tokenizer};

  std::vector<std::vector<int32_t>> windows(int64_t tokens) {
    return calibration_windows(tokenizer, default_calibration_text(), {.window = 256, .max_tokens = tokens},
                               variants.base());
  }
};

}  // namespace pare::test
