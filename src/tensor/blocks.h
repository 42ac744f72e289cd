#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace pare {

// A block type is a struct with the layout of its blocks in a file and `kValues`, how many values a block holds. Blocks
// are read and written through copies, since the bytes need no alignment.

constexpr int kSuperBlock = 256;  // values of a block whose groups have small scales of their own (ggml's QK_K)

template <class Block>
void decode_blocks(const std::byte* from, float* to, int64_t count, void (*decode)(const Block&, float*)) {
  for (int64_t i = 0; i < count / Block::kValues; ++i, from += sizeof(Block), to += Block::kValues) {
    Block block;
    std::memcpy(&block, from, sizeof block);
    decode(block, to);
  }
}

template <class Block>
void encode_blocks(const float* from, std::byte* to, int64_t count, Block (*encode)(const float*)) {
  for (int64_t i = 0; i < count / Block::kValues; ++i, from += Block::kValues, to += sizeof(Block)) {
    const Block block = encode(from);
    std::memcpy(to, &block, sizeof block);
  }
}

}  // namespace pare
