#include "cpu/memory.h"

#include <sys/mman.h>

#include <cstring>
#include <limits>
#include <string>

#include "core/status.h"

namespace loko::cpu {

MappedFloats::~MappedFloats() {
  if (data_ != nullptr) munmap(data_, static_cast<std::size_t>(size_) * sizeof(float));
}

void MappedFloats::grow(std::int64_t count, bool keep) {
  if (count <= size_) return;
  constexpr auto kMost = std::numeric_limits<std::int64_t>::max() / std::int64_t{sizeof(float)};
  void* memory = MAP_FAILED;
  if (count <= kMost) {
    memory = mmap(nullptr, static_cast<std::size_t>(count) * sizeof(float), PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  }
  if (memory == MAP_FAILED) {
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

}  // namespace loko::cpu
