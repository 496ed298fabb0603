#include "cuda/cublaslt_library.h"

#include <dirent.h>
#include <dlfcn.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>

namespace loko::cuda {

namespace {

constexpr int kMajors[] = {13, 12};

std::string soname(int major) {
  return "libcublasLt.so." + std::to_string(major);
}

std::string valueOf(const SearchEnvironment& environment, const char* name) {
  const char* value = environment.variable(name);
  return value == nullptr ? "" : value;
}

bool isFolder(const std::string& path) {
  struct stat status = {};
  return stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

/// The site-packages of the Python versions below a virtual environment, in alphabetical order.
std::vector<std::string> sitePackages(const std::string& prefix) {
  std::vector<std::string> folders;
  const std::string lib = prefix + "/lib";
  if (DIR* directory = opendir(lib.c_str())) {
    while (const dirent* entry = readdir(directory)) {
      const std::string_view name = entry->d_name;
      if (name.substr(0, 7) == "python3") {
        folders.push_back(lib + "/" + std::string(name) + "/site-packages");
      }
    }
    closedir(directory);
  }
  std::sort(folders.begin(), folders.end());
  return folders;
}

/// The folders of wheels and of conda's own packages.
std::vector<std::string> pythonFolders(const SearchEnvironment& environment, int major) {
  const char* wheel = major == 13 ? "/nvidia/cu13/lib" : "/nvidia/cublas/lib";
  std::vector<std::string> folders;
  for (const char* name : {"VIRTUAL_ENV", "CONDA_PREFIX"}) {
    const std::string prefix = valueOf(environment, name);
    if (prefix.empty()) continue;
    for (const std::string& site : sitePackages(prefix)) folders.push_back(site + wheel);
    folders.push_back(prefix + "/lib");
  }
  return folders;
}

std::vector<std::string> toolkitFolders(const SearchEnvironment& environment, int major) {
  std::vector<std::string> folders;
  for (const char* name : {"CUDA_HOME", "CUDA_PATH"}) {
    const std::string root = valueOf(environment, name);
    if (!root.empty()) folders.push_back(root + "/lib64");
  }
  folders.emplace_back("/usr/local/cuda/lib64");
  folders.emplace_back("/usr/local/cuda-" + std::to_string(major) + "/lib64");
  folders.emplace_back("/opt/cuda/lib64");
  folders.push_back(environment.packageFolder);
  return folders;
}

/// Fills the table; the name of a function that the library lacks, or null.
const char* resolve(void* library, CublasLtApi& api) {
  const char* missing = nullptr;
  const auto find = [&](auto& function, const char* name) {
    void* address = dlsym(library, name);
    if (address == nullptr && missing == nullptr) missing = name;
    function = reinterpret_cast<std::decay_t<decltype(function)>>(address);
  };
  find(api.create, "cublasLtCreate");
  find(api.destroy, "cublasLtDestroy");
  find(api.getVersion, "cublasLtGetVersion");
  find(api.descCreate, "cublasLtMatmulDescCreate");
  find(api.descDestroy, "cublasLtMatmulDescDestroy");
  find(api.descSetAttribute, "cublasLtMatmulDescSetAttribute");
  find(api.layoutCreate, "cublasLtMatrixLayoutCreate");
  find(api.layoutDestroy, "cublasLtMatrixLayoutDestroy");
  find(api.preferenceCreate, "cublasLtMatmulPreferenceCreate");
  find(api.preferenceDestroy, "cublasLtMatmulPreferenceDestroy");
  find(api.preferenceSetAttribute, "cublasLtMatmulPreferenceSetAttribute");
  find(api.getHeuristic, "cublasLtMatmulAlgoGetHeuristic");
  find(api.matmul, "cublasLtMatmul");
  return missing;
}

/// The file that holds a function, which a bare soname does not tell.
std::string fileOf(const CublasLtApi& api, const std::string& name) {
  Dl_info info = {};
  const bool known = dladdr(reinterpret_cast<void*>(api.getVersion), &info) != 0;
  return known && info.dli_fname != nullptr ? info.dli_fname : name;
}

/// Opens one candidate and offers it; what is wrong with it, or "".
std::string tryPlace(
    const SearchPlace& place, SearchReport& report,
    const std::function<bool(const CublasLtApi&, const std::string&, std::string&)>& accept) {
  void* library =
      dlopen(place.name.c_str(), RTLD_NOW | RTLD_LOCAL | (place.loaded ? RTLD_NOLOAD : 0));
  if (library == nullptr) {
    if (place.loaded) return "not loaded in this process";
    const char* message = dlerror();
    const std::string problem = message == nullptr ? "cannot be loaded" : message;
    // The loader begins with the name, which the report has already.
    const std::string prefix = place.name + ": ";
    return problem.compare(0, prefix.size(), prefix) == 0 ? problem.substr(prefix.size()) : problem;
  }
  CublasLtApi api = {};
  if (const char* missing = resolve(library, api)) return std::string("has no ") + missing;
  const auto version = static_cast<int>(api.getVersion());
  const int major = version / 10000;
  if (std::find(std::begin(kMajors), std::end(kMajors), major) == std::end(kMajors)) {
    return "is version " + std::to_string(version) + "; 13 and 12 are supported";
  }
  if (place.major != 0 && place.major != major) {
    return "is version " + std::to_string(version) + ", not " + std::to_string(place.major);
  }
  const std::string path = fileOf(api, place.name);
  std::string problem;
  if (!accept(api, path, problem)) return problem.empty() ? "was refused" : problem;
  report.path = path;
  report.version = version;
  return "";
}

}  // namespace

std::string SearchReport::text() const {
  std::string lines;
  for (const Attempt& attempt : attempts) {
    lines +=
        "  - " + attempt.place + ": " + (attempt.problem.empty() ? "used" : attempt.problem) + "\n";
  }
  return lines;
}

SearchEnvironment SearchEnvironment::ofThisProcess() {
  SearchEnvironment environment;
  environment.variable = [](const char* name) -> const char* { return std::getenv(name); };
  Dl_info info = {};
  if (dladdr(reinterpret_cast<void*>(&searchCublasLt), &info) != 0 && info.dli_fname != nullptr) {
    const std::string file = info.dli_fname;
    environment.packageFolder = file.substr(0, file.find_last_of('/'));
  }
  return environment;
}

std::vector<SearchPlace> searchPlaces(const SearchEnvironment& environment) {
  std::vector<SearchPlace> places;
  const std::string demanded = valueOf(environment, "LOKO_CUBLASLT");
  if (!demanded.empty()) {
    if (!isFolder(demanded)) return {{demanded, 0}};
    for (const int major : kMajors) places.push_back({demanded + "/" + soname(major), major});
    return places;
  }
  for (const int major : kMajors) {
    const auto add = [&](const std::vector<std::string>& folders) {
      for (const std::string& folder : folders) {
        places.push_back({folder + "/" + soname(major), major});
      }
    };
    places.push_back({soname(major), major, true});
    add(pythonFolders(environment, major));
    places.push_back({soname(major), major});
    add(toolkitFolders(environment, major));
  }
  return places;
}

bool searchCublasLt(const SearchEnvironment& environment, SearchReport& report,
                    const std::function<bool(const CublasLtApi&, const std::string& path,
                                             std::string& problem)>& accept) {
  report = {};
  const std::string demanded = valueOf(environment, "LOKO_CUBLASLT");
  report.disabled = demanded == "off";
  report.demanded = !demanded.empty() && !report.disabled;
  if (report.disabled) return false;
  for (const SearchPlace& place : searchPlaces(environment)) {
    const std::string name = place.loaded ? place.name + " (loaded already)" : place.name;
    report.attempts.push_back({name, tryPlace(place, report, accept)});
    if (report.version != 0) return true;
  }
  return false;
}

}  // namespace loko::cuda
