#pragma once
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <span>

namespace pare {

/// What the system is asked to put large storage into.
inline constexpr size_t kHugePage = size_t{2} << 20;

/// Uninitialised storage aligned to 64 bytes (a cache line, and the widest vector); large ones ask for huge pages.
/// T must be trivial.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t count);
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  size_t size() const { return count_; }
  T& operator[](size_t i) { return data_.get()[i]; }
  const T& operator[](size_t i) const { return data_.get()[i]; }
  std::span<T> span() { return {data_.get(), count_}; }
  std::span<const T> span() const { return {data_.get(), count_}; }
  /// Makes room for at least `count`; what was in it is lost when it grows.
  void reserve(size_t count) {
    if (count > count_) *this = Buffer(count);
  }

 private:
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  std::unique_ptr<T, Free> data_;
  size_t count_ = 0;
};

/// Memory for many things of middling size that live about as long, such as the weights of a model: parts of slabs, so
/// that all of it lies in huge pages, which separate pieces of less than a few megabytes would not. A slab is freed
/// with the last of its parts. For one thread at a time.
class SlabAllocator {
 public:
  /// Uninitialised memory aligned to 64 bytes. Throws std::bad_alloc.
  std::shared_ptr<std::byte> take(size_t bytes);

 private:
  std::shared_ptr<std::byte> slab_;
  size_t used_ = 0, size_ = 0;
};

/// 64-byte aligned memory (2 MiB aligned with a huge-page hint from 4 MiB on). Throws std::bad_alloc.
void* allocate_aligned(size_t bytes);

template <class T>
Buffer<T>::Buffer(size_t count) : count_(count) {
  if (count > static_cast<size_t>(-1) / 2 / sizeof(T)) throw std::bad_alloc();
  data_.reset(static_cast<T*>(allocate_aligned(count * sizeof(T))));
}

}  // namespace pare
