#include "cpu/pool.h"

#include <doctest/doctest.h>

#if defined(__linux__)
#include <sched.h>
#endif
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "core/status.h"

namespace {

using loko::cpu::defaultThreads;
using loko::cpu::ThreadPool;

template <typename Fn>
std::string messageOf(Fn&& fn) {
  try {
    fn();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

// A folder with the /proc and /sys files of a machine.
class FakeRoot {
 public:
  FakeRoot()
      : root_(std::filesystem::temp_directory_path() /
              ("loko-pool-test-" + std::to_string(::getpid()))) {
    std::filesystem::remove_all(root_);
    std::filesystem::create_directories(root_);
  }
  ~FakeRoot() { std::filesystem::remove_all(root_); }
  void write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = root_ / path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text << '\n';
  }
  std::string text() const { return root_.string(); }

 private:
  std::filesystem::path root_;
};

}  // namespace

TEST_CASE("a pool runs every part exactly once, 10,000 regions in a row") {
  for (const int threads : {1, 2, 3, 5}) {
    ThreadPool pool(threads);
    std::vector<int> counts(static_cast<std::size_t>(threads), 0);
    for (int region = 0; region < 10000; ++region)
      pool.run([&](int part, int parts) {
        if (parts == threads) ++counts[static_cast<std::size_t>(part)];
      });
    for (const int count : counts) CHECK(count == 10000);
  }
}

TEST_CASE("part i always runs on the same thread, and part 0 on the caller") {
  ThreadPool pool(3);
  std::vector<std::thread::id> first(3), now(3);
  pool.run(
      [&](int part, int) { first[static_cast<std::size_t>(part)] = std::this_thread::get_id(); });
  CHECK(first[0] == std::this_thread::get_id());
  for (int region = 0; region < 100; ++region) {
    pool.run(
        [&](int part, int) { now[static_cast<std::size_t>(part)] = std::this_thread::get_id(); });
    CHECK(now == first);
  }
}

TEST_CASE("regions of changing width, with sleeps between them, lose no part") {
  ThreadPool pool(4);
  for (int region = 0; region < 400; ++region) {
    std::atomic<int> sum{0};
    const int parts = 1 + region % 4;
    pool.run([&](int part, int total) { sum += total == parts ? part + 1 : 1000; }, parts);
    CHECK(sum == parts * (parts + 1) / 2);
    // Longer than the spin, so that the workers are asleep when the next region comes.
    if (region % 8 == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
}

TEST_CASE("the exception of the lowest part reaches the caller after all parts have ended") {
  ThreadPool pool(3);
  for (int region = 0; region < 200; ++region) {
    std::atomic<int> ended{0};
    const std::string message = messageOf([&] {
      pool.run([&](int part, int) {
        ++ended;
        if (part >= 1) throw std::runtime_error("part " + std::to_string(part));
      });
    });
    CHECK(message == "part 1");
    CHECK(ended == 3);
  }
  int calls = 0;
  pool.run([&](int part, int) {
    if (part == 0) ++calls;
  });
  CHECK(calls == 1);
}

TEST_CASE("a nested region is refused and the pool stays usable") {
  for (const int threads : {1, 2}) {
    ThreadPool pool(threads);
    const std::string message =
        messageOf([&] { pool.run([&](int, int) { pool.run([](int, int) {}); }); });
    CHECK(message.find("do not nest") != std::string::npos);
    std::atomic<int> parts{0};
    pool.run([&](int, int) { ++parts; });
    CHECK(parts == threads);
  }
}

TEST_CASE("pools of several threads work at the same time on an oversubscribed machine") {
  std::vector<std::thread> callers;
  std::atomic<long> total{0};
  for (int i = 0; i < 4; ++i)
    callers.emplace_back([&total] {
      ThreadPool pool(3);
      long sums[3] = {0, 0, 0};
      for (int region = 0; region < 500; ++region)
        pool.run([&](int part, int) { sums[part] += part + 1; });
      total += sums[0] + sums[1] + sums[2];
    });
  for (std::thread& caller : callers) caller.join();
  CHECK(total == 4 * 500 * 6);
}

TEST_CASE("an idle pool uses no processor time") {
  ThreadPool pool(3);
  pool.run([](int, int) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const std::clock_t before = std::clock();
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  // Spinning workers would have used 200 ms.
  CHECK(std::clock() - before < CLOCKS_PER_SEC / 50);
}

TEST_CASE("pools are created and destroyed without a region") {
  for (int i = 0; i < 50; ++i) ThreadPool pool(1 + i % 4);
}

TEST_CASE("a pool of an impossible size is refused with the allowed range") {
  for (const int threads : {0, -1, ThreadPool::kMaxThreads + 1}) {
    try {
      ThreadPool pool(threads);
      FAIL("expected an error");
    } catch (const loko::Error& error) {
      CHECK(error.code() == loko::ErrorCode::kOption);
      CHECK(std::string(error.what()).find("from 1 to 1024, got " + std::to_string(threads)) !=
            std::string::npos);
    }
  }
}

TEST_CASE("the default number of threads is at least one and at most the hardware threads") {
  CHECK(defaultThreads() >= 1);
  CHECK(defaultThreads() <= static_cast<int>(std::thread::hardware_concurrency()));
}

#if defined(__linux__)

TEST_CASE("hardware threads of one core count once") {
  FakeRoot root;
  cpu_set_t set;
  REQUIRE(sched_getaffinity(0, sizeof set, &set) == 0);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &set))
      root.write(
          "sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list",
          "0-1023");
  CHECK(defaultThreads(root.text()) == 1);
}

TEST_CASE("a quota of control groups limits the threads, in both versions and in every ancestor") {
  if (std::thread::hardware_concurrency() < 2) {
    MESSAGE("not tested: one hardware thread");
    return;
  }
  const int cores = defaultThreads(FakeRoot().text());  // without any group

  FakeRoot v2;
  v2.write("proc/self/cgroup", "0::/a/b");
  v2.write("sys/fs/cgroup/a/b/cpu.max", "max 100000");
  CHECK(defaultThreads(v2.text()) == cores);
  v2.write("sys/fs/cgroup/a/cpu.max", "190000 100000");
  CHECK(defaultThreads(v2.text()) == 1);

  FakeRoot v1;
  v1.write("proc/self/cgroup", "5:memory:/m\n3:cpu,cpuacct:/docker/x");
  v1.write("sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us", "-1");
  v1.write("sys/fs/cgroup/cpu/docker/x/cpu.cfs_period_us", "100000");
  CHECK(defaultThreads(v1.text()) == cores);
  v1.write("sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us", "50000");
  CHECK(defaultThreads(v1.text()) == 1);

  FakeRoot container;  // sees its own group as the mount point, under a path that it cannot see
  container.write("proc/self/cgroup", "0::/docker/unseen");
  container.write("sys/fs/cgroup/cpu.max", "100000 100000");
  CHECK(defaultThreads(container.text()) == 1);
}

#endif
