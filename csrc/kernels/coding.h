// Queries rounded to integers; specification: python/nestvec/kernels/coding.py. Scalar float64 in program order: one or
// two microseconds a query, and the same bits everywhere.
#pragma once
#include "pack.h"

namespace nestvec {
namespace {

// The lowest digits of 64 codes at a time, the first in the highest bit.
inline void write_digits(const int8_t* codes, int64_t width, int64_t count, uint64_t* digits) {
  for (int64_t digit = 0; digit < count; digit++)
    for (int64_t j = 0; j < width; j += 64) {
      uint64_t bits = 0;
      for (int64_t bit = 0; bit < 64; bit++) bits = bits << 1 | (codes[j + bit] >> digit & 1);
      *digits++ = bits;
    }
}

void code_queries(const FloatQueries& from, int64_t largest, double shift, const CodedQueries& to) {
  for (int64_t i = 0; i < from.n; i++) {
    const double *q = from.q + i * from.d, *center = from.center;
    const double* from_center = from.metric == kL2 ? center : nullptr;
    auto value_of = [&](int64_t j) { return from_center ? q[j] - from_center[j] : q[j]; };
    double most = 0, square = 0, product = 0;
    for (int64_t j = 0; j < from.widest; j++) {
      double size = __builtin_fabs(value_of(j));
      most = size > most ? size : most;
    }
    double step = (most > 0 ? most : 1) / double(largest);
    int8_t* codes = to.codes + i * to.width;
    int64_t total = 0;
    for (int64_t level = 0, j = 0; j < from.dims; level++) {
      int64_t begin = j, width = query_width(from.bounds, level);
      for (; j < from.bounds[level] && j < from.dims; j++) {
        double value = value_of(j);
        square += value * value;
        if (center) product += q[j] * center[j];
        codes[j - begin] = int8_t(__builtin_rint(value / step));
        total += codes[j - begin];
      }
      memset(codes + j - begin, 0, width - (j - begin));
      codes += width;
    }
    write_digits(to.codes + i * to.width, to.width, to.count, to.digits + i * to.count * (to.width / 64));
    double lift = from.metric == kL2 ? -1 / step : from.metric == kCosine ? product / step : 0;
    constexpr double kMost = __FLT_MAX__;
    lift = lift < -kMost ? -kMost : lift;
    to.lifts[i] = float(lift < kMost ? lift : kMost);
    to.shifts[i] = int64_t(__builtin_rint(shift * double(total)));
    to.offsets[i] = from.metric == kL2 ? -square : from.metric == kCosine ? 0 : product;
    to.units[i] = step;
    if (from.metric == kL2) to.units[i] = 2 * step;
    if (from.metric == kCosine) to.units[i] = square > 0 ? step / __builtin_sqrt(square) : 0;
  }
}

}  // namespace
}  // namespace nestvec
