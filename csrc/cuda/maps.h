// What vectors go through before they are searched: bit for bit python/nestvec/rotation.py and kernels/transform.py.
#pragma once
#include "convert.h"

namespace nestvec::cuda {

struct FloatQueries {
  const float* values;
  int64_t nq, stride;
};

// rotation.py: BlockRotation, in float64.
struct Span {
  int64_t begin, size, end, signs;  // of its dims and of its level, and where its signs begin
};
struct Rotation {
  const Span* spans;
  int64_t count;
  const float* signs;
  const double* scales;  // (count,)
};
// Rows (nq, stride) of float64, of which the levels that end at `dims` or before are turned.
void rotate(const FloatQueries&, int64_t dims, const Rotation&, double* turned, Stream);

// kernels/transform.py: the first `dims` columns of values (n, d) times panels (p, d, 16).
void multiply_rows(const FloatQueries&, int64_t d, const float* panels, int64_t dims, float* target, const Check&,
                   Stream);
void take_columns(const FloatQueries&, const int32_t* order, int64_t dims, float* target, Stream);

}  // namespace nestvec::cuda
