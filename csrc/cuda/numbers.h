// Arithmetic that must give the bits of python/nestvec/kernels/lanes.py. Compiled without contraction (--fmad=false).
#pragma once
#include "device.h"

namespace nestvec::cuda {

constexpr int LANES = 16;  // lane l of a sum takes dims l, l + 16, ...: half a warp
constexpr int IP = 0, L2 = 1, COSINE = 2;
constexpr float HUGE_ESTIMATE = 3e38f;

// Sum of sixteen lanes in the order 16-8-4-2-1; every lane of the half warp gets it.
__device__ inline double fold(double lane) {
  for (int width = 8; width > 0; width /= 2) lane += __shfl_xor_sync(EVERYBODY, lane, width, LANES);
  return lane;
}

// Unsigned numbers that order as the floats do: zeros of both signs are one. NaN never occurs.
__device__ inline uint32_t ordered(float value) {
  uint32_t bits = __float_as_uint(value + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ inline float unordered(uint32_t key) {
  return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// Better score first, then the smaller row: the larger key is the better result.
__device__ inline uint64_t key_of(float value, int32_t row) {
  return uint64_t(ordered(value)) << 32 | (0xffffffffu - uint32_t(row));
}

__device__ inline bool better(double score, int64_t id, double other, int64_t other_id) {
  return score > other || (score == other && id < other_id);
}

// A score in the units of a scan's upper bounds, rounded down past every rounding on the way: lanes.threshold.
__device__ inline float threshold(double tau, double multiply, double offset) {
  if (tau == -INFINITY) return -INFINITY;
  double scaled = tau * multiply;
  double low = scaled + offset - (fabs(scaled) + fabs(offset)) * 0x1p-19 - 1e-43;
  return float(low < 3e38 ? low : 3e38);
}

__device__ inline float widened_bf16(uint16_t bits) { return __uint_as_float(uint32_t(bits) << 16); }

__device__ inline float widened_f16(uint16_t bits) {
#ifndef __CUDACC__
  uint32_t sign = uint32_t(bits & 0x8000) << 16, rest = bits & 0x7fff;
  if (rest < 0x400) {  // subnormal: its value is rest times 2^-24
    float value = float(rest) * 0x1p-24f;
    return sign ? -value : value;
  }
  return __uint_as_float(sign | ((rest << 13) + (rest < 0x7c00 ? 0x38000000u : 0x70000000u)));
#else
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
#endif
}

// How rows are stored: elements as they lie in memory, and float32 values.
struct F32 {
  using Stored = float;
  static __device__ float widened(float value) { return value; }
};
struct F16 {
  using Stored = uint16_t;
  static __device__ float widened(uint16_t bits) { return widened_f16(bits); }
};
struct BF16 {
  using Stored = uint16_t;
  static __device__ float widened(uint16_t bits) { return widened_bf16(bits); }
};

struct I8 {
  using Stored = int8_t;
  static __device__ float widened(int8_t value) { return value; }
};

__device__ inline bool allows(const uint64_t* words, int64_t row) {
  return !words || (words[row / 64] >> (row % 64) & 1);
}

}  // namespace nestvec::cuda
