// Signs and high halves of int8 codes, with the factors of their estimates; specification:
// python/nestvec/kernels/codes.py. Cost per row: float64 arithmetic, about 12 vector operations per 16 dims; it is paid
// once, when a row is added.
#pragma once
#include "bits.h"
#include "convert.h"
#include "exact.h"
#include "pack.h"

namespace nestvec {
namespace {

inline uint16_t bfloat16(double value) {
  uint32_t bits = bits_of(float(value < 3e38 ? value : 3e38));
  return uint16_t((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

struct Factors {
  uint16_t* values;
  int64_t levels, capacity;
  int metric;

  void write(double square, double product, double codes, int64_t dims, double norm, int64_t at, int64_t level) const {
    double factor = product > 0 ? square / product : 0, lift = 0;
    double beside = factor * factor * codes - square;
    double error = __builtin_sqrt((beside > 0 ? beside : 0) / double(dims > 1 ? dims - 1 : 1));
    if (metric == kL2) {
      lift = 0.5 * square;
    } else if (metric == kCosine) {
      lift = norm > 0 ? 1 / __builtin_sqrt(norm) : 0;
      factor *= lift;
      error *= lift;
    }
    uint16_t* to = values + level * capacity + at;
    to[0] = bfloat16(factor);
    to[levels * capacity] = bfloat16(lift);
    to[2 * levels * capacity] = bfloat16(error);
  }
};

struct SignSums {
  F64x16 sizes, squares, norms;
};

// 16 dims of a row: one bit each, the first lowest.
inline uint64_t signs16(const float* x, const double* center, double inverse, SignSums& sums) {
  F64x16 wide = widen(x), mean = load16(center);
  uint64_t bits = 0;
  for (int i = 0; i < kDoubles; i++) {
    F64N scaled = wide.v[i] * inverse, rest = scaled - mean.v[i], zero = {};
    bits |= uint64_t(above(rest, zero)) << i * kF64;
    sums.sizes.v[i] += rest > zero ? rest : -rest;
    sums.squares.v[i] += rest * rest;
    sums.norms.v[i] += scaled * scaled;
  }
  return bits;
}

void pack_signs(const float* x, int64_t n, int64_t d, const double* center, const int64_t* bounds, int64_t levels,
                const int64_t* starts, int metric, int64_t first, uint64_t* words, uint16_t* factors,
                int64_t capacity) {
  Factors out{factors, levels, capacity, metric};
  for (int64_t at = first; at < first + n; at++, x += d) {
    double inverse = 1, size = 0, square = 0, norm = 0;
    if (metric == kCosine) {
      reduce<SquaredNorm, F32Rows, 1>(center, &x, d, &square);  // the first argument is not looked at
      inverse = square > 0 ? 1 / __builtin_sqrt(square) : 0;
      square = 0;
    }
    for (int64_t level = 0; level < levels; level++) {
      int64_t begin = level_start(bounds, level), dims = bounds[level] - begin;
      uint64_t* to = words + starts[level] + at / kBlock * kBlock * word_width(bounds, level) + at % kBlock;
      SignSums sums = {};
      uint64_t word = 0;
      for (int64_t j = 0; j < dims; j += 16) {
        const float* values = x + begin + j;
        const double* means = center + begin + j;
        float padded[16] = {};
        double padded_means[16] = {};
        if (j + 16 > dims) {
          memcpy(padded, values, (dims - j) * sizeof(float));
          memcpy(padded_means, means, (dims - j) * sizeof(double));
          values = padded;
          means = padded_means;
        }
        word |= signs16(values, means, inverse, sums) << j % 64;
        if (j % 64 == 48 || j + 16 >= dims) {
          to[j / 64 * kBlock] = reversed(word);
          word = 0;
        }
      }
      size += fold(sums.sizes);
      square += fold(sums.squares);
      norm += fold(sums.norms);
      out.write(square, size, double(bounds[level]), bounds[level], norm, at, level);
    }
  }
}

inline int64_t nibble_width(const int64_t* bounds, int64_t level) {
  return (bounds[level] - level_start(bounds, level) + 7) / 8 * 4;
}

// 16 codes and values at a time: <x, v>, <x, x> and <v, v>.
struct NibbleSums {
  F64x16 products, squares;
  double small;  // exact, in any order
};

inline void sum16(const float* x, const float* middles, NibbleSums& sums) {
  for (int i = 0; i < 16; i++) sums.small += double(middles[i]) * middles[i];
  F64x16 a = widen(x), b = widen(middles);
  Dot::step(sums.products, a, b);
  Dot::step(sums.squares, a, a);
}

void pack_nibbles(const float* x, int64_t n, int64_t d, const int64_t* bounds, int64_t levels, const int64_t* starts,
                  const uint8_t* codes, const int64_t* nibble_starts, int metric, int64_t first, uint8_t* nibbles,
                  uint16_t* factors, int64_t capacity) {
  Factors out{factors, levels, capacity, metric};
  for (int64_t at = first; at < first + n; at++, x += d) {
    double square = 0, product = 0, small = 0;
    int64_t tile = at / kTile * kTile, column = at % kTile * 4;
    for (int64_t level = 0; level < levels; level++) {
      int64_t begin = level_start(bounds, level), dims = bounds[level] - begin;
      const uint8_t* from = codes + starts[level] + tile * level_width(bounds, level) + column;
      uint8_t* to = nibbles + nibble_starts[level] + tile * nibble_width(bounds, level) + column;
      NibbleSums sums = {};
      for (int64_t j = 0; j < dims; j += 16) {
        float values[16] = {};
        float middles[16] = {};
        uint8_t high[16] = {};
        int64_t some = dims - j < 16 ? dims - j : 16;
        memcpy(values, x + begin + j, some * sizeof(float));
        for (int64_t i = 0; i < some; i++) {
          high[i] = from[(j + i) / 4 * kLine + i % 4] >> 4;
          middles[i] = float(2 * high[i]) - 15.0625f;
        }
        sum16(values, middles, sums);
        for (int64_t i = 0; i < some; i += 8)
          for (int b = 0; b < 4; b++) to[(j + i) / 8 * kLine + b] = uint8_t(high[i + b] | high[i + 4 + b] << 4);
      }
      product += fold(sums.products);
      square += fold(sums.squares);
      small += sums.small;
      out.write(square, product, small, bounds[level], square, at, level);
    }
  }
}

}  // namespace
}  // namespace nestvec
