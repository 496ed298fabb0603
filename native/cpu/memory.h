#pragma once

// Memory of the CPU backend that grows and is never touched before it is used.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

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

/// Memory for packed weights: large pieces side by side in huge pages, since a step reads all of them once
/// and would miss the translation buffer at every page. 64-byte aligned and zero.
class WeightArena {
 public:
  WeightArena() = default;
  ~WeightArena();
  WeightArena(const WeightArena&) = delete;
  WeightArena& operator=(const WeightArena&) = delete;

  /// Throws Error(kOutOfMemory).
  float* allocate(std::size_t floats);
  /// Gives the pages back to the operating system; the addresses are not used again.
  static void release(float* piece, std::size_t floats);

 private:
  struct Chunk {
    char* begin;
    std::size_t bytes, used;
  };
  std::vector<Chunk> chunks_;
};

/// The rows of a large table that were used so far, in the order of their first use: memory is spent on
/// the words of a stream, not on a vocabulary.
class RowTable {
 public:
  RowTable(int rows, int cols, std::function<void(int, float*)> readRow);

  int rows() const { return static_cast<int>(slots_.size()); }
  int cols() const { return cols_; }
  /// Reads the row unless it is there; throws what readRow throws. From one thread, while no other reads.
  void load(int row);
  /// Null for a row that was not loaded.
  const float* row(int row) const;

 private:
  std::function<void(int, float*)> readRow_;
  int cols_;
  std::vector<int> slots_;  // where the row lies; kAbsent
  int used_ = 0;
  MappedFloats memory_{"a table of embeddings"};
};

}  // namespace loko::cpu
