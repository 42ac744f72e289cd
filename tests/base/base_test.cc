#include <gtest/gtest.h>

#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <numeric>
#include <vector>

#include "base/buffer.h"
#include "base/cpu.h"
#include "base/error.h"
#include "base/file.h"
#include "base/half.h"
#include "base/json.h"
#include "base/random.h"
#include "base/statistics.h"
#include "base/thread_pool.h"
#include "refusal.h"
#include "temporary_folder.h"

namespace pare {
namespace {

using test::refusal_of;
using test::TemporaryFolder;

TEST(ThreadPool, CoversEveryIndexOnce) {
  for (int threads : {1, 2, 5, 40}) {
    ThreadPool pool(threads);
    for (int64_t count : {0, 1, 7, 1000}) {
      for (int64_t grain : {1, 3, 64}) {
        for (int64_t part : {int64_t{1}, pool.stream_part(), ThreadPool::kEvenPart}) {
          std::vector<std::atomic<int>> hits(static_cast<size_t>(count));
          const auto body = [&](int64_t begin, int64_t end, int worker) {
            ASSERT_LT(worker, pool.size());
            ASSERT_EQ(begin % grain, 0);
            for (int64_t i = begin; i < end; ++i) ++hits[static_cast<size_t>(i)];
          };
          pool.parallel_for(count, grain, body, part);
          for (const auto& hit : hits) EXPECT_EQ(hit, 1);
        }
      }
    }
  }
}

TEST(ThreadPool, AskingForMemoryChangesNothingInIt) {
  std::vector<std::byte> memory(4096, std::byte{7});
  ThreadPool pool(3);
  for (int round = 0; round < 20; ++round) {
    pool.parallel_for(64, 1, [&](int64_t, int64_t, int worker) {
      pool.ask_while_waiting(worker, {memory.data(), memory.data() + memory.size()}, memory);
    });
  }
  Lines lines{memory.data(), memory.data() + 130};
  lines.ask(2);
  EXPECT_EQ(lines.next, memory.data() + 128);
  lines.ask(100);
  EXPECT_EQ(lines.next, memory.data() + 192);
  EXPECT_EQ(memory, std::vector<std::byte>(4096, std::byte{7}));
}

TEST(ThreadPool, PassesOnTheFirstException) {
  ThreadPool pool(3);
  for (int round = 0; round < 50; ++round) {
    EXPECT_EQ(refusal_of([&] {
                pool.parallel_for(100, 1, [](int64_t begin, int64_t end, int) {
                  if (begin <= 42 && 42 < end) throw Error("forty-two");
                });
              }),
              "forty-two");
    std::atomic<int> done = 0;
    pool.parallel_for(100, 1, [&](int64_t begin, int64_t end, int) { done += static_cast<int>(end - begin); });
    EXPECT_EQ(done, 100);
  }
}

TEST(Half, RoundTripsEveryF16) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = f16_to_float(static_cast<uint16_t>(bits));
    if (std::isnan(value)) {
      EXPECT_GT(bits & 0x7fffu, 0x7c00u);
    } else {
      EXPECT_EQ(float_to_f16(value), bits);
    }
  }
}

TEST(Half, RoundsToNearestEven) {
  for (uint32_t bits = 0; bits < 0x7bff; ++bits) {
    const float low = f16_to_float(static_cast<uint16_t>(bits)), high = f16_to_float(static_cast<uint16_t>(bits + 1));
    const float middle = (low + high) / 2;  // exact: one bit more than f16 holds
    EXPECT_EQ(float_to_f16(middle), bits % 2 == 0 ? bits : bits + 1);
    EXPECT_EQ(float_to_f16(std::nextafter(middle, 0.0f)), bits);
    EXPECT_EQ(float_to_f16(std::nextafter(middle, 1e9f)), bits + 1);
  }
  EXPECT_EQ(float_to_f16(65519.996f), 0x7bff);
  EXPECT_EQ(float_to_f16(65520.0f), 0x7c00);
  EXPECT_EQ(float_to_bf16(std::bit_cast<float>(0x3f808000u)), 0x3f80);
  EXPECT_EQ(float_to_bf16(std::bit_cast<float>(0x3f818000u)), 0x3f82);
}

TEST(Json, RefusesWhatTheParserWouldLetThrough) {
  EXPECT_EQ(parse_json("{\"a\": [1, 2.5, \"x\"]}", "f")["a"][1], 2.5);
  EXPECT_EQ(refusal_of([] { parse_json("{\"a\": 1, \"a\": 2}", "f.json"); }),
            "f.json: key \"a\" stands twice in one object");
  EXPECT_EQ(refusal_of([] { parse_json("{\n \"a\": }", "f.json"); }).substr(0, 14), "f.json: line 2");
  EXPECT_EQ(refusal_of([] { parse_json(std::string(100000, '['), "f.json"); }),
            "f.json: JSON nested deeper than 64 levels");
  EXPECT_NE(refusal_of([] { parse_json("\"\xff\"", "f.json"); }), "");
  EXPECT_NE(refusal_of([] { parse_json("", "f.json"); }), "");
  EXPECT_NE(refusal_of([] { parse_json("1e999", "f.json"); }), "");
}

TEST(OutputFile, LeavesNothingUnlessCommitted) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "out.bin";
  {
    OutputFile file(path);
    file.write("half");
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  {
    OutputFile file(path);
    file.write("abc");
    file.pad_to(8);
    EXPECT_EQ(file.position(), 8u);
    file.commit();
  }
  EXPECT_EQ(read_text_file(path), std::string("abc\0\0\0\0\0", 8));
  EXPECT_EQ(MappedFile::open(path)->bytes().size(), 8u);
  EXPECT_NE(refusal_of([&] { read_text_file(path, 7); }).find("larger than the 7 bytes"), std::string::npos);
}

TEST(OutputFile, SaysWhenTheDiskIsFull) {
  const TemporaryFolder folder;
  EXPECT_NE(refusal_of([] { OutputFile("/nonexistent-folder/x"); }).find("cannot write"), std::string::npos);
  // A limit on file sizes stands for a full disk: write() fails in the middle the same way.
  std::string message;
  {
    const test::FileSizeLimit full(100000);
    message = refusal_of([&] {
      OutputFile file(folder.path() / "out.bin");
      for (int i = 0; i < 300; ++i) file.write(std::string(10000, 'x'));
      file.commit();
    });
  }
  EXPECT_NE(message.find("cannot write after 100000 bytes"), std::string::npos) << message;
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(OutputFolder, RenamesOnCommitAndRefusesAnExistingOne) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "model";
  { const OutputFolder dropped(path); }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  OutputFolder kept(path);
  OutputFile file(kept.partial() / "config.json");
  file.write("{}");
  file.commit();
  kept.commit();
  EXPECT_EQ(read_text_file(path / "config.json"), "{}");
  EXPECT_NE(refusal_of([&] { const OutputFolder again(path); }).find("exists already"), std::string::npos);
}

TEST(Statistics, Median) {
  EXPECT_EQ(median({}), 0);
  EXPECT_EQ(median({3}), 3);
  EXPECT_EQ(median({9, 1, 5}), 5);
  EXPECT_EQ(median({9, 1, 5, 2}), 3.5);
}

TEST(Statistics, MedianOfTheBestIsNotLuck) {
  EXPECT_EQ(median_of_best({}), 0);
  EXPECT_EQ(median_of_best({{3}, {5}, {4}}), 5);
  EXPECT_EQ(median_of_best({{10, 11, 12}, {1, 2, 3}}), 11);
  Random random(5);
  const auto about = [&](double middle) { return middle + static_cast<double>(random.below(2001)) / 100 - 10; };
  double found = 0, largest = 0;
  constexpr int kTrials = 400;
  for (int trial = 0; trial < kTrials; ++trial) {
    std::vector<std::vector<double>> samples(20, std::vector<double>(4));
    for (auto& of : samples)
      for (double& sample : of) sample = about(100);
    found += median_of_best(samples) / kTrials;
    double best = 0;
    for (const auto& of : samples) best = std::max(best, median(of));
    largest += best / kTrials;
    samples[7] = {about(130), about(130), about(130), about(130)};
    EXPECT_EQ(median_of_best(samples), median(samples[7]));
  }
  EXPECT_NEAR(found, 100, 1);
  EXPECT_GT(largest, 105);
}

TEST(Cpu, NamesUnknownSets) {
  EXPECT_NE(refusal_of([] { features_of_isa("sse9"); }).find("unknown instruction set"), std::string::npos);
  EXPECT_GE(usable_cores(), 1);
}

TEST(Random, IsUniformAndNormal) {
  Random random(7);
  double sum = 0, squares = 0;
  for (int i = 0; i < 100000; ++i) {
    const double x = random.normal();
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / 1e5, 0, 0.02);
  EXPECT_NEAR(squares / 1e5, 1, 0.03);
}

TEST(SlabAllocator, PartsAreAlignedApartAndOutliveIt) {
  std::vector<std::shared_ptr<std::byte>> parts;
  const std::vector<size_t> sizes{1, 64, 65, 1 << 20, 12345, size_t{20} << 20, size_t{15} << 20, size_t{15} << 20,
                                  0, 7};
  {
    SlabAllocator slabs;
    for (size_t i = 0; i < sizes.size(); ++i) {
      parts.push_back(slabs.take(sizes[i]));
      EXPECT_EQ(reinterpret_cast<uintptr_t>(parts.back().get()) % 64, 0u);
      std::memset(parts.back().get(), static_cast<int>(i + 1), sizes[i]);
    }
  }
  parts[0].reset();  // others of its slab stay
  for (size_t i = 1; i < sizes.size(); ++i)
    for (size_t at : {size_t{0}, sizes[i] / 2, sizes[i] - 1}) {
      if (sizes[i] > 0) {
        EXPECT_EQ(parts[i].get()[at], static_cast<std::byte>(i + 1)) << i << " " << at;
      }
    }
}

}  // namespace
}  // namespace pare
