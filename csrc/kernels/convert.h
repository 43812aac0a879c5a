// Conversions between float32 and the bits of float16 and bfloat16. Plain loops: the compiler vectorises them as they
// are.
#pragma once
#include "../simd.h"

namespace nestvec {
namespace {

inline uint32_t bits_of(float x) {
  uint32_t b;
  memcpy(&b, &x, 4);
  return b;
}

inline float float_of(uint32_t b) {
  float x;
  memcpy(&x, &b, 4);
  return x;
}

// Finite values: the shifted bits are 2^112 too small, subnormals included, and the multiplication is exact.
inline float widen_one_f16(uint16_t h) {
  float magnitude = float_of(uint32_t(h & 0x7FFF) << 13) * 0x1p112f;
  return float_of(bits_of(magnitude) | uint32_t(h & 0x8000) << 16);
}

inline float widen_one_bf16(uint16_t h) { return float_of(uint32_t(h) << 16); }

void widen_f16(const uint16_t* source, float* target, int64_t n) {
  for (int64_t i = 0; i < n; i++) target[i] = widen_one_f16(source[i]);
}

void widen_bf16(const uint16_t* source, float* target, int64_t n) {
  for (int64_t i = 0; i < n; i++) target[i] = widen_one_bf16(source[i]);
}

void narrow_f16(const float* source, uint16_t* target, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    uint32_t bits = bits_of(source[i]), magnitude = bits & 0x7FFFFFFF;
    // adding 0.5 rounds a subnormal result at exactly its last bit
    uint32_t subnormal = bits_of(float_of(magnitude) + 0.5f) - 0x3F000000;
    uint32_t normal = (magnitude - 0x38000000 + 0xFFF + (magnitude >> 13 & 1)) >> 13;
    uint32_t half = magnitude < 0x38800000 ? subnormal : normal;
    half = magnitude >= 0x47800000 ? 0x7C00 : half;
    target[i] = uint16_t(half | (bits >> 16 & 0x8000));
  }
}

void narrow_bf16(const float* source, uint16_t* target, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    uint32_t bits = bits_of(source[i]);
    target[i] = uint16_t((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);  // finite bits do not wrap
  }
}

int64_t first_nonfinite(const float* values, int64_t n) {
  constexpr uint32_t kExponent = 0x7F800000;
  constexpr int64_t kChunk = 1024;
  for (int64_t at = 0; at < n; at += kChunk) {
    int64_t end = at + kChunk < n ? at + kChunk : n;
    uint32_t found = 0;
    for (int64_t i = at; i < end; i++) found |= (bits_of(values[i]) & kExponent) == kExponent;
    if (!found) continue;
    for (int64_t i = at; i < end; i++)
      if ((bits_of(values[i]) & kExponent) == kExponent) return i;
  }
  return -1;
}

int64_t sum_bytes(const uint8_t* values, int64_t n) {
  constexpr int64_t kAhead = 2048;
  int64_t total = 0, i = 0;
  for (; i + 1024 <= n; i += 1024) {
#if defined(__AVX512BW__)
    __m512i sum = _mm512_setzero_si512(), zero = sum;
    for (int j = 0; j < 1024; j += 64) {
      __builtin_prefetch(values + i + j + kAhead);
      sum = _mm512_add_epi64(sum, _mm512_sad_epu8(_mm512_loadu_si512(values + i + j), zero));
    }
    int64_t lanes[8];
    memcpy(lanes, &sum, sizeof lanes);
    for (int64_t lane : lanes) total += lane;
#else
    uint32_t sum = 0;
    __builtin_prefetch(values + i + kAhead);
    for (int j = 0; j < 1024; j++) sum += values[i + j];
    total += sum;
#endif
  }
  for (; i < n; i++) total += values[i];
  return total;
}

}  // namespace
}  // namespace nestvec
