// Rows times a matrix, in float64; specification: python/nestvec/kernels/transform.py.
// Cost: bound by multiply-adds. The sums of a block of rows stay in registers, and what is widened of the columns
// serves all of its rows.
#pragma once
#include "columns.h"

namespace nestvec {
namespace {

constexpr int kRotated = kNative == 64 ? 6 : kNative == 32 ? 2 : 1;  // rows at a time

// out[r, c] = sum of x[r, j] * panel[j, c] for R rows and W panels.
template <int R, int W>
void transform_block(const double* x, int64_t dims, const float* panels, float* out, int64_t out_stride) {
  F64x16 acc[R][W] = {};
  for (int64_t j = 0; j < dims; j++, panels += kPanel) {
    F64x16 columns[W];
    for (int w = 0; w < W; w++) columns[w] = widen(panels + w * dims * kPanel);
    for (int r = 0; r < R; r++) {
      F64N value = x[r * dims + j] - F64N{};
      for (int w = 0; w < W; w++)
        for (int i = 0; i < kDoubles; i++) acc[r][w].v[i] = exact_fma(value, columns[w].v[i], acc[r][w].v[i]);
    }
  }
  for (int r = 0; r < R; r++)
    for (int w = 0; w < W; w++)
      for (int i = 0; i < kDoubles; i++)
        store(out + r * out_stride + w * kPanel + i * kF64, __builtin_convertvector(acc[r][w].v[i], F32Half));
}

template <int R, int W>
void transform_some(int64_t rows, const double* x, int64_t dims, const float* panels, float* out, int64_t out_stride) {
  if (rows == R) return transform_block<R, W>(x, dims, panels, out, out_stride);
  if constexpr (R > 1) transform_some<R - 1, W>(rows, x, dims, panels, out, out_stride);
}

// Panels are read once for all rows: they are far larger than what a call has of these.
void transform_rows(const double* x, int64_t n, int64_t dims, const float* panels, int64_t count, float* out) {
  for (int64_t p = 0, step; p < count; p += step) {
    step = p + kPanels <= count ? kPanels : 1;
    auto transform = step == kPanels ? transform_some<kRotated, kPanels> : transform_some<kRotated, 1>;
    for (int64_t r = 0; r < n; r += kRotated)
      transform(n - r < kRotated ? n - r : kRotated, x + r * dims, dims, panels + p * dims * kPanel,
                out + (r * count + p) * kPanel, count * kPanel);
  }
}

}  // namespace
}  // namespace nestvec
