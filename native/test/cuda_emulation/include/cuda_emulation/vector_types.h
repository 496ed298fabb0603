#pragma once

// Vector types with CUDA's alignment. A device reads and writes them with one instruction, which faults at an
// address that is not a multiple of it: here every copy checks both addresses, in every build.

#include <cstdint>

namespace loko::emulation {

[[noreturn]] void reportMisaligned(const char* type, unsigned alignment);

template <unsigned kAlignment>
void checkAlignment(const void* vector, const char* type) {
  auto address = reinterpret_cast<std::uintptr_t>(vector);
  __asm__("" : "+r"(address));  // the compiler would take the alignment of the type for granted
  if (address % kAlignment != 0) reportMisaligned(type, kAlignment);
}

}  // namespace loko::emulation

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
  constexpr operator uint3() const { return uint3{x, y, z}; }
};

#define LOKO_CHECKED_COPIES(name, align)                     \
  name() = default;                                          \
  name(const name& other) {                                  \
    *this = other;                                           \
  }                                                          \
  name& operator=(const name& other) {                       \
    ::loko::emulation::checkAlignment<align>(this, #name);   \
    ::loko::emulation::checkAlignment<align>(&other, #name); \
    return assign(other);                                    \
  }

#define LOKO_VECTOR2(name, type, align)                \
  struct alignas(align) name {                         \
    type x, y;                                         \
    constexpr name(type x_, type y_) : x(x_), y(y_) {} \
    LOKO_CHECKED_COPIES(name, align)                   \
                                                       \
   private:                                            \
    name& assign(const name& other) {                  \
      x = other.x, y = other.y;                        \
      return *this;                                    \
    }                                                  \
  };                                                   \
  inline constexpr name make_##name(type x, type y) {  \
    return name(x, y);                                 \
  }

#define LOKO_VECTOR4(name, type, align)                                                \
  struct alignas(align) name {                                                         \
    type x, y, z, w;                                                                   \
    constexpr name(type x_, type y_, type z_, type w_) : x(x_), y(y_), z(z_), w(w_) {} \
    LOKO_CHECKED_COPIES(name, align)                                                   \
                                                                                       \
   private:                                                                            \
    name& assign(const name& other) {                                                  \
      x = other.x, y = other.y, z = other.z, w = other.w;                              \
      return *this;                                                                    \
    }                                                                                  \
  };                                                                                   \
  inline constexpr name make_##name(type x, type y, type z, type w) {                  \
    return name(x, y, z, w);                                                           \
  }

LOKO_VECTOR2(int2, int, 8)
LOKO_VECTOR2(uint2, unsigned, 8)
LOKO_VECTOR2(float2, float, 8)
LOKO_VECTOR2(double2, double, 16)
LOKO_VECTOR4(int4, int, 16)
LOKO_VECTOR4(uint4, unsigned, 16)
LOKO_VECTOR4(float4, float, 16)
#undef LOKO_CHECKED_COPIES
#undef LOKO_VECTOR2
#undef LOKO_VECTOR4
