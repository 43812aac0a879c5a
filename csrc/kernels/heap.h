// Heaps of results (the worst at the root) and of candidates (the most promising at the root), and the order of both.
#pragma once
#include "../kernels.h"
#include "../simd.h"

namespace nestvec {
namespace {

template <class Score, class Id>
inline bool better(Score score, Id id, Score other_score, Id other_id) {
  return score > other_score || (score == other_score && id < other_id);
}

// Put a result into a heap of so many, the worst at the root, at `hole` or below.
inline void sink(double* scores, int64_t* ids, int64_t hole, int64_t size, double score, int64_t id) {
  for (int64_t child; (child = 2 * hole + 1) < size; hole = child) {
    if (child + 1 < size && better(scores[child], ids[child], scores[child + 1], ids[child + 1])) child++;
    if (better(scores[child], ids[child], score, id)) break;
    scores[hole] = scores[child];
    ids[hole] = ids[child];
  }
  scores[hole] = score;
  ids[hole] = id;
}

// Replace the root, the worst of the k best, unless the new result is worse still.
inline void offer(const Best& best, int64_t query, double score, int64_t id) {
  double* scores = best.scores + query * best.k;
  int64_t* ids = best.ids + query * best.k;
  if (better(score, id, scores[0], ids[0])) sink(scores, ids, 0, best.k, score, id);
}

// Rounded down past every rounding between an exact score and the scan's float32 bounds.
inline float threshold(double tau, double multiply, double offset) {
  if (tau == -__builtin_inf()) return -__builtin_inff();
  double scaled = tau * multiply;
  double low = scaled + offset - (__builtin_fabs(scaled) + __builtin_fabs(offset)) * 0x1p-19 - 1e-43;
  return float(low < 3e38 ? low : 3e38);
}

inline void sift(float* upper, int32_t* rows, int64_t hole, int64_t size) {
  float bound = upper[hole];
  int32_t row = rows[hole];
  for (int64_t child; (child = 2 * hole + 1) < size; hole = child) {
    if (child + 1 < size && better(upper[child + 1], rows[child + 1], upper[child], rows[child])) child++;
    if (!better(upper[child], rows[child], bound, row)) break;
    upper[hole] = upper[child];
    rows[hole] = rows[child];
  }
  upper[hole] = bound;
  rows[hole] = row;
}

}  // namespace
}  // namespace nestvec
