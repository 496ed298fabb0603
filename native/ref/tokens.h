#pragma once

// Operations that move rows: image to patches to tokens, and whole rows of cotangents.

#include "ref/memory.h"

namespace loko::ref {

template <class T>
void run(const Patchify& op, const Frame& frame, Memory<T>& memory) {
  const int down = op.height / op.patch, across = op.width / op.patch, side = op.patch;
  expectShape(op.image, op.channels * op.height, op.width, "image");
  expectShape(op.patches, down * across, op.channels * side * side, "patches");
  const Tensor<T> image = memory(op.image, frame.batch), patches = memory(op.patches, frame.batch);
  for (int b = 0; b < frame.batch; ++b) {
    for (int py = 0; py < down; ++py) {
      for (int px = 0; px < across; ++px) {
        for (int channel = 0; channel < op.channels; ++channel) {
          for (int y = 0; y < side; ++y) {
            for (int x = 0; x < side; ++x) {
              patches(b, py * across + px, (channel * side + y) * side + x) =
                  image(b, channel * op.height + py * side + y, px * side + x);
            }
          }
        }
      }
    }
  }
}

template <class T>
void run(const AssembleTokens& op, const Frame& frame, Memory<T>& memory) {
  const int rows = op.patches.rows, cols = op.patches.cols;
  expectShape(op.tokens, 1 + rows, cols, "tokens");
  const Tensor<T> patches = memory(op.patches, frame.batch),
                  tokens = memory(op.tokens, frame.batch);
  const T* cls = memory.vector(op.cls, cols);
  const T* pos = memory.vector(op.pos, std::int64_t{1 + rows} * cols);
  for (int b = 0; b < frame.batch; ++b) {
    for (int c = 0; c < cols; ++c) {
      tokens(b, 0, c) = cls[c] + pos[c];
      for (int t = 0; t < rows; ++t) {
        tokens(b, 1 + t, c) = patches(b, t, c) + pos[(1 + t) * cols + c];
      }
    }
  }
}

template <class T>
void run(const EmbedTokens& op, const Frame& frame, Memory<T>& memory) {
  const int tokens = op.out.rows, cols = op.out.cols;
  expectShape(op.ids, 1, tokens, "ids");
  expectShape(op.positionIds, 1, tokens, "positionIds");
  expectShape(op.typeIds, 1, tokens, "typeIds");
  const T* words = memory.vector(op.words, std::int64_t{op.vocabulary} * cols);
  const T* positions = memory.vector(op.positions, std::int64_t{op.positionCount} * cols);
  const T* types = memory.vector(op.types, std::int64_t{op.typeCount} * cols);
  const Tensor<T> ids = memory(op.ids, frame.batch), out = memory(op.out, frame.batch);
  const Tensor<T> positionIds = memory(op.positionIds, frame.batch);
  const Tensor<T> typeIds = memory(op.typeIds, frame.batch);
  const auto rowOf = [&](const T& id) {
    return static_cast<std::int64_t>(static_cast<double>(id)) * cols;
  };
  for (int b = 0; b < frame.batch; ++b) {
    for (int t = 0; t < tokens; ++t) {
      const T* word = words + rowOf(ids(b, 0, t));
      const T* type = types + rowOf(typeIds(b, 0, t));
      const T* position = positions + rowOf(positionIds(b, 0, t));
      for (int c = 0; c < cols; ++c) out(b, t, c) = word[c] + type[c] + position[c];
    }
  }
}

template <class T>
void run(const AddRows& op, const Frame& frame, Memory<T>& memory) {
  LOKO_CHECK(op.src.rows <= op.dst.rows && op.src.cols == op.dst.cols, "src does not fit dst");
  const Tensor<T> src = memory(op.src, frame.segments()), dst = memory(op.dst, frame.segments());
  for (int s = 0; s < frame.segments(); ++s) {
    for (int t = 0; t < src.rows(); ++t) {
      for (int c = 0; c < src.cols(); ++c) dst(s, t, c) += src(s, t, c);
    }
  }
}

template <class T>
void run(const ClearRows& op, const Frame& frame, Memory<T>& memory) {
  const Tensor<T> dst = memory(op.dst, frame.segments());
  for (int s = 0; s < frame.segments(); ++s) {
    for (int t = 0; t < dst.rows(); ++t) {
      for (int c = 0; c < dst.cols(); ++c) dst(s, t, c) = T(0);
    }
  }
}

}  // namespace loko::ref
