// Products of tokens with packed columns in float32, summed in the order of dims. A block takes 128 tokens and up to
// eight panels of 16 columns, DIMS dims at a time through shared memory; a thread holds the sums of 8 tokens with one
// column of each panel.
// Cost: 7 panels take a warp 56 multiply-adds, 2 loads of tokens and 7 of columns for a dim, 65 instructions: 128
// tokens of 128 dims then need 8 warps * 128 * 65 / 4 = 16,600 cycles of a multiprocessor, so an H100 multiplies at
// most 13M such documents a second with 112 columns. Two blocks a multiprocessor hide each other's loading.
#pragma once
#include "device.h"

namespace nestvec::cuda {

namespace {

constexpr int PANEL = 16, PANELS = 8;               // columns side by side; panels at a time, at most
constexpr int TOKENS = 128, DIMS = 32;              // of a block
constexpr int HELD = 8;                             // tokens of a thread
constexpr int MULTIPLIERS = TOKENS / HELD * PANEL;  // threads
constexpr int ROUNDS = TOKENS / (MULTIPLIERS / 8);

struct TokenRows {
  const float* x;
  int64_t n, dims;
  bool whole;  // fours of dims, aligned
};

inline TokenRows token_rows(const float* x, int64_t n, int64_t dims) {
  return {x, n, dims, dims % 4 == 0 && reinterpret_cast<uintptr_t>(x) % 16 == 0};
}

// Eight threads stage a token, four dims each, and read 8 tokens at once: fours of tokens change places with the dim,
// so that neither meets a bank twice. Threads find the largest magnitude of what they stage, as bits.
__device__ inline void stage_tokens(const TokenRows& rows, int64_t first_token, int64_t first_dim, float* tile,
                                    uint32_t (&most)[ROUNDS]) {
  int part = threadIdx.x % 8;
  int64_t at = first_dim + part * 4;
#pragma unroll
  for (int round = 0; round < ROUNDS; round++) {
    int token = threadIdx.x / 8 + round * (MULTIPLIERS / 8);
    const float* from = rows.x + (first_token + token) * rows.dims + at;
    float values[4] = {};
    if (first_token + token < rows.n && at < rows.dims) {
      if (rows.whole) {
        float4 four = *reinterpret_cast<const float4*>(from);
        values[0] = four.x, values[1] = four.y, values[2] = four.z, values[3] = four.w;
      } else {
        for (int i = 0; i < 4; i++)
          if (at + i < rows.dims) values[i] = from[i];
      }
    }
    for (int i = 0; i < 4; i++) {
      uint32_t magnitude = __float_as_uint(values[i]) & 0x7fffffffu;
      if (magnitude > most[round]) most[round] = magnitude;
      tile[(part * 4 + i) * TOKENS + ((token / 4) ^ part) * 4 + token % 4] = values[i];
    }
  }
}

// Zeros behind the last panel and the last dim.
template <int P>
__device__ void stage_columns(const float* packed, int64_t panels, int64_t dims, int64_t first_dim, float* columns) {
  for (int i = threadIdx.x; i < P * DIMS * (PANEL / 4); i += MULTIPLIERS) {
    int64_t panel = i / (DIMS * 4), dim = first_dim + i / 4 % DIMS;
    float4 four = {0, 0, 0, 0};
    if (panel < panels && dim < dims)
      four = *reinterpret_cast<const float4*>(packed + (panel * dims + dim) * PANEL + i % 4 * 4);
    *reinterpret_cast<float4*>(columns + i * 4) = four;
  }
}

// sums[i][p]: of token `threadIdx.x / 16 * 8 + i` with column `threadIdx.x % 16` of panel p.
template <int P, bool FUSED>
__device__ void products(const TokenRows& rows, int64_t first, const float* packed, int64_t panels, float* tile,
                         float* columns, float (&sums)[HELD][P], uint32_t (&most)[ROUNDS]) {
  int quad = threadIdx.x / PANEL * 2, column = threadIdx.x % PANEL;
#pragma unroll
  for (int i = 0; i < HELD * P; i++) sums[i / P][i % P] = 0;
  for (int64_t at = 0; at < rows.dims; at += DIMS) {
    __syncthreads();  // others may still read what was staged before
    stage_tokens(rows, first, at, tile, most);
    stage_columns<P>(packed, panels, rows.dims, at, columns);
    __syncthreads();
    int fours = int(rows.dims - at < DIMS ? ceil_div<int64_t>(rows.dims - at, 4) : DIMS / 4);
    for (int four = 0; four < fours; four++) {
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const float* row = tile + (four * 4 + j) * TOKENS;
        float4 a = *reinterpret_cast<const float4*>(row + (quad ^ four) * 4);
        float4 b = *reinterpret_cast<const float4*>(row + ((quad + 1) ^ four) * 4);
        float values[HELD] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
        for (int p = 0; p < P; p++) {
          float other = columns[(p * DIMS + four * 4 + j) * PANEL + column];
#pragma unroll
          for (int i = 0; i < HELD; i++)
            sums[i][p] = FUSED ? fmaf(values[i], other, sums[i][p]) : sums[i][p] + values[i] * other;
        }
      }
    }
  }
}

// Passes of about one size over panels: how many each takes, which is what kernels are compiled for.
inline int64_t panels_of_pass(int64_t panels) { return ceil_div(panels, ceil_div<int64_t>(panels, PANELS)); }

template <int P>
struct PanelCount {
  static constexpr int value = P;
};

template <int P = PANELS, class Launch>
void with_panels(int64_t panels, Launch launch) {
  if (panels == P) return launch(PanelCount<P>());
  if constexpr (P > 1) with_panels<P - 1>(panels, launch);
}

}  // namespace

}  // namespace nestvec::cuda
