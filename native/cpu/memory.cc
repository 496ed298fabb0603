#include "cpu/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "core/status.h"

namespace loko::cpu {

namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kChunkBytes = std::size_t{64} << 20;
constexpr std::size_t kCacheLine = 64;

/// Null where the operating system has no more. Pages that nobody touches cost nothing.
void* mapPages(std::size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
#if defined(MADV_HUGEPAGE)
  // Advice: a kernel without huge pages answers with an error that changes nothing.
  if (bytes >= 2 * kHugePage) madvise(memory, bytes, MADV_HUGEPAGE);
#endif
  return memory;
}

}  // namespace

WeightArena::~WeightArena() {
  for (const Chunk& chunk : chunks_) munmap(chunk.begin, chunk.bytes);
}

float* WeightArena::allocate(std::size_t floats) {
  const std::size_t bytes = (floats * sizeof(float) + kCacheLine - 1) / kCacheLine * kCacheLine;
  if (chunks_.empty() || chunks_.back().used + bytes > chunks_.back().bytes) {
    const std::size_t size = std::max(kChunkBytes, (bytes + kHugePage - 1) / kHugePage * kHugePage);
    void* memory = mapPages(size);
    if (memory == nullptr) {
      throw Error(ErrorCode::kOutOfMemory,
                  "Could not reserve " + std::to_string(size) + " bytes for weights");
    }
    chunks_.push_back({static_cast<char*>(memory), size, 0});
  }
  Chunk& chunk = chunks_.back();
  float* piece = reinterpret_cast<float*>(chunk.begin + chunk.used);
  chunk.used += bytes;
  return piece;
}

void WeightArena::release(float* piece, std::size_t floats) {
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto address = reinterpret_cast<std::uintptr_t>(piece);
  const std::uintptr_t begin = (address + page - 1) / page * page;
  const std::uintptr_t end = (address + floats * sizeof(float)) / page * page;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

MappedFloats::~MappedFloats() {
  if (data_ != nullptr) munmap(data_, static_cast<std::size_t>(size_) * sizeof(float));
}

void MappedFloats::grow(std::int64_t count, bool keep) {
  if (count <= size_) return;
  constexpr auto kMost = std::numeric_limits<std::int64_t>::max() / std::int64_t{sizeof(float)};
  void* memory =
      count <= kMost ? mapPages(static_cast<std::size_t>(count) * sizeof(float)) : nullptr;
  if (memory == nullptr) {
    throw Error(ErrorCode::kOutOfMemory,
                "Could not reserve " + std::to_string(count) + " floats (" +
                    std::to_string(static_cast<double>(count) * sizeof(float)) + " bytes) for " +
                    purpose_ +
                    ". Use a smaller batch, fewer observation rows or fewer parameters.");
  }
  if (data_ != nullptr) {
    if (keep) std::memcpy(memory, data_, static_cast<std::size_t>(size_) * sizeof(float));
    munmap(data_, static_cast<std::size_t>(size_) * sizeof(float));
  }
  data_ = static_cast<float*>(memory);
  size_ = count;
}

namespace {
constexpr int kAbsent = -1;
}

RowTable::RowTable(int rows, int cols, std::function<void(int, float*)> readRow)
    : readRow_(std::move(readRow)), cols_(cols), slots_(static_cast<std::size_t>(rows), kAbsent) {
  memory_.grow(std::int64_t{rows} * cols);
}

void RowTable::load(int row) {
  int& slot = slots_[static_cast<std::size_t>(row)];
  if (slot != kAbsent) return;
  readRow_(row, memory_.data() + std::int64_t{used_} * cols_);
  slot = used_++;
}

const float* RowTable::row(int row) const {
  const int slot = slots_[static_cast<std::size_t>(row)];
  return slot == kAbsent ? nullptr : memory_.data() + std::int64_t{slot} * cols_;
}

}  // namespace loko::cpu
