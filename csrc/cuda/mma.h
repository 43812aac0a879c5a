// Products of small matrices by one warp: mma.sync of PTX, fragments as the PTX manual lays them out (9.7.14.5).
// Lane l has, with g = l / 4 and t = l % 4, of A (16 rows): rows g and g + 8; of B (8 columns): column g; of C: rows g
// and g + 8, columns 2 t and 2 t + 1: c[0], c[1] of row g, c[2], c[3] of row g + 8.
// Words of A: a[0] row g, a[1] row g + 8, a[2] and a[3] the same rows half the depth further; of B: b[0], b[1]
// likewise. Word t of half the depth h holds, as bytes, k = 16 h + 4 t ... + 3; as halves, k = 8 h + 2 t, + 1.
#pragma once
#include "device.h"

namespace nestvec::cuda {

#ifdef NESTVEC_CUDA_EMULATED

namespace {

template <class C, class Product>
void emulated_mma(C (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Product product) {
  static uint32_t as[32][4], bs[32][2];  // a warp at a time: its lanes go on together
  int lane = emulated::lane(), g = lane / 4, t = lane % 4;
  emulated::warp_barrier();
  memcpy(as[lane], a, sizeof(a));
  memcpy(bs[lane], b, sizeof(b));
  emulated::warp_barrier();
  for (int i = 0; i < 4; i++) {
    int row = i / 2, column = 2 * t + i % 2;
    for (int half = 0; half < 2; half++)
      for (int word = 0; word < 4; word++)
        c[i] += product(as[g * 4 + word][row + 2 * half], bs[column * 4 + word][half]);
  }
  emulated::warp_barrier();
}

inline float float_of_f16(uint32_t bits) {
  uint32_t sign = (bits & 0x8000u) << 16, exponent = bits >> 10 & 31, mantissa = bits & 1023;
  if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | mantissa << 13);
  float value = exponent ? std::ldexp(float(1024 + mantissa), int(exponent) - 25) : std::ldexp(float(mantissa), -24);
  return sign ? -value : value;
}

}  // namespace

// c += rows of bytes without sign times columns of bytes with one; depth 32.
inline void mma_u8s8(int (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  emulated_mma(c, a, b, [](uint32_t x, uint32_t y) {
    int sum = 0;
    for (int i = 0; i < 32; i += 8) sum += int(x >> i & 255) * int(int8_t(y >> i & 255));
    return sum;
  });
}

inline void mma_s8s8(int (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  emulated_mma(c, a, b, [](uint32_t x, uint32_t y) {
    int sum = 0;
    for (int i = 0; i < 32; i += 8) sum += int(int8_t(x >> i & 255)) * int(int8_t(y >> i & 255));
    return sum;
  });
}

// Depth 256: the number of bits that are one in both. Words of A and B as above, a bit each; word t of half the depth
// holds k = 128 h + 32 t ... + 31. (Differing bits are native to few GPUs: the driver of others makes a call of it.)
inline void mma_b1(int (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  emulated_mma(c, a, b, [](uint32_t x, uint32_t y) { return __popc(x & y); });
}

// Depth 16; sums are float32, in no stated order.
inline void mma_f16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  emulated_mma(c, a, b, [](uint32_t x, uint32_t y) {
    return float_of_f16(x & 0xffff) * float_of_f16(y & 0xffff) + float_of_f16(x >> 16) * float_of_f16(y >> 16);
  });
}

inline void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  emulated_mma(c, a, b, [](uint32_t x, uint32_t y) {
    auto widened = [](uint32_t bits) { return __uint_as_float(bits << 16); };
    return widened(x) * widened(y) + widened(x >> 16) * widened(y >> 16);
  });
}

#else

#define NESTVEC_MMA(name, C, letter, shape)                                                                   \
  __device__ __forceinline__ void name(C(&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {            \
    asm volatile("mma.sync.aligned." shape " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
                 : "+" letter(c[0]), "+" letter(c[1]), "+" letter(c[2]), "+" letter(c[3])                     \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                         \
  }

NESTVEC_MMA(mma_u8s8, int, "r", "m16n8k32.row.col.s32.u8.s8.s32")
NESTVEC_MMA(mma_s8s8, int, "r", "m16n8k32.row.col.s32.s8.s8.s32")
NESTVEC_MMA(mma_b1, int, "r", "m16n8k256.row.col.s32.b1.b1.s32.and.popc")
NESTVEC_MMA(mma_f16, float, "f", "m16n8k16.row.col.f32.f16.f16.f32")
NESTVEC_MMA(mma_bf16, float, "f", "m16n8k16.row.col.f32.bf16.bf16.f32")

#undef NESTVEC_MMA

#endif

}  // namespace nestvec::cuda
