#pragma once

// Where cuBLASLt is looked for. The library is 542 MB and comes with a CUDA toolkit, a PyTorch wheel or
// conda; it is not linked, so that one addon serves machines with and without it.

#include <functional>
#include <string>
#include <vector>

#include "cuda/cublaslt_api.h"

namespace loko::cuda {

/// What a search tried, in order, and what became of each: the loader's message, or why not trusted.
struct SearchReport {
  struct Attempt {
    std::string place;
    std::string problem;  // empty: this one is used
  };
  std::vector<Attempt> attempts;
  bool demanded = false;  // LOKO_CUBLASLT names one: only that is tried, and a failure is an error
  bool disabled = false;  // LOKO_CUBLASLT=off: our own products
  std::string path;       // of what is used; empty: none
  int version = 0;        // 130101 is 13.1.1; 0: none

  /// One line per attempt.
  std::string text() const;
};

/// What a search depends on besides the file system.
struct SearchEnvironment {
  std::function<const char*(const char* name)> variable;  // getenv
  std::string packageFolder;                              // of the addon's file

  static SearchEnvironment ofThisProcess();
};

/// A candidate: a path or a bare soname for dlopen.
struct SearchPlace {
  std::string name;
  int major;            // that the name promises; 0: whichever it is
  bool loaded = false;  // only if it is in the process already
};

/// All candidates, best first. Version 13 everywhere before version 12 anywhere: 13 is what we were
/// compiled beside.
std::vector<SearchPlace> searchPlaces(const SearchEnvironment& environment);

/// Gives the first candidate that `accept` takes. `accept` has the functions and the path, and says in
/// `problem` why not. False where none was taken. Libraries that were opened stay mapped: unloading
/// one that has met a device is not safe.
bool searchCublasLt(const SearchEnvironment& environment, SearchReport& report,
                    const std::function<bool(const CublasLtApi&, const std::string& path,
                                             std::string& problem)>& accept);

}  // namespace loko::cuda
