#pragma once

// The memory that the operations of the specification work on, and how a View addresses it. T is
// double in the backend; tests also use long double (central differences) and a type that carries a
// bound on the rounding error of single precision.

#include <cstdint>
#include <string>
#include <vector>

#include "core/backend.h"
#include "core/op.h"
#include "core/op_checks.h"
#include "core/status.h"

namespace loko::ref {

/// What a View addresses; false where the operand is absent.
template <class T>
class Tensor {
 public:
  Tensor() = default;
  Tensor(T* base, const View& view) : base_(base), view_(view) {}

  explicit operator bool() const { return base_ != nullptr; }
  int rows() const { return view_.rows; }
  int cols() const { return view_.cols; }
  T& operator()(int s, int t, int c) const {
    return base_[s * view_.sampleStride + t * view_.ld + c];
  }

 private:
  T* base_ = nullptr;
  View view_;
};

template <class T>
struct State final : StateArray {
  std::int64_t size() const override { return static_cast<std::int64_t>(values.size()); }
  std::vector<T> values;
};

template <class T>
struct Weight {
  std::vector<T> values;
  int out = 0, in = 0;  // of a matrix; 0 for a vector
};

template <class T>
class Memory {
 public:
  std::vector<T> scratch, input, theta;
  std::vector<T> jacobian;  // [rows, parameters]
  std::int64_t parameters = 0;
  std::vector<Weight<T>> weights;

  std::vector<T>& space(Space space) { return memoryOf(space, scratch, input, theta, jacobian); }

  /// `samples` is B for an activation and the number of segments for a cotangent.
  Tensor<T> operator()(const View& view, int samples) {
    if (!view.present()) return {};
    std::vector<T>& memory = space(view.space);
    checkInside(view, samples, static_cast<std::int64_t>(memory.size()));
    return Tensor<T>(memory.data() + view.offset, view);
  }

  /// A frozen [out, in] matrix, row-major.
  const T* matrix(WeightId id, int out, int in) const {
    const Weight<T>& weight = at(id);
    LOKO_CHECK(
        weight.out == out && weight.in == in,
        "a matrix is " + shapeText(weight.out, weight.in) + ", expected " + shapeText(out, in));
    return weight.values.data();
  }

  const T* vector(WeightId id, std::int64_t size) const {
    const Weight<T>& weight = at(id);
    LOKO_CHECK(static_cast<std::int64_t>(weight.values.size()) == size,
               "a vector has " + std::to_string(weight.values.size()) + " elements, expected " +
                   std::to_string(size));
    return weight.values.data();
  }

  const T* parameter(ParameterOffset offset, std::int64_t count) const {
    LOKO_CHECK(offset >= 0 && offset + count <= static_cast<std::int64_t>(theta.size()),
               "parameters beyond the end of theta");
    return theta.data() + offset;
  }

  /// The block [offset, offset + count) of the Jacobian row that a segment writes.
  T* jacobianBlock(const Frame& frame, int segment, ParameterOffset offset, std::int64_t count) {
    const std::int64_t row = frame.reduce ? 0 : frame.firstRow + segment;
    LOKO_CHECK(offset >= 0 && offset + count <= parameters &&
                   (row + 1) * parameters <= static_cast<std::int64_t>(jacobian.size()),
               "a block beyond the end of the Jacobian");
    return jacobian.data() + row * parameters + offset;
  }

 private:
  const Weight<T>& at(WeightId id) const {
    LOKO_CHECK(id >= 0 && id < static_cast<int>(weights.size()), "an unknown weight");
    return weights[static_cast<std::size_t>(id)];
  }
};

/// A block of the Jacobian is written, never accumulated, by its step: in reduce mode the first
/// segment overwrites what was there and the others add to it.
template <class T>
void storeGradient(const Frame& frame, int segment, T& target, const T& value) {
  if (frame.reduce && segment > 0) {
    target += value;
  } else {
    target = value;
  }
}

}  // namespace loko::ref
