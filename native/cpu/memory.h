#pragma once

// Memory of the CPU backend that grows and is never touched before it is used.

#include <cstddef>
#include <cstdint>

namespace loko::cpu {

/// Floats straight from the operating system: page-aligned, zero, and without cost for pages that
/// nobody touches, so that a Jacobian may be reserved for the most rows a filter could ask for.
class MappedFloats {
 public:
  explicit MappedFloats(const char* purpose) : purpose_(purpose) {}
  ~MappedFloats();
  MappedFloats(const MappedFloats&) = delete;
  MappedFloats& operator=(const MappedFloats&) = delete;

  /// Makes room for `count` floats. Contents are zero where it grew, or copied with `keep`. Throws
  /// Error(kOutOfMemory) naming the bytes asked and leaves everything as it was.
  void grow(std::int64_t count, bool keep = false);

  float* data() const { return data_; }
  std::int64_t size() const { return size_; }

 private:
  const char* purpose_;
  float* data_ = nullptr;
  std::int64_t size_ = 0;
};

}  // namespace loko::cpu
