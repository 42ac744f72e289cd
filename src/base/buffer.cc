#include "base/buffer.h"

#include <sys/mman.h>

namespace pare {

void* allocate_aligned(size_t bytes) {
  constexpr size_t kLine = 64;
  const size_t alignment = bytes >= 2 * kHugePage ? kHugePage : kLine;
  const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  if (rounded < bytes) throw std::bad_alloc();
  void* memory = std::aligned_alloc(alignment, rounded == 0 ? alignment : rounded);
  if (!memory) throw std::bad_alloc();
  if (alignment == kHugePage) madvise(memory, rounded, MADV_HUGEPAGE);
  return memory;
}

std::shared_ptr<std::byte> SlabAllocator::take(size_t bytes) {
  constexpr size_t kSlab = size_t{32} << 20, kLine = 64;
  const auto allocate = [](size_t size) {
    return std::shared_ptr<std::byte>(static_cast<std::byte*>(allocate_aligned(size)), std::free);
  };
  if (bytes > kSlab / 2) return allocate(bytes);
  const size_t rounded = (bytes + kLine - 1) / kLine * kLine;
  if (used_ + rounded > size_) {
    slab_ = allocate(kSlab);
    used_ = 0;
    size_ = kSlab;
  }
  std::byte* const part = slab_.get() + used_;
  used_ += rounded;
  return {slab_, part};
}

}  // namespace pare
