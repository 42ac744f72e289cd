#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "base/error.h"

namespace pare {
namespace {

constexpr size_t kWriteBuffer = size_t{1} << 20;

std::string reason() { return std::strerror(errno); }

/// A name beside `path` that nobody else writes at the same time.
std::filesystem::path partial_name(const std::filesystem::path& path) {
  auto name = "." + path.filename().string() + ".partial-" + std::to_string(getpid());
  return path.parent_path() / name;
}

struct Descriptor {
  int value;
  ~Descriptor() {
    if (value >= 0) ::close(value);
  }
};

/// Calls madvise on the whole pages inside `part`.
void advise(std::span<const std::byte> part, int advice) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<uintptr_t>(part.data()) + page - 1) / page * page;
  const auto end = (reinterpret_cast<uintptr_t>(part.data()) + part.size()) / page * page;
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, advice);
}

}  // namespace

std::shared_ptr<const MappedFile> MappedFile::open(const std::filesystem::path& path) {
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.value < 0) fail("{}: cannot open: {}", path.string(), reason());
  struct stat status {};
  if (fstat(file.value, &status) != 0) fail("{}: cannot read: {}", path.string(), reason());
  if (!S_ISREG(status.st_mode)) fail("{}: not a regular file", path.string());
  std::shared_ptr<MappedFile> mapped(new MappedFile);
  mapped->path_ = path;
  if (status.st_size > 0) {
    const auto size = static_cast<size_t>(status.st_size);
    void* data = mmap(nullptr, size, PROT_READ, MAP_SHARED, file.value, 0);
    if (data == MAP_FAILED) fail("{}: cannot map {} bytes: {}", path.string(), size, reason());
    mapped->bytes_ = {static_cast<const std::byte*>(data), size};
  }
  return mapped;
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

void MappedFile::drop_pages(std::span<const std::byte> part) { advise(part, MADV_DONTNEED); }

void MappedFile::populate(std::span<const std::byte> part) {
  // Touching it is what makes the system read the most at once, into large pages; asking for it (MADV_WILLNEED) brings
  // small ones, and MADV_POPULATE_READ looks up each: both take several times as long as this.
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  for (size_t at = 0; at < part.size(); at += page)
    static_cast<void>(*const_cast<const volatile std::byte*>(&part[at]));
}

std::string read_text_file(const std::filesystem::path& path, size_t max_bytes) {
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.value < 0) fail("{}: cannot open: {}", path.string(), reason());
  std::string text;
  char chunk[1 << 16];
  while (true) {
    const ssize_t got = ::read(file.value, chunk, sizeof chunk);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("{}: cannot read: {}", path.string(), reason());
    if (got == 0) return text;
    if (text.size() + static_cast<size_t>(got) > max_bytes) {
      fail("{}: larger than the {} bytes expected at most", path.string(), max_bytes);
    }
    text.append(chunk, static_cast<size_t>(got));
  }
}

OutputFile::OutputFile(std::filesystem::path path) : path_(std::move(path)), partial_(partial_name(path_)) {
  if (std::filesystem::is_directory(path_)) fail("{}: is a folder, expected a file name", path_.string());
  descriptor_ = ::open(partial_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor_ < 0) fail("{}: cannot write: {}", path_.string(), reason());
}

OutputFile::~OutputFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(partial_.c_str());
}

void OutputFile::flush() {
  size_t done = 0;
  while (done < buffer_.size()) {
    const ssize_t put = ::write(descriptor_, buffer_.data() + done, buffer_.size() - done);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0)
      fail("{}: cannot write after {} bytes: {}", path_.string(), position_ - buffer_.size() + done, reason());
    done += static_cast<size_t>(put);
  }
  buffer_.clear();
}

void OutputFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const size_t take = std::min(bytes.size(), kWriteBuffer - buffer_.size());
    buffer_.append(reinterpret_cast<const char*>(bytes.data()), take);
    position_ += take;
    bytes = bytes.subspan(take);
    if (buffer_.size() == kWriteBuffer) flush();
  }
}

void OutputFile::pad_to(size_t alignment) {
  const size_t over = position_ % alignment;
  if (over) write(std::string(alignment - over, '\0'));
}

void OutputFile::commit() {
  flush();
  if (fsync(descriptor_) != 0) fail("{}: cannot write: {}", path_.string(), reason());
  if (::close(std::exchange(descriptor_, -1)) != 0 || ::rename(partial_.c_str(), path_.c_str()) != 0) {
    const std::string why = reason();
    ::unlink(partial_.c_str());
    fail("{}: cannot write: {}", path_.string(), why);
  }
}

OutputFolder::OutputFolder(std::filesystem::path path) : path_(std::move(path)) {
  if (path_.filename().empty()) path_ = path_.parent_path();  // "out/" means "out"
  partial_ = partial_name(path_);
  std::error_code error;
  if (std::filesystem::exists(path_) &&
      !(std::filesystem::is_directory(path_) && std::filesystem::is_empty(path_, error))) {
    fail("{}: exists already, expected a new or empty folder", path_.string());
  }
  std::filesystem::remove_all(partial_, error);
  if (!std::filesystem::create_directory(partial_, error)) {
    fail("{}: cannot create: {}", path_.string(), error ? error.message() : "exists already");
  }
}

OutputFolder::~OutputFolder() {
  std::error_code ignored;
  if (!committed_) std::filesystem::remove_all(partial_, ignored);
}

void OutputFolder::commit() {
  std::error_code error;
  std::filesystem::remove(path_, error);  // an empty folder of that name gives way
  std::filesystem::rename(partial_, path_, error);
  if (error) fail("{}: cannot write: {}", path_.string(), error.message());
  committed_ = true;
}

}  // namespace pare
