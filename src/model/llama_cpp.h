#pragma once
#include <string>
#include <vector>

#include "model/checkpoint.h"

namespace pare {

// Stock llama.cpp runs layers that differ in its architecture `deci` only, and that one cannot leave out every part:
//
// - Its graph forgets the result of an attention that no MLP follows. A dropped MLP beside a kept attention stays as
//   one of width 32 whose weights are zero.
// - It takes the sizes of heads and of rope from layer 0. A dropped attention there stays as one head of zeros.
//
// Both add exactly nothing to the residual stream. Layers that have neither part are no trouble: no file has them.

/// The same model with those stand-ins in place, named in its plan as dropped. Throws Error, saying what to do instead,
/// for what llama.cpp computes otherwise or not at all.
Checkpoint with_stand_ins(const Checkpoint& checkpoint);

/// The reverse, for a config read from a `deci` file: parts that the plan of the file drops are absent again. `where`
/// names the file in errors: a part that is there and dropped, but no stand-in.
void remove_stand_ins(ModelConfig& config, const Plan& plan, const std::vector<int>& original_layers,
                      const std::string& where);

}  // namespace pare
