// The low-rank branch of a convolution, and its blocks of the Jacobian.
//
// h[p, r] sums A[r, c, tap] x[q, c] over the input pixel q that output pixel p has as its tap. Either x meets
// A of all taps at once, and each output pixel adds up what its taps left; or the product is one of
// gathered patches, like that of the convolution itself, with all but r of 16 columns wasted. The first
// costs taps * r * in * input pixels, the second taps * 16 * in * output pixels multiply-adds.
//
// dA[r, c, tap] sums u[p, r] x[q, c] over the output
// pixels p and the input pixel q that each has as its tap. Either u is spread over the input pixels, and
// one product with x as it lies in memory gives the rows (tap, r); or patches of x are gathered, a block of
// rows at a time, and products with u give the rows r of columns (tap, c). The first costs
// taps * r * in * input pixels multiply-adds, the second taps * r * in * output pixels and the gathering.
#include <limits>

#include "cpu/lora_terms.h"
#include "cpu/patches.h"

namespace loko::cpu {

namespace {

constexpr int kPatchRows = 384;  // gathered at a time: one block of the depth of a product

std::size_t rounded(std::int64_t floats) {
  return static_cast<std::size_t>((floats + 15) / 16 * 16);
}

/// u where each input pixel meets it, see ConvLoraBackward::spread.
void writeSpread(const ConvLoraBackward& op, const Frame& frame, Context& context) {
  const Window& w = op.window;
  const int columns = op.u.cols, taps = w.taps();
  expectShape(op.spread, w.input.pixels(), taps * columns, "spread");
  const float* u = context.at(op.u, frame.segments());
  const MutableRowMap spread = context.writableRows(op.spread, frame.segments());
  context.forEach(
      std::int64_t{frame.segments()} * w.input.height, 10 * w.input.width * op.spread.cols,
      [&](std::int64_t line) {
        const float* segment = u + line / w.input.height * op.u.sampleStride;
        const int y = static_cast<int>(line % w.input.height) + w.padding.height;
        for (int column = 0; column < w.input.width; ++column) {
          float* target = spread.row(line * w.input.width + column);
          const int x = column + w.padding.width;
          for (int ky = 0; ky < w.kernel.height; ++ky) {
            const int down = y - ky * w.dilation.height, oy = down / w.stride.height;
            const bool onRow = down >= 0 && down % w.stride.height == 0 && oy < w.output.height;
            for (int kx = 0; kx < w.kernel.width; ++kx, target += columns) {
              const int across = x - kx * w.dilation.width, ox = across / w.stride.width;
              const bool met =
                  onRow && across >= 0 && across % w.stride.width == 0 && ox < w.output.width;
              if (met) {
                std::copy_n(segment + (std::int64_t{oy} * w.output.width + ox) * op.u.ld, columns,
                            target);
              } else {
                std::fill_n(target, columns, 0.0f);
              }
            }
          }
        }
      });
}

/// A block of products, of which element (tap, r, c) lies at tap * tapStride + r * rankStride + c, into
/// dA of every site.
void storeFactors(const ConvLoraBackward& op, const float* block, std::int64_t tapStride,
                  std::int64_t rankStride, std::int64_t row, Context& context) {
  const int in = op.x.cols, taps = op.window.taps();
  for (const LoraSite& site : op.sites) {
    float* target = context.jacobian(row, site.a, std::int64_t{site.rank} * in * taps);
    for (int r = 0; r < site.rank; ++r) {
      const float* source = block + (site.hBegin + r) * rankStride;
      for (int c = 0; c < in; ++c) {
        for (int tap = 0; tap < taps; ++tap) *target++ = source[tap * tapStride + c];
      }
    }
  }
}

/// From the spread u: the products [(tap, r), in] of one segment after the other.
void writeFromSpread(const ConvLoraBackward& op, const Frame& frame, Context& context) {
  const int in = op.x.cols, rows = op.spread.cols;
  float* block = context.shared(rounded(std::int64_t{rows} * in));
  for (int s = 0; s < frame.segments(); ++s) {
    GemmArgs args;
    args.m = rows;
    args.n = in;
    args.k = op.spread.rows;
    args.a.transposed = true;
    args.a.rows.base = context.at(op.spread, frame.segments()) + s * op.spread.sampleStride;
    args.a.rows.ld = op.spread.ld;
    args.b.data = context.at(op.x, frame.batch) + s % frame.batch * op.x.sampleStride;
    args.b.ld = op.x.ld;
    args.c.base = block;
    args.c.ld = in;
    args.epilogue.accumulate = frame.reduce && s > 0;
    context.gemm(args);
    if (frame.reduce && s + 1 < frame.segments()) continue;
    storeFactors(op, block, std::int64_t{op.u.cols} * in, in, frame.reduce ? 0 : frame.firstRow + s,
                 context);
  }
}

/// From patches of x: the products [r, (tap, in)] of all cotangent rows of a sample, a block of its pixels
/// after the other.
void writeFromPatches(const ConvLoraBackward& op, const Frame& frame, Context& context) {
  const int depth = op.window.taps() * op.x.cols, columns = op.u.cols, pixels = op.u.rows;
  const std::size_t patchFloats = rounded(std::int64_t{kPatchRows} * depth);
  const std::int64_t blockSize = std::int64_t{columns} * depth;
  float* patches = context.shared(patchFloats + rounded(frame.rows * blockSize));
  float* block = patches + patchFloats;
  const PatchRows source = patchesOf(op.window, op.x, context.at(op.x, frame.batch), op.x.cols);
  const float* u = context.at(op.u, frame.segments());
  for (int b = 0; b < frame.batch; ++b) {
    for (int begin = 0; begin < pixels; begin += kPatchRows) {
      const int count = std::min(kPatchRows, pixels - begin);
      context.forEach(count, 10 * depth, [&](std::int64_t i) {
        source.copy(patches + i * depth, std::int64_t{b} * pixels + begin + i, 0, depth);
      });
      // All rows of a sample in one product, or, to add them up, one after the other.
      const int products = frame.reduce ? frame.rows : 1;
      for (int c = 0; c < products; ++c) {
        GemmArgs args;
        args.m = std::int64_t{frame.reduce ? 1 : frame.rows} * columns;
        args.n = depth;
        args.k = count;
        args.a.transposed = true;
        args.a.rows.base =
            u + (std::int64_t{c} * frame.batch + b) * op.u.sampleStride + begin * op.u.ld;
        args.a.rows.ld = op.u.ld;
        args.a.columnBlock = columns;
        args.a.columnBlockStride = frame.batch * op.u.sampleStride;
        args.b.data = patches;
        args.b.ld = depth;
        args.c.base = block;
        args.c.ld = depth;
        args.epilogue.accumulate = begin > 0 || (frame.reduce && (b > 0 || c > 0));
        context.gemm(args);
      }
    }
    for (int c = 0; c < frame.rows && !frame.reduce; ++c) {
      storeFactors(op, block + c * blockSize, op.x.cols, depth,
                   frame.firstRow + std::int64_t{c} * frame.batch + b, context);
    }
  }
  if (frame.reduce) storeFactors(op, block, op.x.cols, depth, 0, context);
}

/// Whether x meets all taps at once.
bool meetsAllTaps(const ConvLoraDown& op) {
  constexpr int kChannels = 32;  // below, products are too short for their results
  return op.window.taps() > 1 && op.x.cols >= kChannels &&
         op.window.input.pixels() < 2 * op.window.output.pixels();
}

/// A of all sites: [in, (tap, column of h)] where x meets all taps at once, else [(tap, in), column of h].
PackedMatrix packFactors(const ConvLoraDown& op, float* memory, Context& context) {
  const int in = op.x.cols, taps = op.window.taps(), columns = columnsOfSites(op.sites);
  const bool allTaps = meetsAllTaps(op);
  PackedMatrix factors =
      allTaps ? PackedMatrix(in, taps * columns, memory) : PackedMatrix(taps * in, columns, memory);
  for (const LoraSite& site : op.sites) {
    const float* a = context.parameter(site.a, std::int64_t{site.rank} * in * taps);
    for (int r = site.hBegin; r < site.hBegin + site.rank; ++r) {
      for (int c = 0; c < in; ++c) {
        for (int tap = 0; tap < taps; ++tap) {
          const int k = allTaps ? c : tap * in + c, n = allTaps ? tap * columns + r : r;
          factors.set(k, n, *a++);
        }
      }
    }
  }
  return factors;
}

/// x of one sample times A of all taps, [input pixels, (tap, column of h)].
void multiplyTaps(const ConvLoraDown& op, const PackedMatrix& factors, int sample, float* met,
                  const Frame& frame, Context& context) {
  GemmArgs args;
  args.m = op.x.rows;
  args.n = factors.n();
  args.k = op.x.cols;
  args.a.rows.base = context.at(op.x, frame.batch) + sample * op.x.sampleStride;
  args.a.rows.ld = op.x.ld;
  args.b.packed = &factors;
  args.c.base = met;
  args.c.ld = factors.n();
  context.gemm(args);
}

/// h of one sample: each output pixel adds up what its taps met.
void addTaps(const ConvLoraDown& op, const float* met, int columns, int sample, const Frame& frame,
             Context& context) {
  const Window& w = op.window;
  const MutableRowMap h = context.writableRows(op.h, frame.batch);
  const std::int64_t row = std::int64_t{w.taps()} * columns;
  context.forEach(w.output.pixels(), 2 * row, [&](std::int64_t p) {
    float* sum = h.row(std::int64_t{sample} * w.output.pixels() + p);
    std::fill_n(sum, columns, 0.0f);
    const int top = static_cast<int>(p) / w.output.width * w.stride.height - w.padding.height;
    const int left = static_cast<int>(p) % w.output.width * w.stride.width - w.padding.width;
    for (int tap = 0; tap < w.taps(); ++tap) {
      const int y = top + tap / w.kernel.width * w.dilation.height;
      const int x = left + tap % w.kernel.width * w.dilation.width;
      if (y < 0 || y >= w.input.height || x < 0 || x >= w.input.width) continue;
      const float* term = met + (std::int64_t{y} * w.input.width + x) * row + tap * columns;
      for (int r = 0; r < columns; ++r) sum[r] += term[r];
    }
  });
}

std::size_t floatsOfFactors(const ConvLoraDown& op) {
  const int taps = op.window.taps(), columns = columnsOfSites(op.sites);
  return meetsAllTaps(op) ? PackedMatrix::floatCount(op.x.cols, taps * columns)
                          : PackedMatrix::floatCount(taps * op.x.cols, columns);
}

}  // namespace

void prepare(const ConvLoraDown& op, const WorkspaceHint& hint, Context& context) {
  const int taps = op.window.taps(), columns = columnsOfSites(op.sites);
  if (meetsAllTaps(op)) {
    context.needGemm(op.x.rows, taps * columns, op.x.cols);
    context.needShared(rounded(static_cast<std::int64_t>(floatsOfFactors(op))) +
                       rounded(std::int64_t{op.x.rows} * taps * columns));
  } else {
    context.needGemm(std::int64_t{hint.batch} * op.h.rows, columns, taps * op.x.cols);
    context.needShared(rounded(static_cast<std::int64_t>(floatsOfFactors(op))));
  }
}

void run(const ConvLoraDown& op, const Frame& frame, Context& context) {
  expectShape(op.x, op.window.input.pixels(), op.x.cols, "x");
  expectShape(op.h, op.window.output.pixels(), op.h.cols, "h");
  checkSites(op.sites, op.h, op.h.rows, std::numeric_limits<int>::max());
  const int in = op.x.cols, taps = op.window.taps(), columns = columnsOfSites(op.sites);
  const bool allTaps = meetsAllTaps(op);
  const std::size_t ofFactors = rounded(static_cast<std::int64_t>(floatsOfFactors(op)));
  const std::size_t ofMet = allTaps ? rounded(std::int64_t{op.x.rows} * taps * columns) : 0;
  float* memory = context.shared(ofFactors + ofMet);
  const PackedMatrix factors = packFactors(op, memory, context);
  if (allTaps) {
    for (int b = 0; b < frame.batch; ++b) {
      multiplyTaps(op, factors, b, memory + ofFactors, frame, context);
      addTaps(op, memory + ofFactors, columns, b, frame, context);
    }
    return;
  }
  const PatchRows patches = patchesOf(op.window, op.x, context.at(op.x, frame.batch), in);
  GemmArgs args;
  args.m = std::int64_t{frame.batch} * op.h.rows;
  args.n = columns;
  args.k = taps * in;
  args.a.source = &patches;
  args.b.packed = &factors;
  args.c = context.writableRows(op.h, frame.batch);
  context.gemm(args);
}

void prepare(const ConvLoraBackward& op, const WorkspaceHint& hint, Context& context) {
  needOutputSide({op.dy, op.h, op.u, op.sites}, hint, context);
  const int depth = op.window.taps() * op.x.cols;
  if (op.spread.present()) {
    context.needGemm(op.spread.cols, op.x.cols, op.spread.rows);
    context.needShared(rounded(std::int64_t{op.spread.cols} * op.x.cols));
    return;
  }
  const std::int64_t rows = std::int64_t{hint.maxRows} * op.u.cols;
  context.needGemm(rows, depth, kPatchRows);
  context.needShared(rounded(std::int64_t{kPatchRows} * depth) + rounded(rows * depth));
}

void run(const ConvLoraBackward& op, const Frame& frame, Context& context) {
  expectShape(op.x, op.window.input.pixels(), op.x.cols, "x");
  expectShape(op.dy, op.window.output.pixels(), op.dy.cols, "dy");
  writeOutputSide({op.dy, op.h, op.u, op.sites}, frame, context);
  if (!op.spread.present()) return writeFromPatches(op, frame, context);
  writeSpread(op, frame, context);
  writeFromSpread(op, frame, context);
}

}  // namespace loko::cpu
