// Products of tokens with packed columns, as a matrix multiplication in float32: fast, in no promised order of
// arithmetic, so only for kernels that certify what they take from it and compute the last word in float64.
// Cost: a token block's sums stay in registers, so a step of 16 columns loads each column once and each token's value
// once for up to 24 multiply-adds.
#pragma once
#include "../simd.h"

namespace nestvec {
namespace {

constexpr int64_t kPanel = 16;  // columns side by side; a panel is (dims, 16)

constexpr int kPanels = kNative == 64 ? 2 : 1;                                         // at a time
constexpr int kTokens = kNative == 64 ? 12 : kNative == 32 ? 6 : kParts == 4 ? 3 : 1;  // at a time

inline F32N coarse_fma(F32N a, F32N b, F32N c) {
#if defined(__AVX512F__)
  return (F32N)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
  return (F32N)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
  return (F32N)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}

// What one product may be off by, relative to the sum of its terms' magnitudes: a rounding per product and per sum,
// twice over.
inline float product_error(int64_t dims) { return float(dims + 8) * 0x1p-23f; }

// The columns (n, dims) of float64 values that are float32 values, as panels; columns from n on are zero.
inline void pack_columns(const double* columns, int64_t n, int64_t dims, float* packed) {
  for (int64_t first = 0; first < n; first += kPanel)
    for (int64_t j = 0; j < dims; j++, packed += kPanel)
      for (int64_t c = 0; c < kPanel; c++) packed[c] = first + c < n ? float(columns[(first + c) * dims + j]) : 0;
}

// Memory that will be read after a product, to be asked for meanwhile: so many bytes for each of its tokens.
struct Ahead {
  const char* at = nullptr;
  int64_t of_token = 0;

  Ahead rest(int64_t tokens) const { return {at + tokens * of_token, of_token}; }
};

template <int T, int W>
void products_of(const float* x, int64_t stride, const float* packed, int64_t dims, const Ahead& ahead, float* out,
                 int64_t out_stride) {
  F32N acc[T][W * kParts];
  for (int t = 0; t < T; t++)
    for (int v = 0; v < W * kParts; v++) acc[t][v] = F32N{};
  const char* next = ahead.at;
  int64_t step = ahead.of_token * T / dims;  // evenly: a burst would wait for itself
  for (int64_t j = 0; j < dims; j++, packed += kPanel, next += step) {
    __builtin_prefetch(next);
    F32N columns[W * kParts];
    for (int w = 0; w < W; w++)
      for (int p = 0; p < kParts; p++) columns[w * kParts + p] = load<F32N>(packed + w * dims * kPanel + p * kF32);
    for (int t = 0; t < T; t++) {
      F32N value = splat(x[t * stride + j]);
      for (int v = 0; v < W * kParts; v++) acc[t][v] = coarse_fma(value, columns[v], acc[t][v]);
    }
  }
  for (int t = 0; t < T; t++)
    for (int v = 0; v < W * kParts; v++) store(out + t * out_stride + v * kF32, acc[t][v]);
}

template <int T, int W>
void products_of(int64_t tokens, const float* x, int64_t stride, const float* packed, int64_t dims, const Ahead& ahead,
                 float* out, int64_t out_stride) {
  if (tokens == T) return products_of<T, W>(x, stride, packed, dims, ahead, out, out_stride);
  if constexpr (T > 1) products_of<T - 1, W>(tokens, x, stride, packed, dims, ahead, out, out_stride);
}

// out[t, c] ~ <x[t], column c> for n tokens and whole panels of columns.
inline void products(const float* x, int64_t stride, int64_t n, const float* packed, int64_t panels, int64_t dims,
                     float* out, int64_t out_stride, const Ahead& ahead = {}) {
  // token blocks of about one size: a short one would wait for its own sums
  for (int64_t t = 0, blocks = (n + kTokens - 1) / kTokens, some; blocks > 0; t += some, blocks--) {
    some = (n - t + blocks - 1) / blocks;
    Ahead next = ahead.rest(t);
    for (int64_t panel = 0; panel < panels; next = {}) {
      const float* from = packed + panel * dims * kPanel;
      float* to = out + t * out_stride + panel * kPanel;
      if (kPanels == 2 && panel + 2 <= panels) {
        products_of<kTokens, kPanels>(some, x + t * stride, stride, from, dims, next, to, out_stride);
        panel += 2;
      } else {
        products_of<kTokens, 1>(some, x + t * stride, stride, from, dims, next, to, out_stride);
        panel++;
      }
    }
  }
}

}  // namespace
}  // namespace nestvec
