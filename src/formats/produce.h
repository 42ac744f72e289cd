#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

#include "base/file.h"
#include "base/function_ref.h"

namespace pare {

/// Hands the tensor's bytes, in order and in pieces of any size, to the sink.
using TensorProducer = std::function<void(FunctionRef<void(std::span<const std::byte>)> sink)>;

/// Appends what `produce` gives to `out`; Error unless it is exactly `expected` bytes. `doing` ("writing GGUF") and
/// `name` stand in the error.
void copy_produced(OutputFile& out, const TensorProducer& produce, int64_t expected, std::string_view doing,
                   std::string_view name);

}  // namespace pare
