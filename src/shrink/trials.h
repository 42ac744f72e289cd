#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

struct sqlite3;

namespace pare {

/// How a plan did on one slice of text, against the base model.
struct SliceScore {
  double kl = 0;    // nats a token, KL(base || plan), mean
  double nats = 0;  // mean negative log likelihood of the plan minus that of the base
  double top1 = 0;  // share of positions where both would choose the same token
  int64_t tokens = 0;

  /// exp(-nats): base perplexity divided by the plan's.
  double quality() const;
  bool operator==(const SliceScore&) const = default;
};
/// Both slices together.
SliceScore combine(const SliceScore& a, const SliceScore& b);

/// What was evaluated, kept in an SQLite file so that a search which was stopped goes on where it was. One file may
/// hold the trials of several contexts (model, text and settings that scores depend on); a store sees one of them.
class TrialStore {
 public:
  /// Kept in memory only.
  TrialStore();
  /// Opens or makes the file. fresh: forgets what it holds of this context. Throws Error naming the file if it cannot
  /// be opened, is damaged, or is some other program's database, which is then left as it is.
  TrialStore(const std::filesystem::path& path, const std::string& context, const std::string& description, bool fresh);

  std::optional<SliceScore> find(const std::string& plan, const std::string& slice) const;
  /// Written before it returns. Throws Error (full disk).
  void add(const std::string& plan, const std::string& slice, const SliceScore& score);
  /// What the search settled on, so that it settles on it again.
  std::optional<std::string> note(const std::string& name) const;
  void set_note(const std::string& name, const std::string& value);
  int64_t size() const { return static_cast<int64_t>(scores_.size()); }

 private:
  class Statement;
  void prepare_file(const std::string& description, bool fresh);
  void read_all();
  void run(const char* sql) const;
  [[noreturn]] void refuse(const char* what) const;
  int number(const char* sql) const;

  std::filesystem::path path_;
  std::string context_;
  std::shared_ptr<sqlite3> database_;  // null: memory only
  std::map<std::pair<std::string, std::string>, SliceScore> scores_;
  std::map<std::string, std::string> notes_;
};

}  // namespace pare
