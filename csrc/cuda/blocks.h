// Which rows a round of a scan reads.
#pragma once
#include "device.h"

namespace nestvec::cuda {

// Blocks of 64 rows: each `stride`-th one, less each `skip`-th of those (0: less none). A scan in rounds takes few rows
// from everywhere first, so that thresholds do not depend on the order of rows.
struct Blocks {
  int64_t rows;
  int64_t stride, skip;

  int64_t count() const {
    auto every = [this](int64_t step) { return ceil_div(ceil_div<int64_t>(rows, 64), step); };
    return every(stride) - (skip ? every(stride * skip) : 0);
  }
  __device__ int64_t block(int64_t i) const { return stride * (skip ? i + i / (skip - 1) + 1 : i); }
  __device__ int64_t first_row(int64_t i) const { return block(i) * 64; }
};

}  // namespace nestvec::cuda
