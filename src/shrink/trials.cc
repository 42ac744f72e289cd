#include "shrink/trials.h"

#include <sqlite3.h>

#include <cmath>

#include "base/error.h"

namespace pare {
namespace {

constexpr int kApplicationId = 0x70617265;  // "pare"
constexpr int kSchemaVersion = 1;
constexpr int kWaitMilliseconds = 2000;

constexpr const char* kSchema =
    "CREATE TABLE contexts (context TEXT PRIMARY KEY, description TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE trials (context TEXT NOT NULL, plan TEXT NOT NULL, slice TEXT NOT NULL, kl REAL NOT NULL,"
    " nats REAL NOT NULL, top1 REAL NOT NULL, tokens INTEGER NOT NULL, PRIMARY KEY (context, plan, slice)) WITHOUT "
    "ROWID;"
    "CREATE TABLE notes (context TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL,"
    " PRIMARY KEY (context, name)) WITHOUT ROWID;";

bool plausible(const SliceScore& score) {
  return std::isfinite(score.kl) && std::isfinite(score.nats) && score.top1 >= 0 && score.top1 <= 1 && score.tokens > 0;
}

}  // namespace

double SliceScore::quality() const { return std::exp(-nats); }

SliceScore combine(const SliceScore& a, const SliceScore& b) {
  const auto of_a = static_cast<double>(a.tokens), of_b = static_cast<double>(b.tokens), all = of_a + of_b;
  if (!(all > 0)) return {};
  return {(a.kl * of_a + b.kl * of_b) / all, (a.nats * of_a + b.nats * of_b) / all,
          (a.top1 * of_a + b.top1 * of_b) / all, a.tokens + b.tokens};
}

/// A prepared statement with its parameters bound.
class TrialStore::Statement {
 public:
  Statement(const TrialStore& store, const char* sql) : store_(store) {
    if (sqlite3_prepare_v2(store.database_.get(), sql, -1, &statement_, nullptr) != SQLITE_OK) {
      store_.refuse(sqlite3_errmsg(store_.database_.get()));
    }
  }
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  Statement& bind(const std::string& text) {
    sqlite3_bind_text(statement_, ++bound_, text.c_str(), static_cast<int>(text.size()), SQLITE_TRANSIENT);
    return *this;
  }
  Statement& bind(double value) {
    sqlite3_bind_double(statement_, ++bound_, value);
    return *this;
  }
  Statement& bind(int64_t value) {
    sqlite3_bind_int64(statement_, ++bound_, value);
    return *this;
  }
  /// True while there is a row.
  bool step() {
    const int result = sqlite3_step(statement_);
    if (result == SQLITE_ROW) return true;
    if (result != SQLITE_DONE) store_.refuse(sqlite3_errmsg(store_.database_.get()));
    return false;
  }
  std::string text(int column) const {
    const auto* bytes = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
    return bytes ? std::string(bytes, static_cast<size_t>(sqlite3_column_bytes(statement_, column))) : std::string();
  }
  double real(int column) const { return sqlite3_column_double(statement_, column); }
  int64_t integer(int column) const { return sqlite3_column_int64(statement_, column); }

 private:
  const TrialStore& store_;
  sqlite3_stmt* statement_ = nullptr;
  int bound_ = 0;
};

TrialStore::TrialStore() = default;

TrialStore::TrialStore(const std::filesystem::path& path, const std::string& context, const std::string& description,
                       bool fresh)
    : path_(path), context_(context) {
  sqlite3* opened = nullptr;
  const int result = sqlite3_open_v2(path.c_str(), &opened, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr);
  database_ = std::shared_ptr<sqlite3>(opened, sqlite3_close);
  if (result != SQLITE_OK) refuse(opened ? sqlite3_errmsg(opened) : "out of memory");
  sqlite3_busy_timeout(opened, kWaitMilliseconds);
  prepare_file(description, fresh);
  read_all();
}

void TrialStore::refuse(const char* what) const {
  fail("{}: not usable for the trials of a search ({}); remove it, or name another file with --db", path_.string(),
       what);
}

void TrialStore::run(const char* sql) const {
  if (sqlite3_exec(database_.get(), sql, nullptr, nullptr, nullptr) != SQLITE_OK) {
    refuse(sqlite3_errmsg(database_.get()));
  }
}

int TrialStore::number(const char* sql) const {
  Statement statement(*this, sql);
  return statement.step() ? static_cast<int>(statement.integer(0)) : 0;
}

void TrialStore::prepare_file(const std::string& description, bool fresh) {
  // Nothing is written before it is clear whose file it is.
  const int owner = number("PRAGMA application_id"), version = number("PRAGMA user_version");
  const bool empty = number("SELECT count(*) FROM sqlite_master") == 0;
  if (!(empty && owner == 0 && version == 0)) {
    if (owner != kApplicationId) refuse("a database of another program");
    if (version != kSchemaVersion) refuse("written by another version of pare");
    Statement check(*this, "PRAGMA quick_check(1)");
    if (!check.step() || check.text(0) != "ok") refuse("damaged");
  }
  // A trial lost to a power cut is only evaluated again: a log makes it safe without waiting for the disk each time.
  run("PRAGMA journal_mode = WAL");
  run("PRAGMA synchronous = NORMAL");
  run("BEGIN IMMEDIATE");
  if (empty) {
    run(kSchema);
    run(fmt::format("PRAGMA application_id = {}; PRAGMA user_version = {}", kApplicationId, kSchemaVersion).c_str());
  }
  if (fresh) {
    for (const char* sql : {"DELETE FROM trials WHERE context = ?", "DELETE FROM notes WHERE context = ?"}) {
      Statement(*this, sql).bind(context_).step();
    }
  }
  Statement(*this, "INSERT OR REPLACE INTO contexts VALUES (?, ?)").bind(context_).bind(description).step();
  run("COMMIT");
}

void TrialStore::read_all() {
  Statement trials(*this, "SELECT plan, slice, kl, nats, top1, tokens FROM trials WHERE context = ?");
  trials.bind(context_);
  while (trials.step()) {
    const SliceScore score{trials.real(2), trials.real(3), trials.real(4), trials.integer(5)};
    if (!plausible(score)) refuse("damaged: a score is not a number");
    scores_[{trials.text(0), trials.text(1)}] = score;
  }
  Statement notes(*this, "SELECT name, value FROM notes WHERE context = ?");
  notes.bind(context_);
  while (notes.step()) notes_[notes.text(0)] = notes.text(1);
}

std::optional<SliceScore> TrialStore::find(const std::string& plan, const std::string& slice) const {
  const auto found = scores_.find({plan, slice});
  return found == scores_.end() ? std::nullopt : std::optional(found->second);
}

void TrialStore::add(const std::string& plan, const std::string& slice, const SliceScore& score) {
  if (database_ && plausible(score)) {
    Statement(*this, "INSERT OR REPLACE INTO trials VALUES (?, ?, ?, ?, ?, ?, ?)")
        .bind(context_)
        .bind(plan)
        .bind(slice)
        .bind(score.kl)
        .bind(score.nats)
        .bind(score.top1)
        .bind(score.tokens)
        .step();
  }
  scores_[{plan, slice}] = score;
}

std::optional<std::string> TrialStore::note(const std::string& name) const {
  const auto found = notes_.find(name);
  return found == notes_.end() ? std::nullopt : std::optional(found->second);
}

void TrialStore::set_note(const std::string& name, const std::string& value) {
  if (database_) {
    Statement(*this, "INSERT OR REPLACE INTO notes VALUES (?, ?, ?)").bind(context_).bind(name).bind(value).step();
  }
  notes_[name] = value;
}

}  // namespace pare
