// Queries as scans read them: bit for bit what python/nestvec/kernels/pack.py and kernels/coding.py make.
#pragma once
#include "maps.h"

namespace nestvec::cuda {

// kernels/pack.py: pack_queries. All arrays are zeroed before.
struct PackedQueries {
  int8_t* codes;
  int64_t width;
  int32_t* sums;              // (levels, padded)
  float* stats;               // (3 levels + 1, padded)
  double *multiply, *offset;  // (nq,)
  int64_t padded;
};
void pack_queries(const FloatQueries&, const int64_t* bounds, int64_t levels, int metric, const PackedQueries&, Stream);

// kernels/coding.py: code_queries, but for digits.
struct Encoding {
  double largest, shift;
  int64_t dims, widest;
  int metric;
  const int64_t* bounds;  // of the levels that `dims` touch
  int64_t levels;
  const double* center;  // of signs; null for other codes
  const double* turned;  // (nq, stride), the queries after a rotation; null: they are not rotated
};
struct Encoded {
  int8_t* codes;  // (nq, width), each level filled up to a multiple of 64
  int64_t width;
  int64_t* shifts;
  float* lifts;
  double *units, *offsets;
};
void encode_queries(const FloatQueries&, const Encoding&, const Encoded&, Stream);
// The low digits of codes (nq, width), one bit a dim, the first dim highest: (nq, digits, width / 64).
void split_digits(const int8_t* codes, int64_t nq, int64_t width, int digits, uint64_t* words, Stream);

}  // namespace nestvec::cuda
