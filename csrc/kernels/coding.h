// Queries rounded to integers; specification: python/nestvec/kernels/coding.py. Scalar float64 in program order: one or
// two microseconds a query, and the same bits everywhere.
#pragma once
#include "pack.h"

namespace nestvec {
namespace {

void code_queries(const FloatQueries& from, int64_t largest, double shift, const CodedQueries& to) {
  for (int64_t i = 0; i < from.n; i++) {
    const double *q = from.q + i * from.d, *center = from.center;
    bool moved = center && from.metric == kL2;
    auto value_of = [&](int64_t j) { return moved ? q[j] - center[j] : q[j]; };
    double most = 0, square = 0, product = 0;
    for (int64_t j = 0; j < from.widest; j++) {
      double size = __builtin_fabs(value_of(j));
      most = size > most ? size : most;
    }
    double step = (most > 0 ? most : 1) / double(largest);
    int8_t* codes = to.codes ? to.codes + i * to.width : nullptr;
    uint64_t* digits = to.digits + i * to.count * (to.width / 64);
    int64_t total = 0, place = 0;
    for (int64_t level = 0, j = 0; j < from.dims; level++) {
      int64_t end = from.bounds[level] < from.dims ? from.bounds[level] : from.dims;
      for (int64_t wide = query_width(from.bounds, level); wide > 0; wide -= 64, place += 64) {
        int8_t some[64] = {};
        for (int64_t c = 0; c < 64 && j < end; c++, j++) {
          double value = value_of(j);
          square += value * value;
          if (center) product += q[j] * center[j];
          some[c] = int8_t(__builtin_rint(value / step));
          total += some[c];
        }
        if (codes) memcpy(codes + place, some, 64);
        for (int64_t digit = 0; digit < to.count; digit++) {
          uint64_t bits = 0;
          for (int8_t code : some) bits = bits << 1 | (code >> digit & 1);
          digits[digit * (to.width / 64) + place / 64] = bits;
        }
      }
    }
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
