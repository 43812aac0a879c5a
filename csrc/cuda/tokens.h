// Tokens as they are stored, and as tensor cores multiply them: dims 8 t ... + 7 of a chunk, as halves.
#pragma once
#include "mma.h"

namespace nestvec::cuda {

using Words = uint4[2];  // of rows g and g + 8

struct Halves {
  using Stored = uint16_t;
  static constexpr int ROWS = 2, PLANES = 1;  // tiles of 16 tokens; parts of a token
  struct Raw {
    uint4 words;
  };
  static __device__ void planes(const Raw& raw, uint4 (&planes)[1]) { planes[0] = raw.words; }
};

struct F16Tokens : Halves {
  static __device__ void multiply(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { mma_f16(c, a, b); }
};

struct BF16Tokens : Halves {
  static __device__ void multiply(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { mma_bf16(c, a, b); }
};

// float32 as three bfloat16, cut off one after the other: nothing is left.
struct F32Tokens {
  using Stored = uint32_t;
  static constexpr int ROWS = 1, PLANES = 3;
  struct Raw {
    uint4 words[2];
  };
  static __device__ uint32_t cut(uint32_t& a, uint32_t& b) {
    uint32_t high = b & 0xffff0000u, word = a >> 16 | high;
    a = __float_as_uint(__uint_as_float(a) - __uint_as_float(a & 0xffff0000u));
    b = __float_as_uint(__uint_as_float(b) - __uint_as_float(high));
    return word;
  }
  static __device__ void planes(Raw raw, uint4 (&planes)[3]) {
    uint4 &low = raw.words[0], &high = raw.words[1];
    for (int i = 0; i < 3; i++)
      planes[i] = {cut(low.x, low.y), cut(low.z, low.w), cut(high.x, high.y), cut(high.z, high.w)};
  }
  static __device__ void multiply(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { mma_bf16(c, a, b); }
};

// int8 is exact in bfloat16.
struct I8Tokens {
  using Stored = uint8_t;
  static constexpr int ROWS = 2, PLANES = 1;
  struct alignas(8) Raw {
    uint32_t low, high;
  };
  static __device__ uint32_t pair(uint32_t bytes) {
    uint32_t biased = bytes ^ 0x8080u;  // 2^23 + 128 + x
    uint32_t a = __float_as_uint(__uint_as_float(0x4b000000u | (biased & 255)) - 8388736.0f);
    uint32_t b = __float_as_uint(__uint_as_float(0x4b000000u | (biased >> 8 & 255)) - 8388736.0f);
    return a >> 16 | (b & 0xffff0000u);
  }
  static __device__ void planes(const Raw& raw, uint4 (&planes)[1]) {
    planes[0] = {pair(raw.low), pair(raw.low >> 16), pair(raw.high), pair(raw.high >> 16)};
  }
  static __device__ void multiply(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { mma_bf16(c, a, b); }
};

}  // namespace nestvec::cuda
