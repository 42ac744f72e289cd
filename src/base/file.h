#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace pare {

/// A whole file mapped read-only; pages come in as they are touched.
class MappedFile {
 public:
  /// Throws Error naming the file and the reason if it cannot be opened or is not a regular file.
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }
  const std::filesystem::path& path() const { return path_; }
  /// Tells the system that this part will not be read again soon, so that memory does not hold the file twice.
  static void drop_pages(std::span<const std::byte> part);
  /// Has this part read, so that using it waits for nothing, and returns when it is there.
  static void populate(std::span<const std::byte> part);

 private:
  MappedFile() = default;
  std::filesystem::path path_;
  std::span<const std::byte> bytes_;
};

/// Reads a whole text file of at most max_bytes. Throws Error (missing, unreadable, too large).
std::string read_text_file(const std::filesystem::path& path, size_t max_bytes = size_t{1} << 30);

/// A file written beside its final name and renamed by commit(), so that an interrupted or failed write leaves nothing
/// under the final name. Destroyed without commit(), the partial file is removed.
class OutputFile {
 public:
  explicit OutputFile(std::filesystem::path path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  /// Appends; throws Error (disk full, file too large) naming the final path.
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  /// Appends zeros up to the next multiple of alignment.
  void pad_to(size_t alignment);
  uint64_t position() const { return position_; }
  /// Flushes to disk and renames into place.
  void commit();

 private:
  void flush();
  std::filesystem::path path_, partial_;
  int descriptor_ = -1;
  uint64_t position_ = 0;
  std::string buffer_;
};

/// The same for a folder of files: written as a hidden sibling, renamed by commit(). The final path must not exist or
/// be an empty folder.
class OutputFolder {
 public:
  explicit OutputFolder(std::filesystem::path path);
  ~OutputFolder();
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;
  /// Where to write meanwhile.
  const std::filesystem::path& partial() const { return partial_; }
  void commit();

 private:
  std::filesystem::path path_, partial_;
  bool committed_ = false;
};

}  // namespace pare
