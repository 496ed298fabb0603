#pragma once

// The vocabulary between the plan and the backends: views into memory and one plain struct for each
// fused-granularity operation. The plan (core/plan.h) fills these structs once; a backend executes
// them without allocating. To add an operation: a struct here, its name in LOKO_OPERATIONS, a file
// in native/ref, a file in native/cpu (and one in native/cuda), a lowering rule in core/lower_*.cc.
//
// Shapes. An activation is [B, rows, cols]: tokens of a transformer or pixels of an image (NHWC)
// are rows, features are columns. A cotangent is [segments, rows, cols] with segments = k*B;
// segment s = c*B + b holds cotangent row c of sample b and meets the activations of sample s % B.
// The baselines run k = 1 and reduce over everything; LoKO keeps every segment apart. Same kernels,
// two integers (Frame::rows and Frame::reduce).

#include <cstdint>
#include <variant>
#include <vector>

#include "core/activation.h"
#include "core/op_image.h"
#include "core/view.h"

namespace loko {

// ---- forward ----------------------------------------------------------------------------------

/// image [B, channels*height, width] -> patches [B, (height/patch)*(width/patch),
/// channels*patch^2], patches in row-major order, features ordered (channel, y, x) as a Conv2d
/// weight is.
struct Patchify {
  View image, patches;
  int channels = 0, height = 0, width = 0, patch = 0;
};

/// tokens[b, 0] = cls + pos[0]; tokens[b, 1+t] = patches[b, t] + pos[1+t].
struct AssembleTokens {
  View patches, tokens;
  WeightId cls = kNoWeight, pos = kNoWeight;
};

/// out[b, t] = words[ids] + types[typeIds] + positions[positionIds]. The numbers of tokens come as
/// floats in the input space, [B, 1, T] each: whole, within their tables (Engine::setBatch checks),
/// and exact, because a table has fewer than 2^24 rows.
struct EmbedTokens {
  View ids, positionIds, typeIds, out;
  WeightId words = kNoWeight, positions = kNoWeight, types = kNoWeight;
  int vocabulary = 0, positionCount = 0, typeCount = 0;
};

/// h[:, site columns] = x A^T for every site. h [B, rows, sum of ranks].
struct LoraDown {
  View x, h;
  std::vector<LoraSite> sites;
};

/// z = x W^T + bias + sum over sites of scale h B^T + residual; y = act(z); actGrad = act'(z) when
/// present. W [out, in] is frozen (weight) or trained (trainedWeight in theta), never both; so is
/// the bias, of which a linear may have none.
struct Linear {
  View x, y;
  WeightId weight = kNoWeight, bias = kNoWeight;
  ParameterOffset trainedWeight = kNoParameter, trainedBias = kNoParameter;
  View residual;
  Activation activation = Activation::kNone;
  View actGrad;
  View h;
  std::vector<LoraSite> sites;
};

/// xhat = (x - mean) * rstd, y = xhat * gamma + beta per row. xhat and rstd [B, rows, 1] are
/// present only where backward needs them. beta is frozen, or trained and in theta.
struct LayerNorm {
  View x, y, xhat, rstd;
  WeightId gamma = kNoWeight, beta = kNoWeight;
  ParameterOffset trainedBeta = kNoParameter;
  float eps = 0;
};

/// o = softmax(scale q k^T + mask) v per head; head j owns columns [j*cols/heads, (j+1)*cols/heads) of q,
/// k, v and o. q and o may have fewer rows than k and v (only the first token queries). probs [B,
/// heads*q.rows, k.rows] is present where backward reads it; without it backward recomputes. mask
/// [B, 1, k.rows], where present, is 0 for a key that takes part and -infinity for padding, whose
/// probability is exactly 0; at least one key of each sample takes part.
struct Attention {
  View q, k, v, o, probs, mask;
  int heads = 0;
  float scale = 1;
};

// ---- backward (views named d* are cotangents, indexed by segment) ------------------------------

/// u = scale dy B for every site (columns as in h), and the parameter blocks of the Jacobian:
/// dB[seg] = scale dy^T h -> [out, rank] at site.b, dA[seg] = u^T x -> [rank, in] at site.a.
struct LoraBackward {
  View dy, x, h, u;
  std::vector<LoraSite> sites;
};

/// The Jacobian block of a trained linear: dW[seg] = dy^T x -> [out, in], db[seg] = sum over rows
/// of dy. Either may be absent; x belongs to dW. A bias alone is also how a layer norm trains beta.
struct WeightBackward {
  View dy, x;
  ParameterOffset weight = kNoParameter, bias = kNoParameter;
};

/// dx (+)= (dy W + sum over sites of u A) * derivative. The derivative is present when x is the output of
/// an activation whose derivative is folded in here.
struct LinearBackward {
  View dy, dx;
  bool accumulate = false;
  WeightId weight = kNoWeight;
  ParameterOffset trainedWeight = kNoParameter;
  FoldedDerivative derivative;
  View u;
  std::vector<LoraSite> sites;
};

/// dx (+)= rstd * (g - mean(g) - xhat * mean(g * xhat)) with g = dy * gamma.
struct LayerNormBackward {
  View dy, dx, xhat, rstd;
  bool accumulate = false;
  WeightId gamma = kNoWeight;
};

/// dv = P^T dO, dP = dO v^T, dS = P * (dP - rowsum(dO * o)), dq = scale dS k, dk = scale dS^T q.
/// dq, dk, dv are written (not accumulated); an absent one is not computed.
struct AttentionBackward {
  View dout, q, k, v, o, probs, mask;
  View dq, dk, dv;
  int heads = 0;
  float scale = 1;
};

/// dy *= derivative in place, where it could not be fused.
struct ActivationBackward {
  View dy;
  FoldedDerivative derivative;
};

/// dst[seg, t] += src[seg, t] for the rows of src (src.rows <= dst.rows).
struct AddRows {
  View src, dst;
};

/// Zeroes every row of a cotangent.
struct ClearRows {
  View dst;
};

/// gram += G[:, begin:end] diag(p[begin:end]) G[:, begin:end]^T, float64, all rows of G so far
/// propagated. Runs only when Frame::gram is set, while those columns are still hot in cache.
struct Gram {
  std::int64_t begin = 0, end = 0;
};

#define LOKO_OPERATIONS(X) \
  X(Patchify)              \
  X(AssembleTokens)        \
  X(EmbedTokens)           \
  X(LoraDown)              \
  X(Linear)                \
  X(LayerNorm)             \
  X(Attention)             \
  X(ConvLoraDown)          \
  X(Conv2d)                \
  X(BatchNorm)             \
  X(MaxPool)               \
  X(AvgPool)               \
  X(MeanRows)              \
  X(CopyRows)              \
  X(Flatten)               \
  X(LoraBackward)          \
  X(WeightBackward)        \
  X(LinearBackward)        \
  X(LayerNormBackward)     \
  X(AttentionBackward)     \
  X(ConvLoraBackward)      \
  X(Conv2dBackward)        \
  X(BatchNormBackward)     \
  X(MaxPoolBackward)       \
  X(AvgPoolBackward)       \
  X(MeanRowsBackward)      \
  X(FlattenBackward)       \
  X(ActivationBackward)    \
  X(AddRows)               \
  X(ClearRows)             \
  X(Gram)

using Step = std::variant<Patchify, AssembleTokens, EmbedTokens, LoraDown, Linear, LayerNorm,
                          Attention, ConvLoraDown, Conv2d, BatchNorm, MaxPool, AvgPool, MeanRows,
                          CopyRows, Flatten, LoraBackward, WeightBackward, LinearBackward,
                          LayerNormBackward, AttentionBackward, ConvLoraBackward, Conv2dBackward,
                          BatchNormBackward, MaxPoolBackward, AvgPoolBackward, MeanRowsBackward,
                          FlattenBackward, ActivationBackward, AddRows, ClearRows, Gram>;

/// The operation's name, for error messages and profiles.
const char* stepName(const Step& step);

}  // namespace loko
