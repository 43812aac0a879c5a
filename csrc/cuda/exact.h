// Exact scores, bit for bit those of python/nestvec/kernels/exact.py.
#pragma once
#include "best.h"

namespace nestvec::cuda {

struct Vectors {
  const float* queries;  // (nq, >= dims)
  int64_t query_stride;
  const void* rows;  // (n, >= dims) of `type`: 0 float32, 1 float16, 2 bfloat16
  int64_t row_stride;
  int type;
  int64_t dims;
  int metric;
  int64_t nq, n;
};

// What turns the k-th best score into a scan's threshold: `pack_queries`. null: thresholds stay.
struct Units {
  const double *multiply, *offset;  // (nq,)
};

// Scores listed rows whose value reaches the threshold, the most promising first; the lists are empty afterwards.
void rescore(const Lists&, const Vectors&, const Units&, const Naming&, const Best&, int64_t nq, Stream);
// Scores all listed rows; each list is cut into shares, (nq, shares, k) of `partial`, which one share does not need.
void rank_lists(const Lists&, const Vectors&, const Naming&, int64_t shares, const Best& partial, const Best&,
                int64_t nq, Stream);
// The k best of all rows, for queries that `brute` names; partial: (nq, shares, k).
void top_k_of_rows(const Vectors&, const Brute&, const Best& partial, const Best&, int64_t nq, Stream);

// Scores of all rows, (nq, n); squared distances for l2.
void scores_of_rows(const Vectors&, float* out, Stream);

}  // namespace nestvec::cuda
