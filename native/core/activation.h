#pragma once

// Alone in its file: the kernels of each instruction set include it, and they must see no header with
// inline functions (CMakeLists.txt says why).

#include <cstdint>

namespace loko {

enum class Activation : std::uint8_t { kNone, kGelu, kGeluTanh, kRelu, kQuickGelu, kTanh };

}  // namespace loko
