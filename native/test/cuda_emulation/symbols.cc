#include "symbols.h"

#include <cxxabi.h>

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>
#include <unordered_map>

#if defined(__linux__)
#include <elf.h>
#include <link.h>
#endif

extern "C" {
thread_local char lokoEmulationAnchor;
}

namespace loko::emulation {
namespace {

struct SymbolTable {
  std::unordered_map<std::uintptr_t, std::string> functions;  // by address in this process
  std::vector<LocalVariable> locals;
};

#if defined(__linux__)
// The program is the first object that the loader lists.
std::uintptr_t loadAddress() {
  std::uintptr_t address = 0;
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* result) {
        *static_cast<std::uintptr_t*>(result) = info->dlpi_addr;
        return 1;
      },
      &address);
  return address;
}

void readSymbols(SymbolTable& table, const ElfW(Sym) * symbols, std::size_t count,
                 const char* names) {
  const std::uintptr_t base = loadAddress();
  std::ptrdiff_t anchor = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const ElfW(Sym)& symbol = symbols[i];
    const char* name = names + symbol.st_name;
    const int type = symbol.st_info & 0xf;
    if (type == STT_FUNC && symbol.st_value != 0)
      table.functions.emplace(base + symbol.st_value, name);
    if (type != STT_TLS) continue;
    const auto offset = static_cast<std::ptrdiff_t>(symbol.st_value);
    const std::string mangled = name;
    if (mangled == "lokoEmulationAnchor") anchor = offset;
    // _ZZ: a name in the scope of a function.
    if (mangled.rfind("_ZZ", 0) == 0) table.locals.push_back({mangled, offset, symbol.st_size});
  }
  for (LocalVariable& variable : table.locals) variable.offset -= anchor;
}

SymbolTable readTable() {
  SymbolTable table;
  std::ifstream file("/proc/self/exe", std::ios::binary | std::ios::ate);
  // At once: a build for a sanitizer has hundreds of megabytes.
  std::string image(file ? static_cast<std::size_t>(file.tellg()) : 0, '\0');
  file.seekg(0);
  file.read(image.data(), static_cast<std::streamsize>(image.size()));
  if (image.size() < sizeof(ElfW(Ehdr)) || image.compare(0, SELFMAG, ELFMAG) != 0) return table;
  const auto& header = *reinterpret_cast<const ElfW(Ehdr)*>(image.data());
  const auto* sections = reinterpret_cast<const ElfW(Shdr)*>(image.data() + header.e_shoff);
  for (int i = 0; i < header.e_shnum; ++i) {
    const ElfW(Shdr)& section = sections[i];
    if (section.sh_type != SHT_SYMTAB) continue;
    readSymbols(table, reinterpret_cast<const ElfW(Sym)*>(image.data() + section.sh_offset),
                section.sh_size / sizeof(ElfW(Sym)),
                image.data() + sections[section.sh_link].sh_offset);
  }
  return table;
}
#else
SymbolTable readTable() {
  return {};
}
#endif

const SymbolTable& symbols() {
  static const SymbolTable table = readTable();
  return table;
}

}  // namespace

std::string mangledName(const void* address) {
  const auto found = symbols().functions.find(reinterpret_cast<std::uintptr_t>(address));
  return found == symbols().functions.end() ? "" : found->second;
}

std::string functionName(const void* address) {
  const std::string mangled = mangledName(address);
  if (mangled.empty()) {
    std::ostringstream text;
    text << "at " << address;
    return text.str();
  }
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(
      abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status), std::free);
  return status == 0 ? std::string(text.get()) : mangled;
}

const std::vector<LocalVariable>& threadLocalVariables() {
  return symbols().locals;
}

char* threadLocalAnchor() {
  return &lokoEmulationAnchor;
}

}  // namespace loko::emulation
