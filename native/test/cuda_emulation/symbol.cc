#include "symbol.h"

#include <cxxabi.h>
#include <dlfcn.h>

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <sstream>
#include <string_view>
#include <vector>

#if defined(__linux__)
#include <elf.h>
#include <link.h>
#endif

namespace loko::emulation {
namespace {

std::string demangled(const char* name) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(
      abi::__cxa_demangle(name, nullptr, nullptr, &status), std::free);
  return status == 0 ? std::string(text.get()) : std::string(name);
}

#if defined(__linux__)
// The function that starts at `address` in a file loaded at `base`, or "".
std::string symbolAt(const std::string& image, std::uintptr_t address, std::uintptr_t base) {
  if (image.size() < sizeof(ElfW(Ehdr)) || std::string_view(image).substr(0, 4) != ELFMAG)
    return "";
  const auto& header = *reinterpret_cast<const ElfW(Ehdr)*>(image.data());
  const std::uintptr_t offset = header.e_type == ET_EXEC ? address : address - base;
  const auto* sections = reinterpret_cast<const ElfW(Shdr)*>(image.data() + header.e_shoff);
  for (int i = 0; i < header.e_shnum; ++i) {
    if (sections[i].sh_type != SHT_SYMTAB) continue;
    const auto* symbols = reinterpret_cast<const ElfW(Sym)*>(image.data() + sections[i].sh_offset);
    const char* names = image.data() + sections[sections[i].sh_link].sh_offset;
    for (std::size_t s = 0; s < sections[i].sh_size / sizeof(ElfW(Sym)); ++s)
      if ((symbols[s].st_info & 0xf) == STT_FUNC && symbols[s].st_value == offset)
        return names + symbols[s].st_name;
  }
  return "";
}
#endif

}  // namespace

std::string symbolName(const void* address) {
  std::string name;
  Dl_info info{};
  if (dladdr(address, &info) != 0) {
    if (info.dli_sname != nullptr && info.dli_saddr == address) name = info.dli_sname;
#if defined(__linux__)
    if (name.empty()) {
      std::ifstream file(info.dli_fname, std::ios::binary);
      const std::string image((std::istreambuf_iterator<char>(file)), {});
      name = symbolAt(image, reinterpret_cast<std::uintptr_t>(address),
                      reinterpret_cast<std::uintptr_t>(info.dli_fbase));
    }
#endif
  }
  if (!name.empty()) return demangled(name.c_str());
  std::ostringstream text;
  text << "at " << address;
  return text.str();
}

}  // namespace loko::emulation
