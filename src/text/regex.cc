#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <time.h>

#include <algorithm>

#include "base/error.h"
#include "formats/names.h"
#include "text/regex_syntax.h"

namespace pare {
namespace {

constexpr size_t kMaxPattern = 32768;
constexpr size_t kSmallStack = 32 << 10, kLargeStack = 64 << 20;  // bytes; address space, used only as far as needed
constexpr uint32_t kHeapLimit = 64 << 10;                         // KiB
constexpr uint32_t kFirstLimit = 1024;                            // steps of one search
constexpr uint32_t kLastLimit = 1u << 30;
// What a text may take: useful patterns run at 5 to 50 MB/s, so even an emulated machine stays far below.
constexpr double kSecondsBase = 1, kSecondsPerByte = 20e-6;

template <auto Free>
struct Deleter {
  template <class T>
  void operator()(T* p) const {
    Free(p);
  }
};
using CodePtr = std::unique_ptr<pcre2_code, Deleter<pcre2_code_free>>;
using CompileContextPtr = std::unique_ptr<pcre2_compile_context, Deleter<pcre2_compile_context_free>>;
using MatchDataPtr = std::unique_ptr<pcre2_match_data, Deleter<pcre2_match_data_free>>;
using MatchContextPtr = std::unique_ptr<pcre2_match_context, Deleter<pcre2_match_context_free>>;
using JitStackPtr = std::unique_ptr<pcre2_jit_stack, Deleter<pcre2_jit_stack_free>>;

std::string message_of(int error) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(error, text, sizeof(text));
  return reinterpret_cast<const char*>(text);
}

double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

}  // namespace

struct Regex::Code {
  CodePtr code;
  std::string pattern;  // for messages
};

Regex::Regex(std::string_view pattern) : code_(std::make_unique<Code>()) {
  if (pattern.size() > kMaxPattern) {
    fail("a regular expression of {} bytes, expected at most {}", pattern.size(), kMaxPattern);
  }
  const std::string translated = to_pcre2(pattern);
  const CompileContextPtr context(pcre2_compile_context_create(nullptr));
  if (!context) throw std::bad_alloc();
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  size_t place = 0;
  code_->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                  PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error, &place, context.get()));
  if (!code_->code) fail("the regular expression {} does not compile: {}", quote_name(pattern), message_of(error));
  // Where there is no just-in-time compiler (a machine that forbids it), matching is slower and the same.
  pcre2_jit_compile(code_->code.get(), PCRE2_JIT_COMPLETE);
  code_->pattern = pattern;
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

struct Regex::Matcher::State {
  const Regex::Code* regex;
  MatchDataPtr data;
  MatchContextPtr context;
  JitStackPtr stack;
  uint32_t limit = kFirstLimit;
  uint32_t searches = 0;
  double began = 0;    // processor time when it was first asked for
  size_t longest = 0;  // bytes of the longest text so far

  void check_time() {
    const double now = thread_seconds();
    if (began == 0) began = now;
    const double allowed = kSecondsBase + kSecondsPerByte * static_cast<double>(longest);
    if (now - began > allowed) {
      fail("the regular expression {} takes too long on this text (more than {:.0f} s)", quote_name(regex->pattern),
           allowed);
    }
  }

  /// Gives the search what it lacked; throws Error if that would be unreasonable.
  void allow_more(int error) {
    check_time();
    if (error == PCRE2_ERROR_MATCHLIMIT && limit < kLastLimit) {
      limit *= 4;
      pcre2_set_match_limit(context.get(), limit);
    } else if (error == PCRE2_ERROR_JIT_STACKLIMIT && !stack) {
      stack.reset(pcre2_jit_stack_create(kSmallStack, kLargeStack, nullptr));
      if (!stack) throw std::bad_alloc();
      pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
    } else {
      fail("the regular expression {} cannot be searched for in this text: {}", quote_name(regex->pattern),
           message_of(error));
    }
  }
};

Regex::Matcher::Matcher(const Regex& regex) : state_(std::make_unique<State>()) {
  state_->regex = regex.code_.get();
  state_->data.reset(pcre2_match_data_create(1, nullptr));
  state_->context.reset(pcre2_match_context_create(nullptr));
  if (!state_->data || !state_->context) throw std::bad_alloc();
  pcre2_set_match_limit(state_->context.get(), state_->limit);
  pcre2_set_heap_limit(state_->context.get(), kHeapLimit);
}

Regex::Matcher::~Matcher() = default;
Regex::Matcher::Matcher(Matcher&&) noexcept = default;
Regex::Matcher& Regex::Matcher::operator=(Matcher&&) noexcept = default;

std::optional<RegexMatch> Regex::Matcher::find(std::string_view text, size_t start) {
  State& state = *state_;
  state.longest = std::max(state.longest, text.size());
  if (++state.searches % 1024 == 0 || state.limit > kFirstLimit) state.check_time();
  if (text.data() == nullptr) text = "";
  while (true) {
    // The limit grows from search to search only when needed, so that time is looked at before much of it has passed.
    const int result = pcre2_match(state.regex->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                                   start, PCRE2_NO_UTF_CHECK, state.data.get(), state.context.get());
    if (result == PCRE2_ERROR_NOMATCH) return std::nullopt;
    if (result >= 0) {
      const size_t* place = pcre2_get_ovector_pointer(state.data.get());
      return RegexMatch{place[0], std::max(place[0], place[1])};
    }
    state.allow_more(result);
  }
}

}  // namespace pare
