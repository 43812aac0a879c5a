// int8 planes from float32 rows, and int8 codes from queries; specification: python/nestvec/kernels/pack.py.
// Cost per row: reads 4 d bytes twice (the second time from L1) and writes d; about 20 vector operations per 16 dims.
#pragma once
#include "../simd.h"

namespace nestvec {
namespace {

constexpr int64_t kMaxLevels = 32, kMaxDims = 65536;
constexpr double kGrow = 1 + 0x1p-19, kTiny = 1e-30, kMargin = 0x1p-16;

inline int64_t level_start(const int64_t* bounds, int64_t level) { return level ? bounds[level - 1] : 0; }
inline int64_t level_width(const int64_t* bounds, int64_t level) {
  return (bounds[level] - level_start(bounds, level) + 3) / 4 * 4;
}
inline int64_t query_width(const int64_t* bounds, int64_t level) {
  return (bounds[level] - level_start(bounds, level) + 63) / 64 * 64;
}

inline float largest_magnitude(const float* x, int64_t n) {
  float largest = 0;
  int64_t i = 0;
  if (n >= kF32) {
    F32N most = {};
    for (; i + kF32 <= n; i += kF32) {
      F32N v = load<F32N>(x + i);
      most = max(most, max(v, -v));
    }
    for (int j = 0; j < kF32; j++) largest = most[j] > largest ? most[j] : largest;
  }
  for (; i < n; i++) {
    float v = __builtin_fabsf(x[i]);
    largest = v > largest ? v : largest;
  }
  return largest;
}

struct RowScale {
  float scale, lift, inverse;
};

inline RowScale row_scale(float largest) {
  if (largest == 0) return {0, 1, 0};
  float lift = largest < 0x1p-60f ? 0x1p80f : 1.0f, scale = largest / 127;
  if (scale < 0x1p-149f) scale = 0x1p-149f;
  return {scale, lift, 1 / (scale * lift)};
}

struct Sums {
  F64x16 squares, errors;
};

// Codes and sums of 16 dims; the magic constant rounds to nearest even since |value| < 2^22.
inline void quantise16(const float* x, const RowScale& s, uint8_t* codes, Sums& sums) {
  typedef int8_t Bytes __attribute__((vector_size(kF32)));
  const F32N magic = splat(0x1.8p23f), top = splat(127);
  float values[16], left[16];
  for (int part = 0; part < kParts; part++) {
    F32N value = load<F32N>(x + part * kF32) * splat(s.lift) * splat(s.inverse);
    F32N code = min(max((value + magic) - magic, -top), top);
    store(values + part * kF32, value);
    store(left + part * kF32, value - code);
    I32N integer = __builtin_convertvector(code, I32N);
    store(codes + part * kF32, __builtin_convertvector(integer, Bytes) ^ int8_t(-128));
  }
  F64x16 wide = widen(values), error = widen(left);
  for (int i = 0; i < kDoubles; i++) {
    sums.squares.v[i] = exact_fma(wide.v[i], wide.v[i], sums.squares.v[i]);
    sums.errors.v[i] = exact_fma(error.v[i], error.v[i], sums.errors.v[i]);
  }
}

// One level of one row: codes into the row's 4-byte column of each line; sums of squares of values and errors.
inline Sums pack_level(const float* x, int64_t n, const RowScale& s, uint8_t* column) {
  Sums sums = {};
  for (int64_t j = 0; j < n; j += 16) {
    uint8_t codes[16];
    if (j + 16 <= n) {
      quantise16(x + j, s, codes, sums);
    } else {
      float padded[16] = {};
      memcpy(padded, x + j, (n - j) * sizeof(float));
      quantise16(padded, s, codes, sums);
    }
    for (int64_t c = 0; c < 4 && j + 4 * c < n; c++) memcpy(column + (j / 4 + c) * kLine, codes + 4 * c, 4);
  }
  return sums;
}

inline float stored_bound(double bound) { return float(bound * kGrow + kTiny); }

inline void raise(float& bound, float value) { bound = value > bound ? value : bound; }

void pack_rows(const float* x, int64_t n, int64_t d, const int64_t* bounds, int64_t levels, const int64_t* starts,
               int64_t first, uint8_t* codes, float* stats, float* blocks, int64_t capacity) {
  double squares[kMaxLevels];
  for (int64_t at = first; at < first + n; at++, x += d) {
    RowScale s = row_scale(largest_magnitude(x, d));
    stats[at] = s.scale;
    double square = 0, error = 0;
    bool nonzero = false;
    for (int64_t level = 0; level < levels; level++) {
      int64_t from = level_start(bounds, level), width = level_width(bounds, level);
      const float* values = x + from;
      Sums sums = pack_level(values, bounds[level] - from, s,
                             codes + starts[level] + at / kTile * kTile * width + at % kTile * 4);
      squares[level] = fold(sums.squares);
      square += squares[level];
      error += fold(sums.errors);
      nonzero = nonzero || largest_magnitude(values, bounds[level] - from) != 0;
      double norm = __builtin_sqrt(square);
      float norm_up = nonzero ? stored_bound(norm) : 0;
      float error_up = nonzero ? stored_bound(__builtin_sqrt(error) + norm * 0x1p-22) : 0;
      stats[(1 + level) * capacity + at] = norm_up;
      stats[(1 + levels + level) * capacity + at] = error_up;
      raise(blocks[level * (capacity / kBlock) + at / kBlock], norm_up);
      raise(blocks[(levels + level) * (capacity / kBlock) + at / kBlock], error_up);
    }
    double behind = 0;
    for (int64_t level = levels - 2; level >= 0; level--) {
      behind += squares[level + 1];
      stats[(1 + 2 * levels + level) * capacity + at] = stored_bound(__builtin_sqrt(behind));
    }
  }
}

// Scalar float64 in program order: about a microsecond a query, and the same bits everywhere.
void pack_queries(const float* q, int64_t n, int64_t d, const int64_t* bounds, int64_t levels, int metric,
                  int8_t* codes, int64_t stride, int32_t* sums, float* stats, int64_t padded, double* multiply,
                  double* offset) {
  for (int64_t i = 0; i < n; i++, q += d, codes += stride) {
    double largest = largest_magnitude(q, bounds[levels - 1]);
    double step = largest > 0 ? largest / 127 : 1, square = 0, error = 0, behind = 0;
    int64_t at = 0;
    int32_t total = 0;
    for (int64_t level = 0; level < levels; level++) {
      int64_t from = level_start(bounds, level);
      for (int64_t j = from; j < bounds[level]; j++) {
        double value = q[j] / step, code = __builtin_rint(value);
        square += value * value;
        error += (value - code) * (value - code);
        codes[at + j - from] = int8_t(code);
        total += int32_t(code);
      }
      at += query_width(bounds, level);
      sums[level * padded + i] = total;
      double norm = __builtin_sqrt(square), left = __builtin_sqrt(error);
      stats[level * padded + i] = float((norm + left) * (1 + kMargin));
      stats[(levels + level) * padded + i] = float(left * (1 + kMargin) + norm * kMargin);
    }
    for (int64_t level = levels - 2; level >= 0; level--) {
      for (int64_t j = bounds[level]; j < bounds[level + 1]; j++) {
        double value = q[j] / step;
        behind += value * value;
      }
      stats[(2 * levels + level) * padded + i] = float(__builtin_sqrt(behind) * (1 + kMargin));
    }
    double inverse = 1 / step, norm = __builtin_sqrt(square);
    stats[3 * levels * padded + i] = float(inverse < 3e38 ? inverse : 3e38);
    multiply[i] = metric == kCosine ? norm : (metric == kL2 ? 0.5 / step : inverse);
    offset[i] = metric == kL2 ? 0.5 * norm * norm * step : 0;
  }
}

}  // namespace
}  // namespace nestvec
