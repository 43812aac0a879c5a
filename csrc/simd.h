// Vectors of 16 lanes on every ISA, built from the compiler's vector types at the ISA's native width. Only what the
// compiler cannot find by itself is written in intrinsics: the int8 dot product and the float64 multiply-add.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace nestvec {
namespace {

#if defined(__AVX512F__)
constexpr int kNative = 64;
#elif defined(__AVX2__)
constexpr int kNative = 32;
#else
constexpr int kNative = 16;
#endif

constexpr int64_t kTile = 16, kLine = 64, kBlock = 64;
enum Metric { kIp, kL2, kCosine };

typedef float F32N __attribute__((vector_size(kNative)));
typedef double F64N __attribute__((vector_size(kNative)));
typedef int32_t I32N __attribute__((vector_size(kNative)));
typedef uint32_t U32N __attribute__((vector_size(kNative)));
typedef uint8_t U8N __attribute__((vector_size(kNative)));
typedef uint64_t U64N __attribute__((vector_size(kNative)));
typedef uint16_t U16Half __attribute__((vector_size(kNative / 2)));
typedef int32_t I32Half __attribute__((vector_size(kNative / 2)));
typedef float F32Half __attribute__((vector_size(kNative / 2)));
constexpr int kF32 = kNative / 4, kF64 = kNative / 8;  // lanes
constexpr int kParts = 16 / kF32;                      // native vectors in 16 lanes of 32 bits
constexpr int kDoubles = 16 / kF64;

template <class V, class T>
inline V load(const T* p) {
  V v;
  memcpy(&v, p, sizeof v);
  return v;
}

template <class V, class T>
inline void store(T* p, V v) {
  memcpy(p, &v, sizeof v);
}

inline F32N splat(float x) { return x - F32N{}; }  // x - 0 is x, which the compiler knows; x + 0 is not for -0
inline F32N to_float(I32N v) { return __builtin_convertvector(v, F32N); }
inline F32N min(F32N a, F32N b) { return a < b ? a : b; }
inline F32N max(F32N a, F32N b) { return a > b ? a : b; }

// One bit a lane: a >= b.
inline uint32_t at_least(F32N a, F32N b) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GE_OQ);
#elif defined(__AVX2__)
  return uint32_t(_mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_GE_OQ)));
#elif defined(__SSE2__)
  return uint32_t(_mm_movemask_ps(_mm_cmpge_ps((__m128)a, (__m128)b)));
#else
  uint32_t bits = 0;
  for (int i = 0; i < kF32; i++) bits |= uint32_t(a[i] >= b[i]) << i;
  return bits;
#endif
}

// One bit a lane: a < b.
inline uint32_t below(F32N a, F32N b) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LT_OQ);
#elif defined(__AVX2__)
  return uint32_t(_mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_LT_OQ)));
#elif defined(__SSE2__)
  return uint32_t(_mm_movemask_ps(_mm_cmplt_ps((__m128)a, (__m128)b)));
#else
  uint32_t bits = 0;
  for (int i = 0; i < kF32; i++) bits |= uint32_t(a[i] < b[i]) << i;
  return bits;
#endif
}

// One bit a lane: a > b.
inline uint32_t above(F64N a, F64N b) {
#if defined(__AVX512F__)
  return _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_GT_OQ);
#elif defined(__AVX2__)
  return uint32_t(_mm256_movemask_pd(_mm256_cmp_pd((__m256d)a, (__m256d)b, _CMP_GT_OQ)));
#elif defined(__SSE2__)
  return uint32_t(_mm_movemask_pd(_mm_cmpgt_pd((__m128d)a, (__m128d)b)));
#else
  uint32_t bits = 0;
  for (int i = 0; i < kF64; i++) bits |= uint32_t(a[i] > b[i]) << i;
  return bits;
#endif
}

inline int popcount(uint64_t x) {
#if defined(__POPCNT__) || !defined(__x86_64__)
  return __builtin_popcountll(x);
#else  // else a call of the compiler's library
  x -= x >> 1 & 0x5555555555555555;
  x = (x & 0x3333333333333333) + (x >> 2 & 0x3333333333333333);
  return int(((x + (x >> 4)) & 0x0F0F0F0F0F0F0F0F) * 0x0101010101010101 >> 56);
#endif
}

// One bits of each byte, or of whole lanes where there is an instruction for that.
#if defined(__AVX512VPOPCNTDQ__)
constexpr bool kWholeLanes = true;
#else
constexpr bool kWholeLanes = false;
#endif
inline U64N some_ones(U64N x) {
#if defined(__AVX512VPOPCNTDQ__)
  return (U64N)_mm512_popcnt_epi64((__m512i)x);
#elif defined(__AVX2__)
  const __m256i counts =
      _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
  const __m256i low = _mm256_set1_epi8(15);
  __m256i a = _mm256_shuffle_epi8(counts, _mm256_and_si256((__m256i)x, low));
  __m256i b = _mm256_shuffle_epi8(counts, _mm256_and_si256(_mm256_srli_epi16((__m256i)x, 4), low));
  return (U64N)_mm256_add_epi8(a, b);
#elif defined(__aarch64__)
  return (U64N)vcntq_u8((uint8x16_t)x);
#else
  x -= x >> 1 & 0x5555555555555555;
  x = (x & 0x3333333333333333) + (x >> 2 & 0x3333333333333333);
  return (x + (x >> 4)) & 0x0F0F0F0F0F0F0F0F;
#endif
}

constexpr int64_t kMostOnes = 31;  // counts of bytes that a byte holds the sum of

// Sums of up to 31 results of `some_ones` to counts of each 64-bit lane.
inline U64N lane_sums(U64N bytes) {
#if defined(__AVX512VPOPCNTDQ__)
  return bytes;
#elif defined(__AVX2__)
  return (U64N)_mm256_sad_epu8((__m256i)bytes, _mm256_setzero_si256());
#elif defined(__SSE2__)
  return (U64N)_mm_sad_epu8((__m128i)bytes, _mm_setzero_si128());
#elif defined(__aarch64__)
  return (U64N)vpaddlq_u32(vpaddlq_u16(vpaddlq_u8((uint8x16_t)bytes)));
#else
  U64N pairs = (bytes & 0x00FF00FF00FF00FF) + (bytes >> 8 & 0x00FF00FF00FF00FF);
  pairs += pairs >> 16;
  return (pairs + (pairs >> 32)) & 0xFFFF;
#endif
}

inline bool any_negative(U64N x) {
#if defined(__AVX512F__)
  return _mm512_movepi64_mask((__m512i)x);
#elif defined(__AVX2__)
  return _mm256_movemask_pd((__m256d)x);
#elif defined(__SSE2__)
  return _mm_movemask_pd((__m128d)x);
#else
  uint64_t all = 0;
  for (int i = 0; i < kF64; i++) all |= x[i];
  return all >> 63;
#endif
}

// a * b + c where a * b is exact in float64 (both widened from float32): fused or not, the bits are the same.
inline F64N exact_fma(F64N a, F64N b, F64N c) {
#if defined(__AVX512F__)
  return (F64N)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__FMA__)
  return (F64N)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#elif defined(__aarch64__)
  return (F64N)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#else
  return a * b + c;
#endif
}

struct F64x16 {
  F64N v[kDoubles];
};

// 16 float32 lanes to float64, exactly
inline F64x16 widen(const float* p) {
  F64x16 r;
  for (int i = 0; i < kDoubles; i++) r.v[i] = __builtin_convertvector(load<F32Half>(p + i * kF64), F64N);
  return r;
}

inline F64x16 load16(const double* p) {
  F64x16 r;
  for (int i = 0; i < kDoubles; i++) r.v[i] = load<F64N>(p + i * kF64);
  return r;
}

inline double fold(const F64x16& acc) {  // 16-8-4-2-1
  double lanes[16];
  memcpy(lanes, &acc, sizeof lanes);
  for (int width = 8; width > 0; width /= 2)
    for (int i = 0; i < width; i++) lanes[i] += lanes[i + width];
  return lanes[0];
}

// A line of 16 rows x 4 dims as loaded, prepared once and then multiplied with many queries. Sums are of
// (byte - kOffset) * code, so a kernel whose bytes stay unsigned starts its sums at -128 * (sum of the query's codes).
#if defined(__AVX512VNNI__)
constexpr int kOffset = 0;
struct Codes {
  __m512i bytes;
};
inline Codes codes_of(U8N bytes) { return {(__m512i)bytes}; }
inline I32N dot4(I32N acc, const Codes& rows, int32_t query) {
  return (I32N)_mm512_dpbusd_epi32((__m512i)acc, rows.bytes, _mm512_set1_epi32(query));
}
#elif defined(__AVX2__)
constexpr int kOffset = 128;
struct Codes {
  __m256i signs, magnitude;
};
inline Codes codes_of(U8N bytes) {
  __m256i codes = _mm256_xor_si256((__m256i)bytes, _mm256_set1_epi8(-128));
  return {codes, _mm256_abs_epi8(codes)};
}
inline I32N dot4(I32N acc, const Codes& rows, int32_t query) {
  // |row| x (query with the row's sign): pairs stay within 2 * 127 * 127, so the 16-bit sums cannot saturate
  __m256i pairs = _mm256_maddubs_epi16(rows.magnitude, _mm256_sign_epi8(_mm256_set1_epi32(query), rows.signs));
  return acc + (I32N)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
#elif defined(__SSE2__)
constexpr int kOffset = 0;
struct Codes {
  __m128i low, high;
};
inline Codes codes_of(U8N bytes) {
  __m128i zero = _mm_setzero_si128();
  return {_mm_unpacklo_epi8((__m128i)bytes, zero), _mm_unpackhi_epi8((__m128i)bytes, zero)};
}
inline I32N dot4(I32N acc, const Codes& rows, int32_t query) {
  __m128i q = _mm_cvtsi32_si128(query);
  q = _mm_srai_epi16(_mm_unpacklo_epi8(q, q), 8);
  q = _mm_unpacklo_epi64(q, q);
  __m128 a = (__m128)_mm_madd_epi16(rows.low, q), b = (__m128)_mm_madd_epi16(rows.high, q);
  return acc + (I32N)_mm_shuffle_ps(a, b, 0x88) + (I32N)_mm_shuffle_ps(a, b, 0xDD);
}
#elif defined(__aarch64__)
constexpr int kOffset = 128;
struct Codes {
  int8x16_t codes;
};
inline Codes codes_of(U8N bytes) { return {vreinterpretq_s8_u8(veorq_u8((uint8x16_t)bytes, vdupq_n_u8(128)))}; }
inline I32N dot4(I32N acc, const Codes& rows, int32_t query) {
  int8x16_t q = vreinterpretq_s8_s32(vdupq_n_s32(query));
#if defined(__ARM_FEATURE_DOTPROD)
  return (I32N)vdotq_s32((int32x4_t)acc, rows.codes, q);
#else
  int32x4_t a = vpaddlq_s16(vmull_s8(vget_low_s8(rows.codes), vget_low_s8(q)));
  int32x4_t b = vpaddlq_s16(vmull_s8(vget_high_s8(rows.codes), vget_high_s8(q)));
  return acc + (I32N)vpaddq_s32(a, b);
#endif
}
#else
constexpr int kOffset = 128;
struct Codes {
  U8N bytes;
};
inline Codes codes_of(U8N bytes) { return {bytes}; }
inline I32N dot4(I32N acc, const Codes& rows, int32_t query) {
  int8_t q[4];
  memcpy(q, &query, 4);
  for (int i = 0; i < 16; i++) acc[i / 4] += (rows.bytes[i] - 128) * q[i % 4];
  return acc;
}
#endif
inline Codes prepare(const uint8_t* p) { return codes_of(load<U8N>(p)); }

}  // namespace
}  // namespace nestvec
