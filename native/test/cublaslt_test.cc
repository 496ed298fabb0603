// Products through the table of cuBLASLt, by a stand-in on the host that computes in double. That the
// real library reads our descriptors alike is checked on the device, before it is trusted
// (native/cuda/cublaslt_check.cc).

#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "core/status.h"
#include "cublaslt_standin.h"
#include "cuda/cublaslt.h"
#include "op_allocations.h"

namespace loko::cuda {
namespace {

using test::standIn;

/// Restores the stand-in at the end of a test, and checks that nothing was left behind.
struct Fresh {
  Fresh() { standIn() = {}; }
  ~Fresh() { CHECK(standIn().live == 0); }
};

/// A row-major matrix of small integers with NaN beside its columns, aligned to 256 bytes.
struct Matrix {
  int rows, cols, ld;
  std::vector<float> values;
  std::size_t begin = 0;

  Matrix(int rows, int cols, int extra, unsigned seed)
      : rows(rows),
        cols(cols),
        ld(cols + extra),
        values(static_cast<std::size_t>(rows * ld) + 64, std::nanf("")) {
    while (reinterpret_cast<std::uintptr_t>(&values[begin]) % 256 != 0) ++begin;
    std::mt19937 random(seed);
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < cols; ++j)
        at(i, j) = static_cast<float>(static_cast<int>(random() % 9)) - 4;
    }
  }
  Matrix(const Matrix&) = delete;
  Matrix& operator=(const Matrix&) = delete;
  float* data() { return &values[begin]; }
  float& at(int i, int j) { return data()[i * ld + j]; }
  double get(int i, int j) { return at(i, j); }
};

/// The same numbers in bfloat16, whose bits are the upper half of a float32's.
struct Halves {
  std::vector<std::uint16_t> values;
  std::size_t begin = 0;
  explicit Halves(Matrix& from) : values(static_cast<std::size_t>(from.rows * from.ld) + 128) {
    while (reinterpret_cast<std::uintptr_t>(&values[begin]) % 256 != 0) ++begin;
    for (int i = 0; i < from.rows * from.ld; ++i) {
      std::uint32_t bits = 0;
      std::memcpy(&bits, from.data() + i, 4);
      values[begin + static_cast<std::size_t>(i)] = static_cast<std::uint16_t>(bits >> 16);
    }
  }
  const void* data() const { return &values[begin]; }
};

struct Workspace {
  std::vector<unsigned char> bytes;
  Workspace() : bytes(CublasLt::kWorkspaceBytes + 256) {}
  void* get() {
    void* begin = bytes.data();
    std::size_t space = bytes.size();
    return std::align(256, CublasLt::kWorkspaceBytes, begin, space);
  }
};

void checkProduct(CublasLt& lt, Workspace& workspace, ProductType type, bool across,
                  bool accumulate, int rows, int out, int depth) {
  Matrix a(rows, depth, 3, 1);
  Matrix w(across ? depth : out, across ? out : depth, 5, 2);
  Matrix c(rows, out, 7, 3);
  Matrix before(rows, out, 7, 3);
  // What is not accumulated is written without being read.
  if (!accumulate) c.at(0, 0) = std::nanf("");
  const LtProduct product{rows, out, depth, type, a.ld, w.ld, c.ld, across, accumulate, 16};
  REQUIRE(lt.prepare(product));
  const Halves aHalf(a), wHalf(w);
  const bool half = type == ProductType::kBfloat16;
  lt.run(product, half ? aHalf.data() : a.data(), half ? wHalf.data() : w.data(), c.data(),
         workspace.get(), CublasLt::kWorkspaceBytes, nullptr);
  int wrong = 0;
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < c.ld; ++j) {
      double expected = std::nan("");
      if (j < out) {
        expected = accumulate ? before.get(i, j) : 0;
        for (int p = 0; p < depth; ++p) {
          expected += a.get(i, p) * (across ? w.get(p, j) : w.get(j, p));
        }
      }
      const double got = c.get(i, j);
      if (!(got == expected || (std::isnan(got) && std::isnan(expected)))) ++wrong;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("cuBLASLt multiplies row-major matrices with gaps, both orders of W, in every type") {
  const Fresh fresh;
  Workspace workspace;
  CublasLt lt(test::standInApi());
  for (const ProductType type :
       {ProductType::kFloat32, ProductType::kTf32, ProductType::kBfloat16}) {
    for (const bool across : {false, true}) {
      for (const bool accumulate : {false, true}) {
        checkProduct(lt, workspace, type, across, accumulate, 5, 11, 7);
        checkProduct(lt, workspace, type, across, accumulate, 1, 3, 19);
      }
    }
  }
}

TEST_CASE("TF32 and float32 ask for different arithmetic") {
  const Fresh fresh;
  Workspace workspace;
  CublasLt lt(test::standInApi());
  Matrix a(1, 4, 0, 1), w(1, 4, 0, 1), c(1, 1, 3, 1);
  const float fine = 1 + std::ldexp(1.0f, -20);  // 1 in TF32
  for (int j = 0; j < 4; ++j) a.at(0, j) = fine, w.at(0, j) = 1;
  for (const ProductType type : {ProductType::kFloat32, ProductType::kTf32}) {
    const LtProduct product{1, 1, 4, type, 4, 4, 4, false, false, 16};
    REQUIRE(lt.prepare(product));
    lt.run(product, a.data(), w.data(), c.data(), workspace.get(), CublasLt::kWorkspaceBytes,
           nullptr);
    CHECK(c.at(0, 0) == (type == ProductType::kTf32 ? 4.0f : 4 * fine));
  }
}

TEST_CASE("a shape is prepared once, whether it accumulates or not, and nothing allocates after") {
  const Fresh fresh;
  Workspace workspace;
  CublasLt lt(test::standInApi());
  Matrix a(4, 8, 0, 1), w(4, 8, 0, 2), c(4, 4, 0, 3);
  LtProduct product{4, 4, 8, ProductType::kFloat32, 8, 8, 4, false, false, 16};
  CHECK(lt.prepare(product));
  CHECK(lt.prepare(product));
  product.accumulate = true;
  CHECK(lt.prepare(product));
  CHECK(standIn().heuristics == 1);
  product.alignment = 4;
  CHECK(lt.prepare(product));
  CHECK(standIn().heuristics == 2);

  void* const space = workspace.get();
  const std::int64_t allocations = loko::test::allocationCount;
  lt.run(product, a.data(), w.data(), c.data(), space, CublasLt::kWorkspaceBytes, nullptr);
  if (loko::test::kCountsAllocations) CHECK(loko::test::allocationCount == allocations);
  CHECK(standIn().products == 1);
}

TEST_CASE("what cuBLASLt has no algorithm for is left to the caller") {
  const Fresh fresh;
  CublasLt lt(test::standInApi());
  const LtProduct product{4, 4, 8, ProductType::kBfloat16, 9, 9, 4, false, false, 2};
  standIn().heuristicStatus = kLtNotSupported;
  CHECK_FALSE(lt.prepare(product));
  standIn().heuristicStatus = kLtSuccess;
  CHECK_FALSE(lt.prepare(product));  // remembered
  LtProduct other = product;
  other.rows = 5;
  standIn().workspaceBytes = CublasLt::kWorkspaceBytes + 1;
  CHECK_FALSE(lt.prepare(other));
}

std::string messageOf(const std::function<void()>& body, ErrorCode code) {
  try {
    body();
  } catch (const Error& error) {
    CHECK(error.code() == code);
    return error.what();
  }
  FAIL("no error");
  return "";
}

TEST_CASE("a failing call names itself, the product and the status") {
  const Fresh fresh;
  Workspace workspace;
  CublasLt lt(test::standInApi());
  Matrix a(4, 8, 0, 1), w(4, 8, 0, 2), c(4, 4, 0, 3);
  const LtProduct product{4, 4, 8, ProductType::kTf32, 8, 8, 4, false, false, 16};
  standIn().heuristicStatus = 14;
  CHECK(messageOf([&] { lt.prepare(product); }, ErrorCode::kInternal) ==
        "cuBLASLt: cublasLtMatmulAlgoGetHeuristic (4 x 4 x 8, tf32) failed: "
        "CUBLAS_STATUS_INTERNAL_ERROR (14)");
  standIn().heuristicStatus = kLtSuccess;
  CHECK(lt.prepare(product));  // a failure is not remembered

  const auto run = [&](const void* from, std::size_t bytes) {
    lt.run(product, from, w.data(), c.data(), workspace.get(), bytes, nullptr);
  };
  standIn().matmulStatus = kLtAllocFailed;
  CHECK(messageOf([&] { run(a.data(), CublasLt::kWorkspaceBytes); }, ErrorCode::kOutOfMemory) ==
        "cuBLASLt: cublasLtMatmul (4 x 4 x 8, tf32) failed: CUBLAS_STATUS_ALLOC_FAILED (3)");
  standIn().matmulStatus = kLtSuccess;
  messageOf([&] { run(a.data(), 16); }, ErrorCode::kInternal);
  messageOf([&] { run(a.data() + 1, CublasLt::kWorkspaceBytes); }, ErrorCode::kInternal);
  LtProduct unprepared = product;
  unprepared.rows = 3;
  messageOf(
      [&] {
        lt.run(unprepared, a.data(), w.data(), c.data(), workspace.get(), CublasLt::kWorkspaceBytes,
               nullptr);
      },
      ErrorCode::kInternal);
  CHECK(standIn().products == 1);
}

}  // namespace
}  // namespace loko::cuda
