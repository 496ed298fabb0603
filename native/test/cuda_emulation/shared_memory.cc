#include "shared_memory.h"

#include <cstddef>
#include <cstring>
#include <string>
#include <unordered_map>
#include <vector>

#include "symbols.h"

namespace loko::emulation {
namespace {

void spoil(const LocalVariable& variable) {
  std::memset(threadLocalAnchor() + variable.offset, 0xff, variable.bytes);
}

std::vector<LocalVariable> variablesOfProject() {
  std::vector<LocalVariable> all;
  for (const LocalVariable& variable : threadLocalVariables())
    if (variable.mangled.rfind("_ZZN4loko4cuda", 0) == 0 ||
        variable.mangled.rfind("_ZZNK4loko4cuda", 0) == 0)
      all.push_back(variable);
  return all;
}

// _ZN1a1bEv is a function, _ZZN1a1bEvE1x the variable x in it.
std::vector<LocalVariable> variablesOf(const void* kernel) {
  std::vector<LocalVariable> own;
  const std::string name = mangledName(kernel);
  if (name.size() < 2) return own;
  const std::string prefix = "_ZZ" + name.substr(2) + "E";
  for (const LocalVariable& variable : threadLocalVariables())
    if (variable.mangled.rfind(prefix, 0) == 0) own.push_back(variable);
  return own;
}

const std::vector<LocalVariable>& cachedVariablesOf(const void* kernel) {
  static std::unordered_map<const void*, std::vector<LocalVariable>> cache;  // device lock
  const auto found = cache.find(kernel);
  return found != cache.end() ? found->second
                              : cache.emplace(kernel, variablesOf(kernel)).first->second;
}

}  // namespace

void spoilSharedMemory() {
  static const std::vector<LocalVariable> all = variablesOfProject();
  for (const LocalVariable& variable : all) spoil(variable);
}

void spoilSharedMemoryOf(const void* kernel) {
  for (const LocalVariable& variable : cachedVariablesOf(kernel)) spoil(variable);
}

bool spoilsSharedMemory() {
#if defined(__SANITIZE_ADDRESS__)
  return false;
#else
  return !threadLocalVariables().empty();
#endif
}

}  // namespace loko::emulation
