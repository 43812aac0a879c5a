// Projections of tokens and probes of queries for fitted encodings; specification: python/nestvec/kernels/fitted.py.
// Cost: a product is a multiplication and an addition, never fused, with the sums of a block of tokens in registers;
// a probe is an addition for each value of its block, after a square root and a division for each plane.
#pragma once
#include "columns.h"
#include "fde.h"

namespace nestvec {
namespace {

constexpr float kSlope = 2, kLargest = 1e9f, kLeast = 0.1f;

// out[t, c] = sum of x[t, j] * panel[j, c] for T tokens and W panels.
template <int T, int W>
void project_block(const float* x, int64_t dims, const float* panels, float* out, int64_t out_stride) {
  F32N acc[T][W * kParts];
  for (int t = 0; t < T; t++)
    for (int v = 0; v < W * kParts; v++) acc[t][v] = F32N{};
  for (int64_t j = 0; j < dims; j++, panels += kPanel) {
    F32N columns[W * kParts];
    for (int w = 0; w < W; w++)
      for (int p = 0; p < kParts; p++) columns[w * kParts + p] = load<F32N>(panels + w * dims * kPanel + p * kF32);
    for (int t = 0; t < T; t++) {
      F32N value = splat(x[t * dims + j]);
      for (int v = 0; v < W * kParts; v++) acc[t][v] += value * columns[v];
    }
  }
  for (int t = 0; t < T; t++)
    for (int v = 0; v < W * kParts; v++) store(out + t * out_stride + v * kF32, acc[t][v]);
}

template <int T, int W>
void project_some(int64_t tokens, const float* x, int64_t dims, const float* panels, float* out, int64_t out_stride) {
  if (tokens == T) return project_block<T, W>(x, dims, panels, out, out_stride);
  if constexpr (T > 1) project_some<T - 1, W>(tokens, x, dims, panels, out, out_stride);
}

void project_tokens(const float* x, int64_t n, int64_t dims, const float* panels, int64_t count, float* out) {
  for (int64_t t = 0, blocks = (n + kTokens - 1) / kTokens, some; blocks > 0; t += some, blocks--) {
    some = (n - t + blocks - 1) / blocks;
    for (int64_t p = 0, step; p < count; p += step) {
      step = p + kPanels <= count ? kPanels : 1;
      auto project = step == kPanels ? project_some<kTokens, kPanels> : project_some<kTokens, 1>;
      project(some, x + t * dims, dims, panels + p * dims * kPanel, out + (t * count + p) * kPanel, count * kPanel);
    }
  }
}

inline F32N square_roots(F32N x) {
#if defined(__AVX512F__)
  return (F32N)_mm512_maskz_sqrt_ps(0xFFFF, (__m512)x);  // gcc 12 warns of the plain one
#elif defined(__AVX2__)
  return (F32N)_mm256_sqrt_ps((__m256)x);
#elif defined(__SSE2__)
  return (F32N)_mm_sqrt_ps((__m128)x);
#elif defined(__aarch64__)
  return (F32N)vsqrtq_f32((float32x4_t)x);
#else
  for (int i = 0; i < kF32; i++) x[i] = __builtin_sqrtf(x[i]);
  return x;
#endif
}

// block += factor * (row + shift)
inline void add_scaled(const float* row, const float* shift, float factor, int64_t width, float* block) {
  int64_t c = 0;
  for (; c + kF32 <= width; c += kF32)
    store(block + c, load<F32N>(block + c) + splat(factor) * (load<F32N>(row + c) + load<F32N>(shift + c)));
  for (; c < width; c++) block[c] += factor * (row[c] + shift[c]);
}

constexpr int64_t kDense = 5;  // planes whose partitions are all weighed

// One token in as many repetitions as there are lanes.
struct Probe {
  const ProbeQueries& q;
  const Fde& e;
  const float *values, *shift;
  float* blocks;
  float square;
  F32N* above;    // probabilities of being above a plane
  F32N* weights;  // by partition

  // Weights of all partitions by the first planes; returns those of each lane that are heavy enough, a bit each.
  U32N weigh(int64_t planes, int64_t lanes) {
    weights[0] = F32N{};
    for (int64_t i = 0; i < lanes; i++) weights[0][i] = 1;
    for (int64_t j = 0; j < planes; j++)
      for (int64_t p = (int64_t(1) << j) - 1; p >= 0; p--) {
        F32N weight = weights[p];
        weights[2 * p + (p & 1)] = weight * (1.0f - above[j]);  // a Gray code
        weights[2 * p + 1 - (p & 1)] = weight * above[j];
      }
    U32N reached = {};
    for (int64_t p = 0; p < int64_t(1) << planes; p++)
      reached |= (U32N)(weights[p] > F32N{} + kLeast) & (U32N{} + (1u << p));
    return reached;
  }

  // Adds the token to all partitions that begin with these bits.
  void add(int64_t lane, int64_t bits, int64_t partition, float weight) const {
    if (bits == q.k) {
      int64_t at = lane * e.width;
      return add_scaled(values + at, shift + at, weight * square, e.width,
                        blocks + (lane * e.parts + partition) * e.width);
    }
    float up = above[bits][lane], down = 1.0f - up;
    int64_t last = partition & 1;
    if (weight * down > kLeast) add(lane, bits + 1, 2 * partition + last, weight * down);
    if (weight * up > kLeast) add(lane, bits + 1, 2 * partition + 1 - last, weight * up);
  }

  void run(const float* products, int64_t lanes) {
    for (int64_t j = 0; j < q.k; j++) {
      float some[kF32] = {};
      memcpy(some, products + j * e.repetitions, lanes * sizeof *some);
      F32N u = min(splat(kLargest), max(splat(-kLargest), kSlope * load<F32N>(some)));
      above[j] = 0.5f + 0.5f * u / square_roots(1.0f + u * u);
    }
    int64_t planes = q.k < kDense ? q.k : kDense;
    U32N reached = weigh(planes, lanes);
    for (int64_t i = 0; i < lanes; i++)
      for (uint32_t left = reached[i]; left; left &= left - 1) {
        int64_t partition = __builtin_ctz(left);
        add(i, planes, partition, weights[partition][i]);
      }
  }
};

// Adds one token to the blocks of all repetitions.
inline void add_probes(const float* projected, float square, const ProbeQueries& q, const Fde& e, float* blocks) {
  F32N above[kMostBits], weights[1 << kDense];
  for (int64_t r = 0; r < e.repetitions; r += kF32) {
    int64_t at = r * e.width;
    Probe probe{q, e, projected + at, q.shift + at, blocks + at * e.parts, square, above, weights};
    probe.run(projected + q.wide + r, e.repetitions - r < kF32 ? e.repetitions - r : kF32);
  }
}

// As a float32 value.
inline float squared_length(const float* x, int64_t dims) {
  F64x16 acc = {};
  for (int64_t j = 0; j < dims; j += 16) {
    float some[16] = {};
    memcpy(some, x + j, (dims - j < 16 ? dims - j : 16) * sizeof *some);
    SquaredNorm::step(acc, acc, widen(some));
  }
  return float(fold(acc));
}

void encode_probes(const ProbeQueries& q, const Fde& e, float* scratch, float* out) {
  for (int64_t i = 0; i < q.n; i++, out += e.size) {
    float* blocks = e.final ? scratch : out;
    memset(blocks, 0, e.repetitions * e.parts * e.width * sizeof *blocks);
    for (int64_t t = q.offsets[i]; t < q.offsets[i + 1]; t++) {
      add_probes(q.projected + t * q.stride, squared_length(q.x + t * q.dims, q.dims), q, e, blocks);
    }
    if (e.final) sketch(blocks, e, nullptr, out);
  }
}

}  // namespace
}  // namespace nestvec
