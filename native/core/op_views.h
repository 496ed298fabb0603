#pragma once

// Visits every operand of a step. The arena and the poison tests rely on this list being complete:
// a new operand of an operation must be added here.

#include <variant>

#include "core/op.h"

namespace loko {

template <class F, class... Views>
void visitViews(F& f, Views&... views) {
  (f(views), ...);
}

template <class F>
struct ViewVisitor {
  F& f;
  void operator()(Patchify& s) { visitViews(f, s.image, s.patches); }
  void operator()(AssembleTokens& s) { visitViews(f, s.patches, s.tokens); }
  void operator()(EmbedTokens& s) { visitViews(f, s.ids, s.positionIds, s.typeIds, s.out); }
  void operator()(LoraDown& s) { visitViews(f, s.x, s.h); }
  void operator()(Linear& s) { visitViews(f, s.x, s.y, s.residual, s.actGrad, s.h); }
  void operator()(LayerNorm& s) { visitViews(f, s.x, s.y, s.xhat, s.rstd); }
  void operator()(Attention& s) { visitViews(f, s.q, s.k, s.v, s.o, s.probs, s.mask); }
  void operator()(ConvLoraDown& s) { visitViews(f, s.x, s.h); }
  void operator()(Conv2d& s) { visitViews(f, s.x, s.y, s.residual, s.actGrad, s.h); }
  void operator()(BatchNorm& s) { visitViews(f, s.x, s.y); }
  void operator()(MaxPool& s) { visitViews(f, s.x, s.y, s.index); }
  void operator()(AvgPool& s) { visitViews(f, s.x, s.y); }
  void operator()(MeanRows& s) { visitViews(f, s.x, s.y); }
  void operator()(CopyRows& s) { visitViews(f, s.src, s.dst); }
  void operator()(Flatten& s) { visitViews(f, s.x, s.y); }
  void operator()(LoraBackward& s) { visitViews(f, s.dy, s.x, s.h, s.u); }
  void operator()(WeightBackward& s) { visitViews(f, s.dy, s.x); }
  void operator()(LinearBackward& s) { visitViews(f, s.dy, s.dx, s.derivative.factor, s.u); }
  void operator()(LayerNormBackward& s) { visitViews(f, s.dy, s.dx, s.xhat, s.rstd); }
  void operator()(AttentionBackward& s) {
    visitViews(f, s.dout, s.q, s.k, s.v, s.o, s.probs, s.mask, s.dq, s.dk, s.dv);
  }
  void operator()(ConvLoraBackward& s) { visitViews(f, s.dy, s.x, s.h, s.u, s.spread); }
  void operator()(Conv2dBackward& s) { visitViews(f, s.dy, s.dx, s.derivative.factor, s.spread); }
  void operator()(BatchNormBackward& s) { visitViews(f, s.dy, s.dx, s.x); }
  void operator()(MaxPoolBackward& s) { visitViews(f, s.dy, s.dx, s.index); }
  void operator()(AvgPoolBackward& s) { visitViews(f, s.dy, s.dx); }
  void operator()(MeanRowsBackward& s) { visitViews(f, s.dy, s.dx); }
  void operator()(FlattenBackward& s) { visitViews(f, s.dy, s.dx); }
  void operator()(ActivationBackward& s) { visitViews(f, s.dy, s.derivative.factor); }
  void operator()(AddRows& s) { visitViews(f, s.src, s.dst); }
  void operator()(ClearRows& s) { visitViews(f, s.dst); }
  void operator()(Gram&) {}
};

/// Calls f(View&) for every operand, absent ones included.
template <class F>
void eachView(Step& step, F f) {
  std::visit(ViewVisitor<F>{f}, step);
}

}  // namespace loko
