// The library multiplies dense matrices of one type, so bfloat16 activations are made first. Where that is all of the
// product, it writes or adds to the target itself; else the tile kernel then adds what else there is and runs
// the epilogue: two passes over the output more than the fused kernel makes, which pays where the product is
// long. At k = 99 rows of 197 tokens the library reads each weight once for 19,503 rows.

#include "cuda/library_product.h"

#include <cuda_bf16.h>

#include "cuda/cublaslt.h"
#include "cuda/fetch.cuh"
#include "cuda/launch.h"
#include "cuda/predecessor.cuh"

namespace loko::cuda {

namespace {

constexpr int kThreads = 256;

struct alignas(8) FourHalves {
  __nv_bfloat16 values[4];
};

/// target [m, cols], dense; cols is a multiple of 4. A warp for each row: 6 bytes for each element are all it should
/// cost, 90 MB for 19,503 rows of 768.
__global__ void halvesKernel(const Operand source, __nv_bfloat16* target, int m, int cols) {
  awaitPredecessor();
  const int row = static_cast<int>((blockIdx.x * kThreads + threadIdx.x) / 32);
  if (row >= m) return;
  const float* from = source.rows[row];
  __nv_bfloat16* to = target + std::int64_t{row} * cols;
#pragma unroll 8
  for (int c = static_cast<int>(threadIdx.x % 32) * 4; c < cols; c += 32 * 4) {
    const float4 four = fetchVector<false>(from + c, 4, source.aligned).values();
    *reinterpret_cast<FourHalves*>(to + c) = {
        {__float2bfloat16_rn(four.x), __float2bfloat16_rn(four.y), __float2bfloat16_rn(four.z),
         __float2bfloat16_rn(four.w)}};
  }
}

/// Rounded, so that what follows is aligned.
std::int64_t resultFloats(std::int64_t m, int n) {
  return (m * n + 3) / 4 * 4;
}

std::int64_t halfFloats(std::int64_t m, int depth) {
  return (m * depth + 7) / 8 * 4;
}

bool dense(const Rows& rows, int m) {
  return m <= rows.rows || rows.sampleStride == rows.rows * rows.ld;
}

/// Nothing is left when the only term has been written to the target, or added to it.
bool isOneTerm(const Product& product) {
  const Epilogue& epilogue = product.epilogue;
  return product.termCount == 1 && !epilogue.transposed && epilogue.columnStride == 1 &&
         epilogue.activation == Activation::kNone && epilogue.bias == nullptr &&
         !epilogue.addend.present() && !epilogue.residual.present() &&
         !epilogue.actGrad.present() && !epilogue.derivative.present() &&
         operandOf(epilogue.target).aligned && dense(epilogue.target, product.m);
}

ProductType typeOf(Precision precision) {
  switch (precision) {
    case Precision::kFloat32:
      return ProductType::kFloat32;
    case Precision::kTf32:
      return ProductType::kTf32;
    case Precision::kBfloat16:
      return ProductType::kBfloat16;
  }
  return ProductType::kFloat32;
}

}  // namespace

void needLibraryProduct(std::int64_t m, int n, int depth, Context& context) {
  if (context.library() == nullptr || m < context.libraryRows()) return;
  context.needFloats(resultFloats(m, n) + halfFloats(m, depth));
  context.needLibrary();
}

bool multiplyByLibrary(Product& product, Orientation right, Context& context) {
  CublasLt* library = context.library();
  if (library == nullptr || product.m < context.libraryRows()) return false;
  const bool half = context.precision() == Precision::kBfloat16;
  const Term& base = product.terms[0];
  const Rows& left = base.left.rows;
  if (base.right.half != half || !base.right.aligned) return false;
  if (!half && (!base.left.aligned || !dense(left, product.m))) return false;

  const bool whole = isOneTerm(product);
  Epilogue& epilogue = product.epilogue;

  LtProduct shape;
  shape.rows = product.m;
  shape.out = product.n;
  shape.depth = base.depth;
  shape.type = typeOf(context.precision());
  shape.lda = half ? base.depth : left.ld;
  shape.ldw = base.right.rows.ld;
  shape.ldc = whole ? epilogue.target.ld : product.n;
  shape.accumulate = whole && epilogue.accumulate;
  shape.across = right == Orientation::kAcross;
  const std::int64_t sums = resultFloats(product.m, product.n);
  if (half && base.depth % 8 != 0) return false;  // rows of the copy would not be aligned
  if (!library->prepare(shape)) return false;

  float* workspace = context.floats(sums + halfFloats(product.m, base.depth));
  float* result = whole ? epilogue.target.data : workspace;
  const void* a = left.data;
  if (half) {
    auto* copy = reinterpret_cast<__nv_bfloat16*>(workspace + sums);
    launch({"to bfloat16",
            dim3(static_cast<unsigned>(ceilDiv<std::int64_t>(product.m, kThreads / 32))),
            dim3(kThreads), context.queue()},
           halvesKernel, base.left, copy, product.m, base.depth);
    a = copy;
  }
  library->run(shape, a, base.right.rows.data, result, context.libraryWorkspace(),
               CublasLt::kWorkspaceBytes, context.stream());
  if (whole) return true;
  Rows& addend = epilogue.addend;
  addend.data = result;
  addend.rows = product.m;
  addend.ld = product.n;
  for (int i = 1; i < product.termCount; ++i) product.terms[i - 1] = product.terms[i];
  --product.termCount;
  return false;
}

}  // namespace loko::cuda
