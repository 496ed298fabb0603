#pragma once

// The program's own symbol table, read once: the only place that knows the names of kernels in
// unnamed namespaces, and of variables inside functions. Empty where there is no such table (not
// Linux, or a stripped program).

#include <cstddef>
#include <string>
#include <vector>

namespace loko::emulation {

/// The mangled name of the function at `address`, or "".
std::string mangledName(const void* address);

/// The demangled name of the function at `address`; the address in hexadecimal where it is unknown.
std::string functionName(const void* address);

/// A thread-local variable that is declared in a function.
struct LocalVariable {
  std::string mangled;
  std::ptrdiff_t offset;  // from threadLocalAnchor
  std::size_t bytes;
};
const std::vector<LocalVariable>& threadLocalVariables();

/// A variable of the calling thread at a known place among the others.
char* threadLocalAnchor();

}  // namespace loko::emulation
