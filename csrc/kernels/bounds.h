// Certified upper bounds of rows, from their integer dot products; specification: `level_bound`, `row_bound` and
// `in_units` in python/nestvec/kernels/scan.py. Float32, one rounding per operation in the order of the specification.
#pragma once
#include "../kernels.h"
#include "pack.h"

namespace nestvec {
namespace {

// What turns upper bounds on integer dot products into threshold units, for the rows of one block.
struct Block {
  float unit[kBlock], half[kBlock];
  int64_t first, size;

  uint64_t rows() const { return ~uint64_t(0) >> (kBlock - size); }  // one bit a row
};

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
  block.first = first;
  block.size = last - first < kBlock ? last - first : kBlock;
  return block;
}

// Rows that no query may find reach no threshold: their bounds are NaN.
inline void forbid(Block& block, uint64_t rows) {
  for (; rows; rows &= rows - 1) block.unit[__builtin_ctzll(rows)] = __builtin_nanf("");
}

inline F32N in_units(F32N bound, const Block& block, int64_t i, F32N inverse, bool l2) {
  F32N value = bound * load<F32N>(block.unit + i);
  return l2 ? value - min(load<F32N>(block.half + i) * inverse, splat(3e38f)) : value;
}

// Per-query numbers of a batch.
inline const float* error_factors(const QueryBatch& q, int64_t level) { return q.stats + level * q.padded; }
inline const float* norm_factors(const QueryBatch& q, int64_t level) { return q.stats + (q.levels + level) * q.padded; }
inline const float* norms_behind(const QueryBatch& q, int64_t level) {
  return q.stats + (2 * q.levels + level) * q.padded;
}
inline const float* step_inverses(const QueryBatch& q) { return q.stats + 3 * q.levels * q.padded; }

// What the unsigned bytes of a prefix add to its dot products.
inline int32_t prefix_shift(const QueryBatch& q, int64_t level, int64_t query) {
  return -(128 - kOffset) * q.sums[level * q.padded + query];
}

// Bounds of a block's rows after some level. The largest error and norm of the block stand in for each row's own;
// rounding is monotonic, so at the last level this never drops a row that the row's own numbers keep.
struct LevelTest {
  float error, norm;
  const float* tail;  // null at the last searched level

  LevelTest(const Plane& plane, const QueryBatch& q, int64_t level, int64_t first) {
    int64_t count = plane.capacity / kBlock, b = first / kBlock;
    norm = plane.blocks[level * count + b];
    error = plane.blocks[(plane.stored + level) * count + b];
    tail = level < q.levels - 1 ? plane.stats + (1 + 2 * plane.stored + level) * plane.capacity + first : nullptr;
  }
};

// Those of `alive`, rows of a block, that may still reach the threshold of one query after `level`, one bit each.
inline uint64_t surviving(const Plane& plane, const QueryBatch& q, int64_t query, const Block& block, int64_t level,
                          const int32_t* dots, uint64_t alive) {
  LevelTest test(plane, q, level, block.first);
  F32N slack = splat(error_factors(q, level)[query] * test.error + norm_factors(q, level)[query] * test.norm);
  F32N behind = splat(test.tail ? norms_behind(q, level)[query] : 0);
  F32N least = splat(q.thresholds[query]), inverse = splat(step_inverses(q)[query]);
  uint64_t found = 0;
  for (int64_t i = 0; i < kBlock; i += kF32) {
    if (!(alive >> i & ((uint64_t(1) << kF32) - 1))) continue;
    F32N bound = to_float(load<I32N>(dots + i)) + slack;
    if (test.tail) bound += behind * load<F32N>(test.tail + i);
    found |= uint64_t(at_least(in_units(bound, block, i, inverse, q.metric == kL2), least)) << i;
  }
  return alive & found;
}

// The last test, with each row's own error and norm, for the rows of `alive`, and their entries among the candidates.
inline void append(const Plane& plane, const QueryBatch& q, int64_t query, const Block& block, const int32_t* dots,
                   uint64_t alive, const Candidates& out) {
  const float* norms = plane.stats + q.levels * plane.capacity + block.first;
  const float* errors = norms + plane.stored * plane.capacity;
  F32N of_error = splat(error_factors(q, q.levels - 1)[query]), of_norm = splat(norm_factors(q, q.levels - 1)[query]);
  F32N inverse = splat(step_inverses(q)[query]), least = splat(q.thresholds[query]);
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
