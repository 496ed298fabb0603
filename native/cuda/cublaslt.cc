#include "cuda/cublaslt.h"

#include <utility>

#include "core/status.h"

namespace loko::cuda {

namespace {

std::string describe(const LtProduct& product) {
  static constexpr const char* kTypes[] = {"float32", "tf32", "bfloat16"};
  return std::to_string(product.rows) + " x " + std::to_string(product.out) + " x " +
         std::to_string(product.depth) + ", " + kTypes[static_cast<int>(product.type)] +
         (product.across ? ", W across" : "");
}

void require(LtStatus status, const char* function, const LtProduct& product) {
  if (status != kLtSuccess) {
    failLt(status, std::string(function) + " (" + describe(product) + ")");
  }
}

}  // namespace

const char* ltStatusName(LtStatus status) {
  switch (status) {
    case 0:
      return "CUBLAS_STATUS_SUCCESS";
    case 1:
      return "CUBLAS_STATUS_NOT_INITIALIZED";
    case 3:
      return "CUBLAS_STATUS_ALLOC_FAILED";
    case 7:
      return "CUBLAS_STATUS_INVALID_VALUE";
    case 8:
      return "CUBLAS_STATUS_ARCH_MISMATCH";
    case 11:
      return "CUBLAS_STATUS_MAPPING_ERROR";
    case 13:
      return "CUBLAS_STATUS_EXECUTION_FAILED";
    case 14:
      return "CUBLAS_STATUS_INTERNAL_ERROR";
    case 15:
      return "CUBLAS_STATUS_NOT_SUPPORTED";
    case 16:
      return "CUBLAS_STATUS_LICENSE_ERROR";
    default:
      return "an unknown status";
  }
}

void failLt(LtStatus status, const std::string& what) {
  throw Error(status == kLtAllocFailed ? ErrorCode::kOutOfMemory : ErrorCode::kInternal,
              "cuBLASLt: " + what + " failed: " + ltStatusName(status) + " (" +
                  std::to_string(status) + ")");
}

/// What one shape needs; `algorithm` is meaningless where the library has none.
struct CublasLt::Plan {
  explicit Plan(const CublasLtApi& api) : api(api) {}
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
  ~Plan() {
    if (desc != nullptr) api.descDestroy(desc);
    for (LtLayout layout : {w, a, c}) {
      if (layout != nullptr) api.layoutDestroy(layout);
    }
  }

  const CublasLtApi& api;
  LtDesc desc = nullptr;
  LtLayout w = nullptr, a = nullptr, c = nullptr;
  LtAlgorithm algorithm = {};
  std::size_t workspaceBytes = 0;
  bool supported = false;
};

CublasLt::CublasLt(const CublasLtApi& api, std::string path) : api_(api), path_(std::move(path)) {
  const LtStatus status = api_.create(&handle_);
  if (status == kLtSuccess) return;
  throw Error(ErrorCode::kCublasUnavailable, std::string("cublasLtCreate failed: ") +
                                                 ltStatusName(status) + " (" +
                                                 std::to_string(status) + ")");
}

CublasLt::~CublasLt() {
  plans_.clear();
  // A failure, as after a device error, leaves nothing to be done.
  api_.destroy(handle_);
}

int CublasLt::version() const {
  return static_cast<int>(api_.getVersion());
}

CublasLt::Key CublasLt::keyOf(const LtProduct& product) {
  // Not `accumulate`: beta is given with each call.
  return {product.rows, product.out, product.depth,  product.type,     product.lda,
          product.ldw,  product.ldc, product.across, product.alignment};
}

bool CublasLt::prepare(const LtProduct& product) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::unique_ptr<Plan>& plan = plans_[keyOf(product)];
  if (plan == nullptr) plan = makePlan(product);
  return plan->supported;
}

/// cuBLASLt reads column-major matrices. What is row-major [rows, cols] with rows ld apart is
/// column-major [cols, rows] with the same ld, its transpose; so C^T = W' A^T is asked for, and nothing
/// is moved. W' is W^T as it lies where W is across, else its transpose.
std::unique_ptr<CublasLt::Plan> CublasLt::makePlan(const LtProduct& product) {
  const int compute = product.type == ProductType::kTf32 ? kLtComputeTf32 : kLtComputeFloat32;
  const int type = product.type == ProductType::kBfloat16 ? kLtTypeBfloat16 : kLtTypeFloat32;
  const std::uint64_t rows = product.rows, out = product.out, depth = product.depth;

  auto plan = std::make_unique<Plan>(api_);
  const auto check = [&](LtStatus status, const char* function) {
    require(status, function, product);
  };
  check(api_.descCreate(&plan->desc, compute, kLtTypeFloat32), "cublasLtMatmulDescCreate");
  const std::int32_t transW = product.across ? kLtOpNone : kLtOpTranspose;
  const std::int32_t transA = kLtOpNone;
  const char* const setDesc = "cublasLtMatmulDescSetAttribute";
  check(api_.descSetAttribute(plan->desc, kLtDescTransA, &transW, sizeof transW), setDesc);
  check(api_.descSetAttribute(plan->desc, kLtDescTransB, &transA, sizeof transA), setDesc);
  const char* const layout = "cublasLtMatrixLayoutCreate";
  check(api_.layoutCreate(&plan->w, type, product.across ? out : depth,
                          product.across ? depth : out, product.ldw),
        layout);
  check(api_.layoutCreate(&plan->a, type, depth, rows, product.lda), layout);
  check(api_.layoutCreate(&plan->c, kLtTypeFloat32, out, rows, product.ldc), layout);

  LtPreference preference = nullptr;
  check(api_.preferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
  const std::unique_ptr<LtPreferenceOpaque, LtStatus (*)(LtPreference)> owned(
      preference, api_.preferenceDestroy);
  const char* const setPreference = "cublasLtMatmulPreferenceSetAttribute";
  const std::uint64_t workspace = kWorkspaceBytes;
  check(api_.preferenceSetAttribute(preference, kLtPrefMaxWorkspaceBytes, &workspace,
                                    sizeof workspace),
        setPreference);
  const auto alignment = static_cast<std::uint32_t>(product.alignment);
  for (const int attribute :
       {kLtPrefMinAlignmentA, kLtPrefMinAlignmentB, kLtPrefMinAlignmentC, kLtPrefMinAlignmentD}) {
    check(api_.preferenceSetAttribute(preference, attribute, &alignment, sizeof alignment),
          setPreference);
  }

  LtHeuristicResult best = {};
  int found = 0;
  const LtStatus status = api_.getHeuristic(handle_, plan->desc, plan->w, plan->a, plan->c, plan->c,
                                            preference, 1, &best, &found);
  if (status != kLtNotSupported) check(status, "cublasLtMatmulAlgoGetHeuristic");
  plan->supported = status == kLtSuccess && found == 1 && best.state == kLtSuccess &&
                    best.workspaceBytes <= kWorkspaceBytes;
  plan->algorithm = best.algorithm;
  plan->workspaceBytes = best.workspaceBytes;
  return plan;
}

void CublasLt::run(const LtProduct& product, const void* a, const void* w, float* c,
                   void* workspace, std::size_t workspaceBytes, LtStream stream) {
  const Plan* plan = nullptr;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = plans_.find(keyOf(product));
    if (found != plans_.end()) plan = found->second.get();
  }
  LOKO_CHECK(plan != nullptr && plan->supported, "not prepared: " + describe(product));
  LOKO_CHECK(workspaceBytes >= plan->workspaceBytes, describe(product));
  const auto addresses = reinterpret_cast<std::uintptr_t>(a) | reinterpret_cast<std::uintptr_t>(w) |
                         reinterpret_cast<std::uintptr_t>(c);
  LOKO_CHECK(addresses % static_cast<std::uintptr_t>(product.alignment) == 0, describe(product));

  const float alpha = 1;
  const float beta = product.accumulate ? 1 : 0;
  require(api_.matmul(handle_, plan->desc, &alpha, w, plan->w, a, plan->a, &beta, c, plan->c, c,
                      plan->c, &plan->algorithm, workspace, workspaceBytes, stream),
          "cublasLtMatmul", product);
}

}  // namespace loko::cuda
