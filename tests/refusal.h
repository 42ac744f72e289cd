#pragma once
#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "base/error.h"

namespace pare::test {

/// The one line with which `action` is refused; "" if it is not.
template <class Action>
std::string refusal_of(Action&& action) {
  try {
    action();
  } catch (const Error& error) {
    const std::string line = error.what();
    EXPECT_EQ(line.find('\n'), std::string::npos) << line;
    return line;
  }
  return "";
}

/// The same, where the line must begin with the file's name and be short whatever the file holds.
template <class Action>
std::string refusal_of_file(std::string_view name, Action&& action) {
  const std::string line = refusal_of(action);
  EXPECT_TRUE(line.empty() || line.starts_with(std::string(name) + ": ")) << line;
  EXPECT_LT(line.size(), 400u) << line;
  return line;
}

}  // namespace pare::test
