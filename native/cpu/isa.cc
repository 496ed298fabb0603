#include "cpu/isa.h"

#include <cstdint>
#include <cstdlib>

#if defined(__linux__) && defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "core/status.h"
#include "cpu/kernels_table.h"

namespace loko::cpu {

namespace {

#if defined(__linux__) && defined(__x86_64__)
constexpr int kTileData = 18;  // XFEATURE_XTILEDATA

bool hasTiles() {
  constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;
  constexpr long kGetSupported = 0x1021;  // ARCH_GET_XCOMP_SUPP
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  if ((d & kAmxBf16) == 0 || (d & kAmxTile) == 0) return false;
  std::uint64_t features = 0;
  return syscall(SYS_arch_prctl, kGetSupported, &features) == 0 && (features >> kTileData & 1) != 0;
}

// Linux gives a process the tile registers on request, for good, and refuses where a thread has an alternate
// signal stack that could not hold them. From then on it refuses such stacks: 8 KB, once SIGSTKSZ, are too few.
// A thread's own state grows by 8 KB when it first uses a tile.
bool mayUseTiles() {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  static const bool granted =
      hasTiles() && syscall(SYS_arch_prctl, kRequestPermission, long{kTileData}) == 0;
  return granted;
}
#else
[[maybe_unused]] bool hasTiles() {
  return false;
}
bool mayUseTiles() {
  return false;
}
#endif

// The instruction set that LOKO_CPU_ISA names, or nothing.
std::string forcedName() {
  const char* forced = std::getenv("LOKO_CPU_ISA");
  return forced == nullptr ? "" : forced;
}

// Another instruction set is named: tiles are listed where they exist, and not asked for.
[[maybe_unused]] bool shunsTiles() {
  const std::string forced = forcedName();
  return !forced.empty() && forced != isaName(Isa::kAmx);
}

constexpr Isa kAllIsas[] = {Isa::kGeneric, Isa::kAvx2, Isa::kAvx512, Isa::kAmx};

bool isAvailable(Isa isa) {
#if defined(__x86_64__)
  // The compiler's run-time check reads CPUID and XGETBV: the operating system must save the wide
  // registers too.
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (isa == Isa::kAvx2) return avx2;
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  if (isa == Isa::kAvx512) return avx512;
  if (isa == Isa::kAmx) return avx512 && (shunsTiles() ? hasTiles() : mayUseTiles());
#endif
  return isa == Isa::kGeneric;
}

#if defined(__linux__) && defined(__x86_64__)
Kernels amxKernels() {
  Kernels kernels = kAvx512Kernels;
  kernels.name = isaName(Isa::kAmx);
  kernels.split = &kAmxKernels;
  return kernels;
}
#endif

std::string availableNames() {
  std::string names;
  for (const Isa isa : availableIsas())
    names += (names.empty() ? "" : ", ") + std::string(isaName(isa));
  return names;
}

}  // namespace

const char* isaName(Isa isa) {
  switch (isa) {
    case Isa::kAmx:
      return "amx";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kGeneric:
      break;
  }
  return "generic";
}

std::vector<Isa> availableIsas() {
  std::vector<Isa> isas;
  for (const Isa isa : kAllIsas)
    if (isAvailable(isa)) isas.push_back(isa);
  return isas;
}

Isa chooseIsa() {
  const std::string forced = forcedName();
  if (forced.empty()) return availableIsas().back();
  for (const Isa isa : kAllIsas)
    if (forced == isaName(isa) && isAvailable(isa)) return isa;
  throw Error(ErrorCode::kOption,
              "LOKO_CPU_ISA must be one of the instruction sets available here (" +
                  availableNames() + "), got \"" + forced + "\". Unset it to use the widest one.");
}

const Kernels& kernels(Isa isa) {
  if (!isAvailable(isa) || (isa == Isa::kAmx && !mayUseTiles()))
    throw Error(ErrorCode::kUnsupported, std::string("This machine has no kernels for ") +
                                             isaName(isa) + "; available: " + availableNames());
#if defined(__linux__) && defined(__x86_64__)
  static const Kernels amx = amxKernels();
  if (isa == Isa::kAmx) return amx;
#endif
#if defined(__x86_64__)
  if (isa == Isa::kAvx512) return kAvx512Kernels;
  if (isa == Isa::kAvx2) return kAvx2Kernels;
#endif
  return kGenericKernels;
}

}  // namespace loko::cpu
