#include "block.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <exception>
#include <memory>
#include <numeric>
#include <sstream>
#include <string>
#include <vector>

#include "closed_memory.h"
#include "fiber.h"
#include "shared_memory.h"
#include "symbols.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace loko::emulation {
namespace {

constexpr int kLanes = 32;
constexpr std::uint64_t kGarbage = ~std::uint64_t{0};

enum class State : unsigned char { kReady, kAtBarrier, kAtWarp, kExited };

struct Thread {
  uint3 index{};
  int warp = 0, lane = 0;
  Fiber* fiber = nullptr;  // null before its first instruction and after its last
  State state = State::kReady;
  bool awaited = false;  // cudaGridDependencySynchronize
  WarpOperation operation = WarpOperation::kSync;
  unsigned mask = 0;
  int source = 0;
  std::uint64_t value = 0, result = 0;
  Site site{};
};

struct Warp {
  Thread* lanes = nullptr;
  int size = 0;
  unsigned alive = 0, waiting = 0;  // waiting: in a warp collective
};

class Permuter {
 public:
  explicit Permuter(std::uint64_t seed) : state_(seed) {}

  void fill(std::vector<int>& order, int count, Order kind) {
    order.resize(static_cast<std::size_t>(count));
    std::iota(order.begin(), order.end(), 0);
    for (int i = count - 1; i > 0 && kind == Order::kShuffled; --i)
      std::swap(order[static_cast<std::size_t>(i)],
                order[static_cast<std::size_t>(next() % static_cast<unsigned>(i + 1))]);
    if (kind == Order::kReverse) std::reverse(order.begin(), order.end());
  }

 private:
  std::uint64_t next() {  // splitmix64
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }

  std::uint64_t state_;
};

class Block {
 public:
  void run(uint3 index, const Grid& launched, Order order, Permuter& permuter);
  void await() { current_->awaited = true; }
  Votes barrier(bool predicate, const Site& site);
  std::uint64_t collective(WarpOperation operation, unsigned mask, std::uint64_t value, int source,
                           const Site& site);
  Thread& current() const { return *current_; }
  Warp& currentWarp() { return warps_[static_cast<std::size_t>(current_->warp)]; }

 private:
  static void enterThread();
  void prepare(dim3 size);
  bool runWarp(Warp& warp);
  void resume(Thread& thread);
  void suspend(Thread& thread);
  void exit(Thread& thread);
  void releaseBarrier();
  bool resolve(Warp& warp, const Thread& arrived);
  void abandon();
  std::string describe(const Thread& thread) const;
  std::string deadlock() const;

  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::vector<int> warpOrder_, laneOrder_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> free_;
  Thread* current_ = nullptr;
  const Grid* launched_ = nullptr;
  int alive_ = 0, atBarrier_ = 0, votes_ = 0;
  std::exception_ptr failure_;
};

// The one block that is running; null outside kernels. The device's lock guards it.
Block* active = nullptr;

Block& activeBlock(const char* operation) {
  if (active == nullptr) throw Fault(std::string(operation) + " was called outside a kernel");
  return *active;
}

void Block::prepare(dim3 size) {
  const unsigned count = size.x * size.y * size.z;
  threads_.assign(count, Thread{});
  warps_.assign((count + kLanes - 1) / kLanes, Warp{});
  for (unsigned i = 0; i < count; ++i) {
    Thread& thread = threads_[i];
    thread.index = uint3{i % size.x, i / size.x % size.y, i / size.x / size.y};
    thread.warp = static_cast<int>(i / kLanes);
    thread.lane = static_cast<int>(i % kLanes);
    Warp& warp = warps_[i / kLanes];
    if (warp.size++ == 0) warp.lanes = &thread;
    warp.alive |= 1u << thread.lane;
  }
  alive_ = static_cast<int>(count);
  atBarrier_ = votes_ = 0;
  failure_ = nullptr;
}

void Block::run(uint3 index, const Grid& launched, Order order, Permuter& permuter) {
  prepare(launched.block);
  blockIdx = index;
  launched_ = &launched;
  permuter.fill(warpOrder_, static_cast<int>(warps_.size()), order);
  permuter.fill(laneOrder_, kLanes, order);
  while (alive_ > 0) {
    bool progress = false;
    for (const int warp : warpOrder_)
      progress = runWarp(warps_[static_cast<std::size_t>(warp)]) || progress;
    if (!progress) {
      const std::string message = deadlock();
      abandon();
      throw Fault(message);
    }
  }
}

// Runs a warp until each of its lanes waits for another warp, or has ended.
bool Block::runWarp(Warp& warp) {
  bool progress = false;
  for (bool ran = true; ran;) {
    ran = false;
    for (const int lane : laneOrder_) {
      if (lane >= warp.size || warp.lanes[lane].state != State::kReady) continue;
      resume(warp.lanes[lane]);
      ran = progress = true;
    }
  }
  return progress;
}

void Block::resume(Thread& thread) {
  if (thread.fiber == nullptr) {
    if (free_.empty()) {
      fibers_.push_back(std::make_unique<Fiber>());
      free_.push_back(fibers_.back().get());
    }
    thread.fiber = free_.back();
    free_.pop_back();
    thread.fiber->start(&Block::enterThread);
  }
  current_ = &thread;
  threadIdx = thread.index;
  thread.fiber->resume();
  if (thread.state == State::kExited) {
    free_.push_back(thread.fiber);
    thread.fiber = nullptr;
  }
  if (failure_) {
    abandon();
    std::rethrow_exception(failure_);
  }
}

void Block::enterThread() {
  Block& block = *active;
  Thread& thread = *block.current_;
  try {
    block.launched_->thread();
    if (block.launched_->overlapping && !thread.awaited)
      throw Fault("a thread ended without cudaGridDependencySynchronize");
    block.exit(thread);
  } catch (...) {
    block.failure_ = std::current_exception();
    thread.state = State::kExited;
  }
}

void Block::abandon() {
  for (Thread& thread : threads_) {
    if (thread.fiber != nullptr) free_.push_back(thread.fiber);
    thread.fiber = nullptr;
  }
}

void Block::suspend(Thread& thread) {
  if (thread.state != State::kReady) Fiber::suspend();
}

void Block::exit(Thread& thread) {
  thread.state = State::kExited;
  --alive_;
  Warp& warp = warps_[static_cast<std::size_t>(thread.warp)];
  warp.alive &= ~(1u << thread.lane);
  for (int lane = 0; lane < warp.size; ++lane)
    if (warp.lanes[lane].state == State::kAtWarp) resolve(warp, warp.lanes[lane]);
  if (alive_ > 0 && atBarrier_ == alive_) releaseBarrier();
}

Votes Block::barrier(bool predicate, const Site& site) {
  Thread& thread = *current_;
  thread.site = site;
  thread.state = State::kAtBarrier;
  ++atBarrier_;
  votes_ += predicate ? 1 : 0;
  if (atBarrier_ == alive_) releaseBarrier();
  suspend(thread);
  return Votes{static_cast<int>(thread.result & 0xffffffffu),
               static_cast<int>(thread.result >> 32)};
}

void Block::releaseBarrier() {
  const std::uint64_t result =
      static_cast<std::uint64_t>(votes_) | (static_cast<std::uint64_t>(atBarrier_) << 32);
  const Thread* first = nullptr;
  for (Thread& thread : threads_) {
    if (thread.state != State::kAtBarrier) continue;
    if (first == nullptr) first = &thread;
    if (thread.site.line != first->site.line ||
        std::strcmp(thread.site.operation, first->site.operation) != 0)
      throw Fault("threads of a block met at different barriers: " + describe(*first) + "; " +
                  describe(thread));
    thread.result = result;
    thread.state = State::kReady;
  }
  atBarrier_ = votes_ = 0;
}

std::uint64_t Block::collective(WarpOperation operation, unsigned mask, std::uint64_t value,
                                int source, const Site& site) {
  Thread& thread = *current_;
  thread.site = site;
  if ((mask >> thread.lane & 1u) == 0) reportMisuse(site, "the caller's lane is not in the mask");
  thread.operation = operation;
  thread.mask = mask;
  thread.value = value;
  thread.source = source;
  thread.state = State::kAtWarp;
  Warp& warp = currentWarp();
  warp.waiting |= 1u << thread.lane;
  resolve(warp, thread);
  suspend(thread);
  return thread.result;
}

// Completes the operation that `arrived` waits for, if every living lane of its mask waits for it.
bool Block::resolve(Warp& warp, const Thread& arrived) {
  const unsigned mask = arrived.mask, group = mask & warp.alive;
  const WarpOperation operation = arrived.operation;
  if ((warp.waiting & group) != group) return false;
  std::uint64_t ballot = 0;
  for (unsigned rest = group; rest != 0; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest);
    const Thread& other = warp.lanes[lane];
    if (other.mask != mask || other.operation != operation) return false;
    if (other.value != 0) ballot |= std::uint64_t{1} << lane;
  }
  for (unsigned rest = group; rest != 0; rest &= rest - 1) {
    Thread& other = warp.lanes[__builtin_ctz(rest)];
    if (operation == WarpOperation::kBallot)
      other.result = ballot | (std::uint64_t{group} << 32);
    else if (operation == WarpOperation::kShuffle)
      other.result = (group >> other.source & 1u) != 0 ? warp.lanes[other.source].value : kGarbage;
    other.state = State::kReady;
  }
  warp.waiting &= ~group;
  return true;
}

std::string Block::describe(const Thread& thread) const {
  std::ostringstream text;
  text << "thread (" << thread.index.x << ", " << thread.index.y << ", " << thread.index.z << ") ";
  if (thread.state == State::kExited) {
    text << "has ended";
  } else {
    text << "waits in " << thread.site.operation << " at " << thread.site.file << ':'
         << thread.site.line << " (" << thread.site.function << ")";
    if (thread.state == State::kAtWarp) text << " with mask 0x" << std::hex << thread.mask;
  }
  return text.str();
}

// One line per group of threads that wait in the same place.
std::string Block::deadlock() const {
  std::ostringstream text;
  text << "deadlock: no thread of the block can go on";
  const Thread* previous = nullptr;
  int groups = 0;
  for (const Thread& thread : threads_) {
    const bool same = previous != nullptr && previous->state == thread.state &&
                      previous->site.line == thread.site.line && previous->mask == thread.mask;
    previous = &thread;
    if (same) continue;
    if (++groups > 8) {
      text << "\n  ...";
      break;
    }
    text << "\n  from " << describe(thread);
  }
  return text.str();
}

dim3 blockAt(std::uint64_t i, dim3 grid) {
  const std::uint64_t row = i / grid.x;
  return dim3(static_cast<unsigned>(i % grid.x), static_cast<unsigned>(row % grid.y),
              static_cast<unsigned>(row / grid.y));
}

}  // namespace

void runGrid(const Grid& launched, const Schedule& schedule) {
  static Block state;  // keeps the stacks of its fibers
  struct Active {
    Active() { active = &state; }
    ~Active() { active = nullptr; }
  } guard;
  const dim3 grid = gridDim = launched.grid;
  blockDim = launched.block;
  const std::uint64_t count = std::uint64_t{grid.x} * grid.y * grid.z;
  Permuter permuter(schedule.seed);
  std::vector<int> order;
  permuter.fill(order, static_cast<int>(count), schedule.blocks);
  spoilSharedMemory();
  for (const int i : order) {
    spoilSharedMemoryOf(launched.kernel);
    const dim3 index = blockAt(static_cast<std::uint64_t>(i), grid);
    try {
      state.run(index, launched, schedule.threads, permuter);
    } catch (const Fault& fault) {
      throw Fault("kernel " + functionName(launched.kernel) + ", block (" +
                  std::to_string(index.x) + ", " + std::to_string(index.y) + ", " +
                  std::to_string(index.z) + "): " + fault.what());
    }
  }
}

Votes blockBarrier(bool predicate, const Site& site) {
  return activeBlock(site.operation).barrier(predicate, site);
}

std::uint64_t warpCollective(WarpOperation operation, unsigned mask, std::uint64_t value,
                             int source, const Site& site) {
  return activeBlock(site.operation).collective(operation, mask, value, source, site);
}

int laneIndex() {
  return activeBlock("a warp operation").current().lane;
}

unsigned activeLanes() {
  return 1u << laneIndex();
}

void reportMisuse(const Site& site, const char* why) {
  throw Fault(std::string(site.operation) + " at " + site.file + ':' + std::to_string(site.line) +
              " (" + site.function + "): " + why);
}

void reportMisaligned(const char* type, unsigned alignment) {
  throw Fault(std::string("misaligned address: a ") + type +
              " is read or written with one instruction, at a multiple of " +
              std::to_string(alignment) + " bytes");
}

}  // namespace loko::emulation

void cudaGridDependencySynchronize() {
  loko::emulation::activeBlock("cudaGridDependencySynchronize").await();
  loko::emulation::openMemory();
}

long long clock64() {
  return std::chrono::steady_clock::now().time_since_epoch().count();
}
