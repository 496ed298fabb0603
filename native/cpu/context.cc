#include "cpu/context.h"

#include <cstring>
#include <limits>

namespace loko::cpu {

namespace {

/// From so many rows on a product with the transpose of a weight pays for transposing it first: reading it
/// across its panels takes a tenth longer.
constexpr std::int64_t kTransposeRows = 512;
constexpr int kWorkPerElement = 4;               // of a transposition, in multiply-adds
constexpr std::size_t kArenaFloats = 64 * 1024;  // smaller weights have memory of their own

const OpKernels& opKernels(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512 || isa == Isa::kAmx) return kAvx512OpKernels;
  if (isa == Isa::kAvx2) return kAvx2OpKernels;
#endif
  LOKO_CHECK(isa == Isa::kGeneric, isaName(isa));
  return kGenericOpKernels;
}

template <class Map, class Pointer>
Map mapOf(const View& view, Pointer base) {
  Map map;
  map.base = base;
  map.ld = view.ld;
  // Evenly spaced rows need no division to find one.
  if (view.rows == 1) {
    map.ld = view.sampleStride;
  } else if (view.sampleStride != view.rows * view.ld) {
    map.blockRows = view.rows;
    map.blockStride = view.sampleStride;
  }
  return map;
}

}  // namespace

Context::Context(int threads, Isa chosen)
    : isa(chosen), kernels(loko::cpu::kernels(chosen)), ops(opKernels(chosen)), pool(threads) {}

// ---- spaces

MappedFloats& Context::space(Space space) {
  return memoryOf(space, scratch_, input_, theta_, jacobian_);
}

void Context::reserveJacobian(std::int64_t rows, std::int64_t parameters) {
  jacobian_.grow(jacobianSize(rows, parameters));
  parameters_ = parameters;
}

float* Context::at(const View& view, int samples) {
  if (!view.present()) return nullptr;
  const MappedFloats& memory = space(view.space);
  checkInside(view, samples, memory.size());
  return memory.data() + view.offset;
}

RowMap Context::rows(const View& view, int samples) {
  return mapOf<RowMap>(view, at(view, samples));
}

MutableRowMap Context::writableRows(const View& view, int samples) {
  return mapOf<MutableRowMap>(view, at(view, samples));
}

float* Context::parameter(ParameterOffset offset, std::int64_t count) {
  LOKO_CHECK(offset >= 0 && count >= 0 && offset + count <= theta_.size(),
             "parameters beyond the end of theta");
  return theta_.data() + offset;
}

float* Context::jacobian(std::int64_t row, ParameterOffset offset, std::int64_t count) {
  LOKO_CHECK(offset >= 0 && count >= 0 && offset + count <= parameters_ && row >= 0 &&
                 (row + 1) * parameters_ <= jacobian_.size(),
             "a block beyond the end of the Jacobian");
  return jacobian_.data() + row * parameters_ + offset;
}

// ---- frozen weights

WeightId Context::addMatrix(const float* data, int out, int in) {
  Weight weight;
  weight.out = out;
  weight.in = in;
  const std::size_t floats = PackedMatrix::floatCount(in, out);
  if (floats >= kArenaFloats) {
    weight.arena = arena_.allocate(floats);
    weight.matrix = PackedMatrix::view(in, out, weight.arena);  // zero already
  } else {
    weight.matrix = PackedMatrix(in, out);
  }
  weight.matrix.pack(data, in, WeightLayout::kNK);
  weights_.push_back(std::move(weight));
  return static_cast<WeightId>(weights_.size()) - 1;
}

WeightId Context::addVector(const float* data, std::int64_t size) {
  Weight weight;
  weight.size = size;
  weight.vector = allocateAligned(static_cast<std::size_t>(size));
  std::copy_n(data, size, weight.vector.get());
  weights_.push_back(std::move(weight));
  return static_cast<WeightId>(weights_.size()) - 1;
}

WeightId Context::addTable(int rows, int cols, std::function<void(int, float*)> readRow) {
  Weight weight;
  weight.table = std::make_unique<RowTable>(rows, cols, std::move(readRow));
  weights_.push_back(std::move(weight));
  return static_cast<WeightId>(weights_.size()) - 1;
}

void Context::release(WeightId id) {
  const Weight& former = weight(id);
  if (former.arena != nullptr) {
    WeightArena::release(former.arena, PackedMatrix::floatCount(former.in, former.out));
  }
  weights_[static_cast<std::size_t>(id)] = {};
}

const Context::Weight& Context::weight(WeightId id) const {
  LOKO_CHECK(id >= 0 && id < static_cast<int>(weights_.size()), "an unknown weight");
  return weights_[static_cast<std::size_t>(id)];
}

const PackedMatrix& Context::matrix(WeightId id, int out, int in) const {
  const Weight& found = weight(id);
  LOKO_CHECK(found.out == out && found.in == in,
             "a matrix is " + shapeText(found.out, found.in) + ", expected " + shapeText(out, in));
  return found.matrix;
}

const float* Context::vector(WeightId id, std::int64_t size) const {
  const Weight& found = weight(id);
  LOKO_CHECK(found.vector && found.size == size, "a vector has " + std::to_string(found.size) +
                                                     " elements, expected " + std::to_string(size));
  return found.vector.get();
}

RowTable& Context::table(WeightId id, int rows, int cols) {
  const Weight& found = weight(id);
  LOKO_CHECK(found.table && found.table->rows() == rows && found.table->cols() == cols,
             "a table was expected to be " + shapeText(rows, cols));
  return *found.table;
}

// ---- scratch

void Context::grow(AlignedFloats& memory, std::size_t& size, std::size_t floats) {
  if (floats <= size) return;
  memory = allocateAligned(floats);
  size = floats;
}

void Context::needGemm(std::int64_t m, int n, int k, int rank) {
  const std::size_t bytes = gemmScratchBytes(kernels, m, n, k, rank);
  grow(gemmScratch_, gemmFloats_,
       static_cast<std::size_t>(pool.threads()) * (bytes / sizeof(float) + 1));
}

void Context::needTransposedGemm(std::int64_t m, int n, int k, int rank) {
  needGemm(m, n, k, rank);
  if (m >= kTransposeRows && !isSplit(kernels, k, n))
    grow(transposed_, transposedFloats_, PackedMatrix::floatCount(k, n));
}

PackedMatrix Context::transposed(const PackedMatrix& matrix) {
  LOKO_CHECK(PackedMatrix::floatCount(matrix.n(), matrix.k()) <= transposedFloats_,
             "a product larger than any that prepare() has seen");
  const int panels = (matrix.k() + kPanelColumns - 1) / kPanelColumns;
  forEach(panels, std::int64_t{kWorkPerElement} * kPanelColumns * matrix.n(), [&](std::int64_t i) {
    matrix.transposePanelTo(kernels, static_cast<int>(i) * kPanelColumns, transposed_.get());
  });
  return PackedMatrix::view(matrix.n(), matrix.k(), transposed_.get());
}

void Context::gemm(const GemmArgs& args) {
  if (args.b.packed && args.b.transposed && args.m >= kTransposeRows &&
      transposesExactly(kernels, *args.b.packed)) {
    const PackedMatrix matrix = transposed(*args.b.packed);
    GemmArgs plain = args;
    plain.b.packed = &matrix;
    plain.b.transposed = false;
    return gemm(plain);
  }
  const std::size_t bytes =
      gemmScratchBytes(kernels, args.m, args.n, args.k, args.tailV ? args.tailV->rank() : 0);
  LOKO_CHECK(static_cast<std::size_t>(pool.threads()) * bytes <= gemmFloats_ * sizeof(float),
             "a product larger than any that prepare() has seen");
  loko::cpu::gemm(kernels, pool, args, gemmScratch_.get());
}

void Context::needTail(int rank, int n) {
  for (const auto& tail : tails_)
    if (tail->rank() == rank && tail->n() == n) return;
  tails_.push_back(std::make_unique<PackedTail>(rank, n));
}

const PackedTail& Context::packTail(int rank, int n, const TailSite* sites, int count) {
  for (const auto& tail : tails_) {
    if (tail->rank() != rank || tail->n() != n) continue;
    tail->pack(sites, count);
    return *tail;
  }
  throw Error(ErrorCode::kInternal, "A low-rank term of a shape that prepare() has not seen");
}

void Context::needShared(std::size_t floats) {
  grow(shared_, sharedFloats_, floats);
}

float* Context::shared(std::size_t floats) {
  LOKO_CHECK(floats <= sharedFloats_, "more scratch than prepare() has seen");
  return shared_.get();
}

void Context::needLocal(std::size_t floats) {
  // Whole cache lines: threads never share one.
  const std::size_t padded = (floats + 15) / 16 * 16;
  if (padded <= localFloats_) return;
  grow(local_, localTotal_, padded * static_cast<std::size_t>(pool.threads()));
  localFloats_ = padded;
}

float* Context::local(int part, std::size_t floats) {
  LOKO_CHECK(floats <= localFloats_, "more scratch than prepare() has seen");
  return local_.get() + static_cast<std::size_t>(part) * localFloats_;
}

}  // namespace loko::cpu
