#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "commands.h"
#include "evaluate/speed.h"

namespace pare::cli {

// What `pare bench` of one model and of a paper's table share.

struct BenchOptions {
  std::filesystem::path model;
  std::string shape;
  std::optional<DType> weights, head;
  bool ternary = false;       // --weights ternary
  bool differential = false;  // --attention differential
  std::vector<int> threads;
  SpeedOptions speed;
  std::string paper;                // --paper
  std::vector<std::string> shapes;  // --shapes, of the paper
};

/// What is measured: a checkpoint, or random weights of a shape.
struct Subject {
  std::string name;
  std::optional<Checkpoint> checkpoint;
  ModelConfig config;
  DType type = DType::kQ8_0;  // of random matrices
  DType head = DType::kQ8_0;  // of the random embedding and output matrix
  std::string types;          // for people
  std::string kernel;         // see WeightStore
  int64_t parameters = 0;
  int64_t bytes = 0;  // of weights, as stored; of random ones as they lie in memory
};

/// Random weights as --shape, --weights, --head and --attention say. Throws UsageError for an unknown shape.
Subject subject_of_shape(const BenchOptions& options, Common& common);
/// Settles in which layout ternary weights run where only a dense one fits into memory. Returns why the subject does
/// not fit, if none does.
std::optional<std::string> fit_into_memory(Subject& subject, const SpeedOptions& speed);
SpeedReport measure(const Subject& subject, int threads, const BenchOptions& options, Progress& progress,
                    Common& common);
Json to_json(const SpeedReport& report);

/// pare bench --paper.
void bench_paper(const BenchOptions& options, Common& common);
/// The names that --paper takes.
std::vector<std::string> paper_names();

}  // namespace pare::cli
