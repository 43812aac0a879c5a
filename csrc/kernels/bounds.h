// Certified upper bounds of rows, from their integer dot products; specification: `in_units` and `_append` in
// python/nestvec/kernels/scan.py. Float32, one rounding per operation in the order of the specification.
#pragma once
#include "../kernels.h"
#include "../simd.h"

namespace nestvec {
namespace {

// What turns upper bounds on integer dot products into threshold units, for the rows of one block. Block maxima stand in for
// each row's error and norm in the vector test; rounding is monotonic, so that test never drops a row the exact one keeps.
struct Block {
  float unit[kBlock], half[kBlock];
  float error, norm;
  int64_t first, size;

  uint64_t rows() const { return ~uint64_t(0) >> (kBlock - size); }  // one bit a row
};

// Per-query numbers of a batch, by level.
inline float error_factor(const QueryBatch& q, int64_t level, int64_t i) { return q.stats[level * q.padded + i]; }
inline float norm_factor(const QueryBatch& q, int64_t level, int64_t i) {
  return q.stats[(q.levels + level) * q.padded + i];
}
inline float norm_behind(const QueryBatch& q, int64_t level, int64_t i) {
  return q.stats[(2 * q.levels + level) * q.padded + i];
}
inline float step_inverse(const QueryBatch& q, int64_t i) { return q.stats[3 * q.levels * q.padded + i]; }
inline int32_t shift_of(const QueryBatch& q, int64_t i) { return -(128 - kOffset) * q.sums[i]; }

inline F32N in_units(F32N bound, const Block& block, int64_t i, F32N inverse, bool l2) {
  F32N value = bound * load<F32N>(block.unit + i);
  return l2 ? value - min(load<F32N>(block.half + i) * inverse, splat(3e38f)) : value;
}

inline Block load_block(const Plane& plane, const QueryBatch& q, int64_t first, int64_t last) {
  Block block;
  const float* scale = plane.stats + first;
  const float* norm = plane.stats + q.levels * plane.capacity + first;
  if (q.metric == kCosine)
    for (int64_t i = 0; i < kBlock; i++) block.unit[i] = norm[i] > 0 ? 1 / norm[i] : 0;
  else
    memcpy(block.unit, scale, sizeof block.unit);
  for (int64_t i = 0; i < kBlock && q.metric == kL2; i++) {
    float under = norm[i] - 2e-30f, low = scale[i] * (under > 0 ? under : 0);
    float half = low * 0.49999f * low - 1e-44f;  // below the true half norm, denormal or not
    block.half[i] = half < 3e38f ? (half > 0 ? half : 0) : 3e38f;
  }
  int64_t count = plane.capacity / kBlock, b = first / kBlock;
  block.norm = plane.blocks[(q.levels - 1) * count + b];
  block.error = plane.blocks[(plane.stored + q.levels - 1) * count + b];
  block.first = first;
  block.size = last - first < kBlock ? last - first : kBlock;
  return block;
}

// The test with each row's own error and norm, for the rows of `alive`, and their entries among the candidates.
inline void append(const Plane& plane, const QueryBatch& q, int64_t query, const Block& block, const int32_t* dots,
                   uint64_t alive, const Candidates& out) {
  const float* norms = plane.stats + q.levels * plane.capacity + block.first;
  const float* errors = norms + plane.stored * plane.capacity;
  F32N of_error = splat(error_factor(q, q.levels - 1, query)), of_norm = splat(norm_factor(q, q.levels - 1, query));
  F32N inverse = splat(step_inverse(q, query)), least = splat(q.thresholds[query]);
  int64_t at = query * out.room + out.counts[query];
  for (int64_t i = 0; i < kBlock; i += kF32) {
    uint64_t some = alive >> i & ((uint64_t(1) << kF32) - 1);
    if (!some) continue;
    F32N slack = of_error * load<F32N>(errors + i) + of_norm * load<F32N>(norms + i);
    F32N reach = in_units(to_float(load<I32N>(dots + i)) + slack, block, i, inverse, q.metric == kL2);
    for (some &= at_least(reach, least); some; some &= some - 1, at++) {
      int64_t lane = __builtin_ctzll(some);
      out.rows[at] = int32_t(block.first + i + lane);
      out.upper[at] = reach[lane];
    }
  }
  out.counts[query] = at - query * out.room;
}

}  // namespace
}  // namespace nestvec
