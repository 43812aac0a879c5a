// Products of small matrices by one warp: mma.sync of PTX, fragments as the PTX manual lays them out (9.7.14.5).
// Lane l has, with g = l / 4 and t = l % 4, of A (16 rows): rows g and g + 8; of B (8 columns): column g; of C: rows g
// and g + 8, columns 2 t and 2 t + 1: c[0], c[1] of row g, c[2], c[3] of row g + 8.
// Words of A: a[0] row g, a[1] row g + 8, a[2] and a[3] the same rows half the depth further; of B: b[0], b[1]
// likewise. Word t of half the depth h holds, as bytes, k = 16 h + 4 t ... + 3; as halves, k = 8 h + 2 t, + 1.
#pragma once
#include "numbers.h"

namespace nestvec::cuda {

#ifndef __CUDACC__

namespace {

// Fragments are written out as the matrices they make, in the types their products are taken in.
template <class C, class A, class B, int DEPTH, class WidenA, class WidenB>
void emulated_mma(C (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], WidenA widen_a, WidenB widen_b,
                  const emulated::Where& where) {
  struct Operands {
    A rows[16][DEPTH];
    B columns[8][DEPTH];
  };
  static_assert(sizeof(Operands) <= emulated::EXCHANGED);
  constexpr int WORD = DEPTH / 8;  // elements of a word
  auto all = static_cast<Operands*>(emulated::of_warp());
  int g = emulated::lane() / 4, t = emulated::lane() % 4;
  for (int half = 0; half < 2; half++)
    for (int i = 0; i < WORD; i++) {
      int k = half * DEPTH / 2 + t * WORD + i, shift = i * 32 / WORD;
      all->rows[g][k] = widen_a(a[2 * half] >> shift);
      all->rows[g + 8][k] = widen_a(a[2 * half + 1] >> shift);
      all->columns[g][k] = widen_b(b[half] >> shift);
    }
  emulated::warp_barrier(EVERYBODY, where);
  for (int i = 0; i < 4; i++) {
    const A* row = all->rows[g + i / 2 * 8];
    const B* column = all->columns[2 * t + i % 2];
    C sum = 0;
    for (int k = 0; k < DEPTH; k++) sum += C(row[k]) * C(column[k]);
    c[i] += sum;
  }
}

template <class T>
T narrowed(uint32_t word) {
  return T(word);
}

}  // namespace

// c += rows of bytes without sign times columns of bytes with one; depth 32.
inline void mma_u8s8(int (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], NESTVEC_HERE) {
  emulated_mma<int, int16_t, int16_t, 32>(c, a, b, narrowed<uint8_t>, narrowed<int8_t>, where);
}

inline void mma_s8s8(int (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], NESTVEC_HERE) {
  emulated_mma<int, int16_t, int16_t, 32>(c, a, b, narrowed<int8_t>, narrowed<int8_t>, where);
}

// Depth 256: the number of bits that are one in both. Words of A and B as above, a bit each; word t of half the depth
// holds k = 128 h + 32 t ... + 31. (Differing bits are native to few GPUs: the driver of others makes a call of it.)
inline void mma_b1(int (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], NESTVEC_HERE) {
  auto lowest = [](uint32_t word) { return uint8_t(word & 1); };
  emulated_mma<int, uint8_t, uint8_t, 256>(c, a, b, lowest, lowest, where);
}

// Depth 16; sums are float32, in no stated order.
inline void mma_f16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], NESTVEC_HERE) {
  emulated_mma<float, float, float, 16>(c, a, b, widened_f16, widened_f16, where);
}

inline void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], NESTVEC_HERE) {
  emulated_mma<float, float, float, 16>(c, a, b, widened_bf16, widened_bf16, where);
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
