// Where cuBLASLt is looked for: with libraries that have its names and nothing behind them
// (cublaslt_stub.cc, compiled into LOKO_CUBLASLT_STUBS).

#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include "core/status.h"
#include "cuda/cublaslt.h"

namespace loko::cuda {
namespace {

const std::string kStubs = LOKO_CUBLASLT_STUBS;

SearchEnvironment environmentOf(std::map<std::string, std::string> variables) {
  SearchEnvironment environment;
  environment.variable = [variables = std::move(variables)](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  };
  environment.packageFolder = "/package";
  return environment;
}

bool acceptAll(const CublasLtApi&, const std::string&, std::string&) {
  return true;
}

/// A folder that is empty at first and gone at the end.
struct TemporaryFolder {
  std::string path;
  TemporaryFolder() {
    char name[] = "/tmp/loko-cublaslt-XXXXXX";
    REQUIRE(mkdtemp(name) != nullptr);
    path = name;
  }
  ~TemporaryFolder() { std::system(("rm -rf '" + path + "'").c_str()); }
  std::string make(const std::string& below) const {
    std::string folder = path;
    for (std::size_t begin = 0; begin < below.size();) {
      const std::size_t end = std::min(below.find('/', begin), below.size());
      folder += "/" + below.substr(begin, end - begin);
      mkdir(folder.c_str(), 0700);
      begin = end + 1;
    }
    return folder;
  }
};

TEST_CASE("cuBLASLt is looked for in the documented order, version 13 everywhere before 12") {
  const TemporaryFolder venv;
  venv.make("lib/python3.12/site-packages");
  venv.make("lib/python3.9/site-packages");
  std::vector<std::string> names;
  for (const SearchPlace& place :
       searchPlaces(environmentOf({{"VIRTUAL_ENV", venv.path}, {"CUDA_PATH", "/toolkit"}}))) {
    names.push_back((place.loaded ? "loaded:" : "") + place.name);
  }
  const std::string lib = venv.path + "/lib";
  const std::vector<std::string> expected = {
      "loaded:libcublasLt.so.13",
      lib + "/python3.12/site-packages/nvidia/cu13/lib/libcublasLt.so.13",
      lib + "/python3.9/site-packages/nvidia/cu13/lib/libcublasLt.so.13",
      lib + "/libcublasLt.so.13",
      "libcublasLt.so.13",
      "/toolkit/lib64/libcublasLt.so.13",
      "/usr/local/cuda/lib64/libcublasLt.so.13",
      "/usr/local/cuda-13/lib64/libcublasLt.so.13",
      "/opt/cuda/lib64/libcublasLt.so.13",
      "/package/libcublasLt.so.13",
      "loaded:libcublasLt.so.12",
      lib + "/python3.12/site-packages/nvidia/cublas/lib/libcublasLt.so.12",
      lib + "/python3.9/site-packages/nvidia/cublas/lib/libcublasLt.so.12",
      lib + "/libcublasLt.so.12",
      "libcublasLt.so.12",
      "/toolkit/lib64/libcublasLt.so.12",
      "/usr/local/cuda/lib64/libcublasLt.so.12",
      "/usr/local/cuda-12/lib64/libcublasLt.so.12",
      "/opt/cuda/lib64/libcublasLt.so.12",
      "/package/libcublasLt.so.12",
  };
  CHECK(names == expected);
}

TEST_CASE("LOKO_CUBLASLT names a file or a folder, and nothing else is tried then") {
  for (const char* name : {"/13", "/13/libcublasLt.so.13", "/12"}) {
    SearchReport report;
    CHECK(searchCublasLt(environmentOf({{"LOKO_CUBLASLT", kStubs + name}}), report, acceptAll));
    CHECK(report.demanded);
    const bool twelve = name == std::string("/12");
    CHECK(report.version == (twelve ? 120805 : 130101));
    CHECK(report.path.find(kStubs + (twelve ? "/12/" : "/13/")) == 0);
    CHECK(report.attempts.back().problem.empty());
  }
  SearchReport report;
  CHECK_FALSE(
      searchCublasLt(environmentOf({{"LOKO_CUBLASLT", "/nowhere/lt.so"}}), report, acceptAll));
  REQUIRE(report.attempts.size() == 1);
  CHECK(report.attempts[0].place == "/nowhere/lt.so");
  CHECK(report.attempts[0].problem == "cannot open shared object file: No such file or directory");
  CHECK(report.text() == "  - /nowhere/lt.so: " + report.attempts[0].problem + "\n");
}

TEST_CASE("LOKO_CUBLASLT=off tries nothing") {
  SearchReport report;
  CHECK_FALSE(searchCublasLt(environmentOf({{"LOKO_CUBLASLT", "off"}}), report, acceptAll));
  CHECK(report.disabled);
  CHECK_FALSE(report.demanded);
  CHECK(report.attempts.empty());
}

TEST_CASE("a cuBLASLt that is refused is passed over for the next, with the reason") {
  // Of the toolkit folders only these two exist on every machine that runs the tests.
  const SearchEnvironment environment =
      environmentOf({{"CUDA_HOME", kStubs + "/home"}, {"CUDA_PATH", kStubs + "/home"}});
  SearchReport report;
  const bool found = searchCublasLt(
      environment, report, [](const CublasLtApi& api, const std::string&, std::string& problem) {
        problem = "element 0 is wrong";
        return api.getVersion() / 10000 == 12;
      });
  CHECK(found);
  CHECK(report.version == 120805);
  int refused = 0;
  for (const SearchReport::Attempt& attempt : report.attempts) {
    refused += attempt.problem == "element 0 is wrong" ? 1 : 0;
  }
  CHECK(refused >= 2);  // version 13, once under each variable
  CHECK(report.attempts.back().place == kStubs + "/home/lib64/libcublasLt.so.12");
}

TEST_CASE("a library of another version, or without a function, is named as such") {
  const auto problemOf = [](const std::string& file) {
    SearchReport report;
    CHECK_FALSE(
        searchCublasLt(environmentOf({{"LOKO_CUBLASLT", kStubs + file}}), report, acceptAll));
    return report.attempts.at(0).problem;
  };
  CHECK(problemOf("/11/libcublasLt.so.11") == "is version 110500; 13 and 12 are supported");
  CHECK(problemOf("/incomplete/libcublasLt.so.13") == "has no cublasLtMatmul");
  CHECK(problemOf("/misnamed") == "is version 120805, not 13");
}

TEST_CASE("a library that cannot make a handle is a coded error, not the end of the process") {
  SearchReport report;
  CublasLtApi found = {};
  searchCublasLt(environmentOf({{"LOKO_CUBLASLT", kStubs + "/13"}}), report,
                 [&](const CublasLtApi& api, const std::string&, std::string&) {
                   found = api;
                   return true;
                 });
  try {
    const CublasLt lt(found);
    FAIL("no error");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kCublasUnavailable);
    CHECK(std::string(error.what()) == "cublasLtCreate failed: CUBLAS_STATUS_NOT_INITIALIZED (1)");
  }
}

}  // namespace
}  // namespace loko::cuda
