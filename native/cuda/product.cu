// Tiles of 64 (or 16) x 64 outputs, one block each. Few tiles would leave most of a device idle, so the
// depth of a product is split where there are fewer tiles than the device has room for: every block leaves its
// share of the sums in the workspace, and the last one to come adds them up, in the order of the shares,
// and runs the epilogue. The number of shares follows from the shape and the device: the same product on
// the same device has the same bits.
//
// RoBERTa-base, 128 rows, 768 x 768, bfloat16: 24 tiles in 4 shares of 6 steps = 96 blocks; 1.2 MB of
// weights, 0.4 MB of activations, 151 MFLOP. Bytes and operations take 0.5 us; the rest is the way to memory
// and back, three times: operands, shares, epilogue (docs/decisions/loads-in-flight.md).

#include <algorithm>
#include <type_traits>

#include "core/status.h"
#include "cuda/block_product.cuh"
#include "cuda/context.h"
#include "cuda/epilogue.cuh"
#include "cuda/launch.h"
#include "cuda/predecessor.cuh"
#include "cuda/patches.cuh"
#include "cuda/product.h"
#include "cuda/tile.cuh"

namespace loko::cuda {

namespace {

struct Split {
  float* partials;     // [tiles, shares, outputs of a tile]
  unsigned* arrivals;  // [tiles], 0 before and after each launch
};

constexpr int kFewRows = 16, kManyRows = 64;
static_assert(kManyRows * kTileColumns == Context::kMaxTileOutputs);
constexpr int kMaxShares = 16;
constexpr int kPrefetchingRows = 2 * kManyRows;
constexpr int kMaxGridY = 65535;

template <class Math>
constexpr bool kMeetsHalves = std::is_same_v<Math, Bfloat16>;

__device__ bool reaches(const Term& term, int column) {
  return term.begin < column + kTileColumns && term.end > column;
}

__device__ int stepsOf(const Term& term) {
  return (term.depth + kTileDepth - 1) / kTileDepth;
}

__host__ __device__ bool unscaled(const Term& term) {
  return term.scale == 1 && term.columnScale == nullptr && term.depthScale == nullptr;
}

/// What a value of the right operand is multiplied by.
struct TermScale {
  const Term& term;
  int column;  // of the product, at the tile's first

  __device__ float operator()(int c, int k, float value) const {
    const int n = column + c;
    value *= term.scale;
    if (term.columnScale != nullptr && n >= term.begin && n < term.end)
      value *= term.columnScale[n];
    if (term.depthScale != nullptr && k < term.depth) value *= term.depthScale[k];
    return value;
  }
};

/// Where the operands of a tile's terms come from. Only frozen weights are bfloat16, and only kernels that
/// multiply in bfloat16 meet them.
template <class Math, int kRows, bool kLeftAcross, bool kRightAcross>
struct PlainSource {
  int row, m, column;

  template <class Add>
  __device__ void operator()(int, const Term& term, const Add& add) const {
    const Fetch<kLeftAcross, kRows> left(term.left, row, 0, m);
    if constexpr (kMeetsHalves<Math>) {
      if (term.right.half) {
        add(left,
            Fetch<kRightAcross, kTileColumns, true>(term.right, column, term.begin, term.end));
        return;
      }
    }
    add(left, Fetch<kRightAcross, kTileColumns>(term.right, column, term.begin, term.end));
  }
};

/// The first term is a convolution (Gather), the others are plain.
template <class Math, int kRows, bool kOfCotangent>
struct PatchSource {
  const Patches& patches;
  int row, m, column;

  template <class Add>
  __device__ void operator()(int index, const Term& term, const Add& add) const {
    if (index > 0) {
      add(Fetch<false, kRows>(term.left, row, 0, m),
          Fetch<kOfCotangent, kTileColumns>(term.right, column, term.begin, term.end));
      return;
    }
    const FetchPatches<kRows, kOfCotangent> left(term.left, patches, row, m);
    if constexpr (kMeetsHalves<Math>) {
      if (term.right.half) {
        add(left, weights<true>(term));
        return;
      }
    }
    add(left, weights<false>(term));
  }

 private:
  template <bool kHalf>
  __device__ auto weights(const Term& term) const {
    if constexpr (kOfCotangent) {
      return FetchTurnedWeights<kHalf>(term.right, patches, column, term.end);
    } else {
      return Fetch<false, kTileColumns, kHalf>(term.right, column, term.begin, term.end);
    }
  }
};

template <int kRows>
struct TapSource {
  const Window& window;
  int tap, row, m, column;

  template <class Add>
  __device__ void operator()(int, const Term& term, const Add& add) const {
    add(Fetch<true, kRows>(term.left, row, 0, m),
        FetchTap(term.right, window, tap, column, term.end));
  }
};

/// Steps [first, last) of all terms that reach a column are the block's.
struct Share {
  int first, last;
};

__device__ Share shareOf(const Term* terms, int count, int column) {
  int steps = 0;
  for (int i = 0; i < count; ++i) steps += reaches(terms[i], column) ? stepsOf(terms[i]) : 0;
  const int shares = gridDim.z, share = blockIdx.z;
  return {steps * share / shares, steps * (share + 1) / shares};
}

/// Asks for the weights of the first term that this block is going to multiply.
template <bool kAcross>
__device__ void prefetchWeights(const Product& product, int column) {
  constexpr int kLine = 128;
  const Term& term = product.terms[0];
  const Operand& weights = term.right;
  const Share share = shareOf(product.terms, product.termCount, column);
  const int depthBegin = share.first * kTileDepth;
  const int depthEnd = min(share.last * kTileDepth, term.depth);
  const int columnEnd = min(column + kTileColumns, product.n);
  const int begin = kAcross ? column : depthBegin, end = kAcross ? columnEnd : depthEnd;
  const int firstRow = kAcross ? depthBegin : column;
  const int rows = (kAcross ? depthEnd : columnEnd) - firstRow;
  const int size = weights.half ? 2 : 4;
  if (begin >= end) return;  // the share is of other terms
  const int lines =
      (end - begin) * size / kLine + 1;  // one more, since a row may begin within a line
  const char* data = reinterpret_cast<const char*>(weights.rows.data);
  for (int i = threadIdx.x; i < rows * lines; i += kTileThreads) {
    const int at = min(begin + i % lines * (kLine / size), end - 1);
    prefetch(data + ((firstRow + i / lines) * weights.rows.ld + at) * size);
  }
}

/// The share of blockIdx.z of [kRows, 64] outputs from column `column` on. The sums end in `out`.
template <class Math, int kRows, bool kRightAcross, class Source>
__device__ void sumTile(const Term* terms, int count, int column, const Source& source,
                        float* out) {
  [[maybe_unused]] __shared__ LeftTile<Math, kRows> left;
  [[maybe_unused]] __shared__ RightTile<Math, kRightAcross> right;
  Tile<Math, kRows> tile;
  tile.clear();
  const Share share = shareOf(terms, count, column);
  for (int i = 0, passed = 0; i < count; ++i) {
    const Term& term = terms[i];
    if (!reaches(term, column)) continue;
    const int begin = max(share.first - passed, 0) * kTileDepth;
    const int end = min((share.last - passed) * kTileDepth, term.depth);
    passed += stepsOf(term);
    if (begin >= end) continue;
    source(i, term, [&](const auto& fetchLeft, const auto& fetchRight) {
      if (term.right.half || unscaled(term)) {  // run() has checked the former
        addProduct(tile, left, right, fetchLeft, fetchRight, begin, end, Unscaled{});
      } else {
        addProduct(tile, left, right, fetchLeft, fetchRight, begin, end, TermScale{term, column});
      }
    });
  }
  tile.store(out, kOutLd);
  __syncthreads();
}

/// True in the block that has the last share of a tile; `out` then holds the sums of all.
template <int kRows>
__device__ bool gatherShares(const Split& split, int tile, float* out) {
  __shared__ bool last;
  using Mine = Outputs<kRows>;
  constexpr int kVectors = kRows * kTileColumns / 4;
  const int shares = gridDim.z;
  float4* partials = reinterpret_cast<float4*>(split.partials) +
                     static_cast<std::int64_t>(tile) * shares * kVectors + threadIdx.x;
#pragma unroll
  for (int i = 0; i < Mine::kCount; ++i) {
    partials[blockIdx.z * kVectors + i * kTileThreads] = Mine::at(out, i);
  }
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    last = atomicAdd(&split.arrivals[tile], 1u) == static_cast<unsigned>(shares) - 1;
  }
  __syncthreads();
  if (!last) return false;
  __threadfence();
  float4 sums[Mine::kCount];
#pragma unroll
  for (int i = 0; i < Mine::kCount; ++i) sums[i] = make_float4(0, 0, 0, 0);
#pragma unroll 2
  for (int share = 0; share < shares; ++share) {
    float4 values[Mine::kCount];  // all on their way before the first is added
#pragma unroll
    for (int i = 0; i < Mine::kCount; ++i) {
      values[i] = __ldcg(&partials[share * kVectors + i * kTileThreads]);
    }
#pragma unroll
    for (int i = 0; i < Mine::kCount; ++i) addTo(sums[i], values[i]);
  }
#pragma unroll
  for (int i = 0; i < Mine::kCount; ++i) Mine::at(out, i) = sums[i];
  if (threadIdx.x == 0) split.arrivals[tile] = 0;
  __syncthreads();
  return true;
}

template <int kRows>
__device__ Corner cornerOf(int n) {
  const int columnTiles = (n + kTileColumns - 1) / kTileColumns;
  return {static_cast<int>(blockIdx.x) / columnTiles * kRows,
          static_cast<int>(blockIdx.x) % columnTiles * kTileColumns};
}

template <class Math, int kRows, bool kRightAcross, class Source>
__device__ void runTile(const Term* terms, int count, int m, int n, const Corner& corner,
                        const Source& source, const Epilogue& epilogue, const Split& split,
                        int tileIndex) {
  alignas(32) __shared__ float out[kRows * kOutLd];
  sumTile<Math, kRows, kRightAcross>(terms, count, corner.column, source, out);
  if (gridDim.z > 1 && !gatherShares<kRows>(split, tileIndex, out)) return;
  finishTile<kRows>(epilogue, m, n, corner, out);
}

template <class Math, int kRows, bool kRightAcross, Gather kGather>
__global__ void __launch_bounds__(kTileThreads)
    productKernel(const __grid_constant__ Product product, const Split split,
                  const bool prefetches) {
  const Corner corner = cornerOf<kRows>(product.n);
  if constexpr (kGather == Gather::kNone) {
    if (prefetches) prefetchWeights<kRightAcross>(product, corner.column);
  }
  awaitPredecessor();
  const auto with = [&](const auto& source) {
    runTile<Math, kRows, kRightAcross>(product.terms, product.termCount, product.m, product.n,
                                       corner, source, product.epilogue, split,
                                       static_cast<int>(blockIdx.x));
  };
  if constexpr (kGather == Gather::kNone) {
    with(PlainSource<Math, kRows, false, kRightAcross>{corner.row, product.m, corner.column});
  } else {
    with(PatchSource<Math, kRows, kRightAcross>{product.patches, corner.row, product.m,
                                                corner.column});
  }
}

template <int kRows, bool kLeftAcross, bool kRightAcross, bool kTap>
__global__ void __launch_bounds__(kTileThreads)
    smallProductKernel(const __grid_constant__ SmallProducts products, const Split split) {
  awaitPredecessor();
  const SmallProduct& product = products.items[blockIdx.y % products.count];
  const Corner corner = cornerOf<kRows>(product.n);
  if (corner.row >= product.m) return;  // smaller than others beside it
  const int segment = products.firstSegment + static_cast<int>(blockIdx.y) / products.count;
  Term term = product.term;
  Epilogue epilogue = product.epilogue;
  term.left.rows.data += segment % product.leftSamples * product.leftStep;
  term.right.rows.data += segment % product.rightSamples * product.rightStep;
  epilogue.target.data += segment * product.targetStep;
  const auto with = [&](const auto& source) {
    runTile<Float32, kRows, kRightAcross>(&term, 1, product.m, product.n, corner, source, epilogue,
                                          split,
                                          static_cast<int>(blockIdx.y * gridDim.x + blockIdx.x));
  };
  if constexpr (kTap) {
    with(TapSource<kRows>{products.window, product.tap, corner.row, product.m, corner.column});
  } else {
    with(PlainSource<Float32, kRows, kLeftAcross, kRightAcross>{corner.row, product.m,
                                                                corner.column});
  }
}

int stepsOfDepth(int depth) {
  return ceilDiv(depth, kTileDepth);
}

/// Shares of the depth: not more than fill the device with two blocks for each multiprocessor, of which one
/// multiplies while the other waits for memory, nor more than a share has steps, since the last block adds
/// up another share in about the time of another step.
int sharesFor(std::int64_t tiles, int steps, const Context& context) {
  const std::int64_t most =
      std::min<std::int64_t>(kMaxShares, context.splitBlocks() / std::max<std::int64_t>(tiles, 1));
  int shares = 1;
  while (shares < most && (shares + 1) * (shares + 1) <= steps) ++shares;
  return shares;
}

template <int kRows, bool kRightAcross, Gather kGather>
void launchProduct(const Product& product, Context& context) {
  const int tiles = ceilDiv(product.m, kRows) * ceilDiv(product.n, kTileColumns);
  int steps = 0;
  for (int i = 0; i < product.termCount; ++i) steps += stepsOfDepth(product.terms[i].depth);
  const auto shares = static_cast<unsigned>(sharesFor(tiles, steps, context));
  const Split split{context.partials(), context.arrivals()};
  const Launch where{"product", dim3(static_cast<unsigned>(tiles), 1, shares), dim3(kTileThreads),
                     context.queue()};
  // Weights that few blocks share are on their way while the kernel ahead ends; many rows hide that wait anyway.
  const Term& first = product.terms[0];
  const bool prefetches = context.queue().overlapping && product.m <= kPrefetchingRows &&
                          product.termCount > 0 && first.begin == 0 && first.end == product.n;
  const auto start = [&](auto kernel) { launch(where, kernel, product, split, prefetches); };
  switch (product.exact ? Precision::kFloat32 : context.precision()) {
    case Precision::kFloat32:
      return start(productKernel<Float32, kRows, kRightAcross, kGather>);
    case Precision::kTf32:
      return start(productKernel<Tf32, kRows, kRightAcross, kGather>);
    case Precision::kBfloat16:
      return start(productKernel<Bfloat16, kRows, kRightAcross, kGather>);
  }
}

template <int kRows>
void launchSmall(const SmallProducts& products, Orientation left, Orientation right,
                 Context& context) {
  int tiles = 0, steps = 0;
  for (int i = 0; i < products.count; ++i) {
    const SmallProduct& item = products.items[i];
    tiles = std::max(tiles, ceilDiv(item.m, kRows) * ceilDiv(item.n, kTileColumns));
    steps = std::max(steps, stepsOfDepth(item.term.depth));
  }
  const int problems = products.count * products.segments;
  const auto shares =
      static_cast<unsigned>(sharesFor(std::int64_t{tiles} * problems, steps, context));
  const Split split{context.partials(), context.arrivals()};
  const Launch where{"small product",
                     dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(problems), shares),
                     dim3(kTileThreads), context.queue()};
  const bool leftAcross = left == Orientation::kAcross, rightAcross = right == Orientation::kAcross;
  if (leftAcross && rightAcross) {
    if (products.items[0].tap >= 0) {
      return launch(where, smallProductKernel<kRows, true, true, true>, products, split);
    }
    return launch(where, smallProductKernel<kRows, true, true, false>, products, split);
  }
  if (leftAcross) {
    return launch(where, smallProductKernel<kRows, true, false, false>, products, split);
  }
  LOKO_CHECK(!rightAcross, "an orientation that no operation uses");
  launch(where, smallProductKernel<kRows, false, false, false>, products, split);
}

}  // namespace

void run(const Product& product, Orientation right, Context& context) {
  static_assert(sizeof(Product) + sizeof(Split) + sizeof(bool) <= 4096, "parameters of a kernel");
  for (int i = 0; i < product.termCount; ++i) {
    const Term& term = product.terms[i];
    const bool readable = context.precision() == Precision::kBfloat16 && !product.exact;
    LOKO_CHECK(!term.right.half || (readable && unscaled(term)),
               "a bfloat16 operand that no kernel reads: exact, or with a scale");
  }
  const bool across = right == Orientation::kAcross;
  if (product.gather == Gather::kPatches) {
    launchProduct<kManyRows, false, Gather::kPatches>(product, context);
  } else if (product.gather == Gather::kCotangentPatches) {
    launchProduct<kManyRows, true, Gather::kCotangentPatches>(product, context);
  } else if (product.m <= kFewRows) {
    across ? launchProduct<kFewRows, true, Gather::kNone>(product, context)
           : launchProduct<kFewRows, false, Gather::kNone>(product, context);
  } else {
    across ? launchProduct<kManyRows, true, Gather::kNone>(product, context)
           : launchProduct<kManyRows, false, Gather::kNone>(product, context);
  }
}

void run(const SmallProducts& products, Orientation left, Orientation right, Context& context) {
  int rows = 0;
  for (int i = 0; i < products.count; ++i) rows = std::max(rows, products.items[i].m);
  SmallProducts part = products;
  const int most = kMaxGridY / products.count;
  for (int begin = 0; begin < products.segments; begin += most) {
    part.firstSegment = begin;
    part.segments = std::min(most, products.segments - begin);
    if (rows <= kFewRows) {
      launchSmall<kFewRows>(part, left, right, context);
    } else {
      launchSmall<kManyRows>(part, left, right, context);
    }
  }
}

}  // namespace loko::cuda
