#include "shrink/trials.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <cmath>
#include <fstream>

#include "base/error.h"
#include "refusal.h"
#include "temporary_folder.h"

namespace pare {
namespace {

using test::TemporaryFolder;
using ::testing::HasSubstr;

std::string refusal(const std::filesystem::path& path, bool fresh = false) {
  const std::string line = test::refusal_of([&] { const TrialStore store(path, "model", "a model", fresh); });
  if (!line.empty()) {
    EXPECT_THAT(line, HasSubstr(path.string()));
  }
  return line;
}

void execute(const std::filesystem::path& path, const char* sql) {
  sqlite3* database = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &database), SQLITE_OK);
  char* message = nullptr;
  EXPECT_EQ(sqlite3_exec(database, sql, nullptr, nullptr, &message), SQLITE_OK) << message;
  sqlite3_close(database);
}

std::string bytes_of(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(TrialStore, KeepsScoresToTheLastBit) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "trials.db";
  const SliceScore score{0.1234567890123456789, -1e-300, 1.0 / 3, 4095};
  {
    TrialStore store(path, "model", "a model", false);
    EXPECT_FALSE(store.find("plan", "slice"));
    store.add("plan", "slice", score);
    store.add("plan", "other", {1, 2, 0.5, 3});
    store.set_note("scale", "8 4096 8192");
    EXPECT_EQ(store.find("plan", "slice"), score);
  }
  const TrialStore store(path, "model", "a model", false);
  EXPECT_EQ(store.size(), 2);
  EXPECT_EQ(store.find("plan", "slice"), score);
  EXPECT_EQ(store.note("scale"), "8 4096 8192");
  EXPECT_FALSE(store.note("speed"));
}

TEST(TrialStore, ContextsDoNotSeeEachOther) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "trials.db";
  TrialStore(path, "one", "a model", false).add("plan", "slice", {1, 1, 0.5, 10});
  EXPECT_EQ(TrialStore(path, "two", "another", false).size(), 0);
  TrialStore(path, "two", "another", false).add("plan", "slice", {2, 2, 0.5, 10});
  EXPECT_EQ(TrialStore(path, "two", "another", true).size(), 0);  // fresh
  EXPECT_EQ(TrialStore(path, "one", "a model", false).find("plan", "slice")->kl, 1);
}

TEST(TrialStore, RefusesWhatItDidNotWrite) {
  const TemporaryFolder folder;
  const auto text = folder.path() / "text.db";
  std::ofstream(text) << "This is a letter to my grandmother, not a database of anything at all.\n";
  EXPECT_THAT(refusal(text), HasSubstr("not a database"));
  const auto foreign = folder.path() / "foreign.db";
  execute(foreign, "CREATE TABLE trials (x)");
  for (const bool fresh : {false, true}) {
    const std::string before = bytes_of(foreign);
    EXPECT_THAT(refusal(foreign, fresh), HasSubstr("another program"));
    EXPECT_EQ(bytes_of(foreign), before);
  }
  const auto newer = folder.path() / "newer.db";
  TrialStore(newer, "model", "a model", false).add("plan", "slice", {1, 1, 0.5, 10});
  execute(newer, "PRAGMA user_version = 99");
  EXPECT_THAT(refusal(newer), HasSubstr("another version"));
  EXPECT_THAT(refusal(folder.path()), HasSubstr("unable to open"));
  EXPECT_THAT(refusal(folder.path() / "missing" / "trials.db"), HasSubstr("unable to open"));
}

TEST(TrialStore, RefusesDamage) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "trials.db";
  {
    TrialStore store(path, "model", "a model", false);
    for (int i = 0; i < 500; ++i) store.add("plan " + std::to_string(i), "slice", {1, 1, 0.5, 10});
  }
  const std::string whole = bytes_of(path);
  int refused = 0;
  for (size_t at = 100; at < whole.size(); at += whole.size() / 23) {
    const auto damaged = folder.path() / ("damaged" + std::to_string(at) + ".db");
    std::string bytes = whole;
    for (size_t i = at; i < std::min(at + 2000, bytes.size()); ++i) bytes[i] = static_cast<char>(i * 37);
    std::ofstream(damaged, std::ios::binary) << bytes;
    refused += !refusal(damaged).empty();
  }
  EXPECT_GE(refused, 20);
  const auto cut = folder.path() / "cut.db";
  std::ofstream(cut, std::ios::binary) << whole.substr(0, whole.size() / 2);
  EXPECT_NE(refusal(cut), "");
  const auto lying = folder.path() / "lying.db";
  std::ofstream(lying, std::ios::binary) << whole;
  execute(lying, "UPDATE trials SET tokens = -5 WHERE plan = 'plan 7'");
  EXPECT_THAT(refusal(lying), HasSubstr("damaged"));
  execute(lying, "UPDATE trials SET tokens = 5, kl = 1e999 WHERE plan = 'plan 7'");
  EXPECT_THAT(refusal(lying), HasSubstr("damaged"));
}

TEST(TrialStore, WithoutAFileItRemembersOnlyItself) {
  TrialStore store;
  store.add("plan", "slice", {1, 1, 0.5, 10});
  store.set_note("a", "b");
  EXPECT_EQ(store.size(), 1);
  EXPECT_EQ(store.note("a"), "b");
}

TEST(SliceScore, CombinesByTokens) {
  const SliceScore both = combine({1, 2, 0.5, 100}, {2, 4, 1, 300});
  EXPECT_DOUBLE_EQ(both.kl, 1.75);
  EXPECT_DOUBLE_EQ(both.nats, 3.5);
  EXPECT_DOUBLE_EQ(both.top1, 0.875);
  EXPECT_EQ(both.tokens, 400);
  EXPECT_DOUBLE_EQ(both.quality(), std::exp(-3.5));
}

}  // namespace
}  // namespace pare
