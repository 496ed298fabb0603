#pragma once

// Barriers of a block, and the votes and shuffles of a warp. Each suspends the calling thread until
// all that must take part have arrived; block.cc decides when that is. A lane that exited counts as
// arrived, a value read from a lane that does not take part is garbage (all bits set).

#include <cstdint>
#include <cstring>

namespace loko::emulation {

/// Where a thread waits, for the report of a deadlock.
struct Site {
  const char* operation;
  const char* file;
  int line;
  const char* function;
};

struct Votes {
  int nonZero, participants;
};
Votes blockBarrier(bool predicate, const Site& site);

enum class WarpOperation : unsigned char { kSync, kShuffle, kBallot };
/// Returns the value given by lane `source` of the same operation (kShuffle), or the lanes whose
/// value is not zero in the low half and those that took part in the high half (kBallot).
std::uint64_t warpCollective(WarpOperation operation, unsigned mask, std::uint64_t value,
                             int source, const Site& site);

/// The caller's index in its warp.
int laneIndex();
unsigned activeLanes();

[[noreturn]] void reportMisuse(const Site& site, const char* why);

template <typename T>
T shuffle(unsigned mask, T value, int source, const Site& site) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = warpCollective(WarpOperation::kShuffle, mask, bits, source, site);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace loko::emulation

// The location of a call in the kernel's source, as the last parameters of every collective.
#define LOKO_CALL_SITE                                              \
  const char *file = __builtin_FILE(), int line = __builtin_LINE(), \
             const char *function = __builtin_FUNCTION()
#define LOKO_SITE(name)        \
  ::loko::emulation::Site {    \
    name, file, line, function \
  }

inline void __syncthreads(LOKO_CALL_SITE) {
  loko::emulation::blockBarrier(false, LOKO_SITE("__syncthreads"));
}
inline int __syncthreads_or(int predicate, LOKO_CALL_SITE) {
  return loko::emulation::blockBarrier(predicate != 0, LOKO_SITE("__syncthreads_or")).nonZero > 0;
}
inline int __syncthreads_and(int predicate, LOKO_CALL_SITE) {
  const auto votes = loko::emulation::blockBarrier(predicate != 0, LOKO_SITE("__syncthreads_and"));
  return votes.nonZero == votes.participants;
}
inline int __syncthreads_count(int predicate, LOKO_CALL_SITE) {
  return loko::emulation::blockBarrier(predicate != 0, LOKO_SITE("__syncthreads_count")).nonZero;
}

inline void __syncwarp(unsigned mask = 0xffffffffu, LOKO_CALL_SITE) {
  loko::emulation::warpCollective(loko::emulation::WarpOperation::kSync, mask, 0, 0,
                                  LOKO_SITE("__syncwarp"));
}
inline unsigned __activemask() {
  return loko::emulation::activeLanes();
}

inline unsigned __ballot_sync(unsigned mask, int predicate, LOKO_CALL_SITE) {
  return static_cast<unsigned>(
      loko::emulation::warpCollective(loko::emulation::WarpOperation::kBallot, mask, predicate != 0,
                                      0, LOKO_SITE("__ballot_sync")));
}
inline int __any_sync(unsigned mask, int predicate, LOKO_CALL_SITE) {
  const std::uint64_t votes = loko::emulation::warpCollective(
      loko::emulation::WarpOperation::kBallot, mask, predicate != 0, 0, LOKO_SITE("__any_sync"));
  return static_cast<unsigned>(votes) != 0;
}
inline int __all_sync(unsigned mask, int predicate, LOKO_CALL_SITE) {
  const std::uint64_t votes = loko::emulation::warpCollective(
      loko::emulation::WarpOperation::kBallot, mask, predicate != 0, 0, LOKO_SITE("__all_sync"));
  return static_cast<unsigned>(votes) == static_cast<unsigned>(votes >> 32);
}

// `width` (a power of two up to 32) splits the warp into segments; a source outside the caller's
// segment means the caller itself, except that xor may also reach the segments before it.
template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, LOKO_CALL_SITE) {
  const int first = loko::emulation::laneIndex() & ~(width - 1);
  return loko::emulation::shuffle(mask, value, first | (source & (width - 1)),
                                  LOKO_SITE("__shfl_sync"));
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, LOKO_CALL_SITE) {
  const int lane = loko::emulation::laneIndex();
  const int source = lane - static_cast<int>(delta), first = lane & ~(width - 1);
  return loko::emulation::shuffle(mask, value, source < first ? lane : source,
                                  LOKO_SITE("__shfl_up_sync"));
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, LOKO_CALL_SITE) {
  const int lane = loko::emulation::laneIndex();
  const int source = lane + static_cast<int>(delta), last = lane | (width - 1);
  return loko::emulation::shuffle(mask, value, source > last ? lane : source,
                                  LOKO_SITE("__shfl_down_sync"));
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int laneMask, int width = 32, LOKO_CALL_SITE) {
  const int lane = loko::emulation::laneIndex();
  const int source = lane ^ laneMask, last = lane | (width - 1);
  return loko::emulation::shuffle(mask, value, source > last ? lane : source,
                                  LOKO_SITE("__shfl_xor_sync"));
}
