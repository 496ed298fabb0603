#pragma once

// Vector types with CUDA's alignment, so that a misaligned vector access is one here as well (the
// undefined-behaviour sanitizer reports it).

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
  constexpr operator uint3() const { return uint3{x, y, z}; }
};

#define LOKO_VECTOR2(name, type, align)               \
  struct alignas(align) name {                        \
    type x, y;                                        \
  };                                                  \
  inline constexpr name make_##name(type x, type y) { \
    return name{x, y};                                \
  }

#define LOKO_VECTOR4(name, type, align)                               \
  struct alignas(align) name {                                        \
    type x, y, z, w;                                                  \
  };                                                                  \
  inline constexpr name make_##name(type x, type y, type z, type w) { \
    return name{x, y, z, w};                                          \
  }

LOKO_VECTOR2(int2, int, 8)
LOKO_VECTOR2(uint2, unsigned, 8)
LOKO_VECTOR2(float2, float, 8)
LOKO_VECTOR2(double2, double, 16)
LOKO_VECTOR4(int4, int, 16)
LOKO_VECTOR4(uint4, unsigned, 16)
LOKO_VECTOR4(float4, float, 16)
#undef LOKO_VECTOR2
#undef LOKO_VECTOR4
