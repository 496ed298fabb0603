#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#include "cpu/pool.h"

namespace loko::cpu {

#if defined(__linux__)

namespace {

std::string readLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::vector<int> affinityCpus() {
  std::vector<int> cpus;
  // The kernel refuses masks that are smaller than its own; grow until it accepts.
  for (int count = 1024; count <= 1 << 18; count *= 4) {
    cpu_set_t* set = CPU_ALLOC(static_cast<std::size_t>(count));
    if (set == nullptr) break;
    const std::size_t size = CPU_ALLOC_SIZE(static_cast<std::size_t>(count));
    const bool known = sched_getaffinity(0, size, set) == 0;
    for (int cpu = 0; known && cpu < count; ++cpu)
      if (CPU_ISSET_S(static_cast<std::size_t>(cpu), size, set)) cpus.push_back(cpu);
    CPU_FREE(set);
    if (known) break;
  }
  return cpus;
}

// Hardware threads of one core share the string that lists them.
int physicalCores(const std::vector<int>& cpus, const std::string& root) {
  std::set<std::string> cores;
  for (const int cpu : cpus) {
    const std::string name = std::to_string(cpu);
    const std::string siblings =
        readLine(root + "/sys/devices/system/cpu/cpu" + name + "/topology/thread_siblings_list");
    cores.insert(siblings.empty() ? "cpu" + name : siblings);
  }
  return static_cast<int>(cores.size());
}

double quotaOfV2(const std::string& folder) {
  std::istringstream line(readLine(folder + "/cpu.max"));
  double quota = 0;
  double period = 0;
  return line >> quota >> period && period > 0 ? quota / period : INFINITY;  // "max" is no number
}

double quotaOfV1(const std::string& folder) {
  std::istringstream quotaLine(readLine(folder + "/cpu.cfs_quota_us"));
  std::istringstream periodLine(readLine(folder + "/cpu.cfs_period_us"));
  double quota = 0;
  double period = 0;
  return quotaLine >> quota && periodLine >> period && quota > 0 && period > 0 ? quota / period
                                                                               : INFINITY;
}

// The smallest quota of the group and its ancestors up to the mount point, which inside a container
// is the group itself.
template <typename Quota>
double smallestQuota(const std::string& mount, std::string group, Quota quota) {
  double smallest = quota(mount);
  while (group.size() > 1) {
    smallest = std::min(smallest, quota(mount + group));
    group.resize(group.rfind('/'));
  }
  return smallest;
}

// CPUs that the control groups of this process grant; infinite without a limit.
double grantedCpus(const std::string& root) {
  double granted = INFINITY;
  std::ifstream groups(root + "/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    // hierarchy:controllers:/group
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos || line[second + 1] != '/')
      continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string group = line.substr(second + 1);
    if (controllers.empty())
      granted = std::min(granted, smallestQuota(root + "/sys/fs/cgroup", group, quotaOfV2));
    else if (("," + controllers + ",").find(",cpu,") != std::string::npos)
      granted = std::min(granted, smallestQuota(root + "/sys/fs/cgroup/cpu", group, quotaOfV1));
  }
  return granted;
}

}  // namespace

int defaultThreads(const std::string& root) {
  int cores = physicalCores(affinityCpus(), root);
  if (cores == 0) cores = static_cast<int>(std::thread::hardware_concurrency());
  // Rounded down: a thread more than the quota pays for gets the whole group throttled.
  const double granted = std::min(grantedCpus(root), static_cast<double>(ThreadPool::kMaxThreads));
  return std::max(1, std::min(cores, static_cast<int>(granted)));
}

#else

int defaultThreads(const std::string&) {
  int cores = 0;
#if defined(__APPLE__)
  std::size_t size = sizeof cores;
  if (sysctlbyname("hw.perflevel0.physicalcpu", &cores, &size, nullptr, 0) != 0)
    sysctlbyname("hw.physicalcpu", &cores, &size, nullptr, 0);
#endif
  if (cores <= 0) cores = static_cast<int>(std::thread::hardware_concurrency());
  return std::max(1, std::min(cores, ThreadPool::kMaxThreads));
}

#endif

}  // namespace loko::cpu
