#pragma once

// Names of functions that the dynamic linker does not know: kernels in unnamed namespaces.

#include <string>

namespace loko::emulation {

/// The demangled name of the function at `address`, from the program's own symbol table; the address
/// in hexadecimal where there is none.
std::string symbolName(const void* address);

}  // namespace loko::emulation
