#pragma once

// Products by cuBLASLt. One object per device and process, shared by the sessions on it and given back
// with the last of them; it owns the library's handle and, per shape, the descriptors and the algorithm
// that the library's heuristic chose. Thread-safe. Results are the same bits on every run on one GPU
// model with one version of the library, because the workspace is the caller's.

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>

#include "cuda/cublaslt_api.h"
#include "cuda/cublaslt_library.h"

namespace loko::cuda {

/// Type of A and W in memory and of the multiplication: float32; float32 rounded to TF32; bfloat16.
/// Sums and the result are float32.
enum class ProductType : std::uint8_t { kFloat32, kTf32, kBfloat16 };

/// Row-major C[rows, out] (+)= A[rows, depth] * (across ? W[depth, out] : W[out, depth]^T).
struct LtProduct {
  int rows = 0, out = 0, depth = 0;
  ProductType type = ProductType::kFloat32;
  std::int64_t lda = 0, ldw = 0, ldc = 0;  // elements from row to row
  bool across = false;
  bool accumulate = false;
  int alignment = 16;  // bytes, a power of two up to 256: all three addresses are multiples of it
};

class CublasLt {
 public:
  static constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;
  static constexpr std::size_t kWorkspaceAlignment = 256;

  /// That of the current device: the one that other sessions use, or the first that the search finds
  /// and whose products on the device are right. Null where there is none; the report lists the places
  /// (none if another session has found it already). Throws Error(kCublasUnavailable) where
  /// LOKO_CUBLASLT demands one that cannot be used.
  static std::shared_ptr<CublasLt> find(SearchReport* report = nullptr);

  /// Throws Error(kCublasUnavailable) where the library cannot make a handle.
  explicit CublasLt(const CublasLtApi& api, std::string path = "");
  ~CublasLt();
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;

  int version() const;  // 130101 is 13.1.1
  const std::string& path() const { return path_; }

  /// Chooses the algorithm, once per shape; allocates on the host. False where the library has none
  /// for it: the caller multiplies by itself.
  bool prepare(const LtProduct& product);
  /// Enqueues a product that prepare() has accepted. Allocates nothing, may be captured. The workspace
  /// is the stream's own: workspaceBytes >= kWorkspaceBytes, aligned to kWorkspaceAlignment.
  void run(const LtProduct& product, const void* a, const void* w, float* c, void* workspace,
           std::size_t workspaceBytes, LtStream stream);

 private:
  struct Plan;
  using Key =
      std::tuple<int, int, int, ProductType, std::int64_t, std::int64_t, std::int64_t, bool, int>;

  static Key keyOf(const LtProduct& product);
  std::unique_ptr<Plan> makePlan(const LtProduct& product);

  CublasLtApi api_;
  std::string path_;
  LtHandle handle_ = nullptr;
  std::mutex mutex_;
  std::map<Key, std::unique_ptr<Plan>> plans_;
};

/// Throws Error(kInternal), or kOutOfMemory, with what was called on what. `what` is composed only then.
[[noreturn]] void failLt(LtStatus status, const std::string& what);

/// Multiplies small integers on the current device, every type and both orders of W, and compares all
/// bits. "" where all is right, else what was wrong. Why: the declarations are our own, and a library
/// of another version could read them otherwise.
std::string checkProducts(CublasLt& lt);

}  // namespace loko::cuda
