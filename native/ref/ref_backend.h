#pragma once

// The executable specification as a backend: every operation in double precision by plain loops, one
// thread. For tests; the other backends are compared with it.

#include <memory>

#include "core/backend.h"

namespace loko::ref {

/// Memory that was reserved but never written holds NaN, so that a plan which reads it shows.
std::unique_ptr<Backend> makeRefBackend();

}  // namespace loko::ref
