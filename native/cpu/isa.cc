#include "cpu/isa.h"

#include <cstdlib>

#include "core/status.h"
#include "cpu/kernels_table.h"

namespace loko::cpu {

namespace {

bool isAvailable(Isa isa) {
#if defined(__x86_64__)
  // The compiler's run-time check reads CPUID and XGETBV: the operating system must save the wide
  // registers too.
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (isa == Isa::kAvx2) return avx2;
  if (isa == Isa::kAvx512)
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif
  return isa == Isa::kGeneric;
}

std::string availableNames() {
  std::string names;
  for (const Isa isa : availableIsas())
    names += (names.empty() ? "" : ", ") + std::string(isaName(isa));
  return names;
}

}  // namespace

const char* isaName(Isa isa) {
  switch (isa) {
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
  for (const Isa isa : {Isa::kGeneric, Isa::kAvx2, Isa::kAvx512})
    if (isAvailable(isa)) isas.push_back(isa);
  return isas;
}

Isa chooseIsa() {
  const char* forced = std::getenv("LOKO_CPU_ISA");
  if (forced == nullptr || *forced == '\0') return availableIsas().back();
  for (const Isa isa : {Isa::kGeneric, Isa::kAvx2, Isa::kAvx512})
    if (forced == std::string(isaName(isa)) && isAvailable(isa)) return isa;
  throw Error(ErrorCode::kOption,
              "LOKO_CPU_ISA must be one of the instruction sets available here (" +
                  availableNames() + "), got \"" + forced + "\". Unset it to use the widest one.");
}

const Kernels& kernels(Isa isa) {
  if (!isAvailable(isa))
    throw Error(ErrorCode::kUnsupported, std::string("This machine has no kernels for ") +
                                             isaName(isa) + "; available: " + availableNames());
#if defined(__x86_64__)
  if (isa == Isa::kAvx512) return kAvx512Kernels;
  if (isa == Isa::kAvx2) return kAvx2Kernels;
#endif
  return kGenericKernels;
}

}  // namespace loko::cpu
