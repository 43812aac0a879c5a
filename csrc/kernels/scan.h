// Scans of int8 planes with certified upper bounds; specification: python/nestvec/kernels/scan.py.
// One query is bound by reading the plane: software prefetch 2 KB ahead, one check per 16 rows. Many queries are bound by
// multiplying: half a block of rows (32 x d bytes, in L1) meets 8 or 32 queries at a time, sums stay in registers, and a
// score is compared with its threshold where it lies: four vector operations for 16 scores, nothing written.
#pragma once
#include "bounds.h"
#include "dots.h"

namespace nestvec {
namespace {

// Dot products of a group of queries with half a block of rows.
struct Products {
  alignas(64) int32_t dots[kQueries * kRows];
  int64_t half, group;
};

// One bit a query of the group: some row's bound reaches the threshold.
template <bool kL2Metric>
inline uint32_t reaching(const QueryBatch& q, const Block& block, const Products& products) {
  const float* errors = &q.stats[(q.levels - 1) * q.padded + products.group];
  const float* norms = errors + q.levels * q.padded;
  const float* inverses = &q.stats[3 * q.levels * q.padded + products.group];
  const float* least = q.thresholds + products.group;
  const int32_t* sums = q.sums + products.group;
  float slack[kQueries];
  for (int64_t j = 0; j < kQueries; j++) slack[j] = errors[j] * block.error + norms[j] * block.norm;
  uint32_t found = 0;
  for (int64_t j = 0; j < kQueries; j++) {
    F32N most = splat(-__builtin_inff()), extra = splat(slack[j]), inverse = splat(inverses[j]);
    I32N shift = I32N{} - (128 - kOffset) * sums[j];
    for (int64_t i = 0; i < kRows; i += kF32) {
      F32N bound = to_float(load<I32N>(products.dots + j * kRows + i) + shift) + extra;
      // in this order a NaN, from the unwritten stats behind the last row, loses
      most = max(in_units(bound, block, products.half + i, inverse, kL2Metric), most);
    }
    found |= uint32_t(at_least(most, splat(least[j])) != 0) << j;
  }
  return found;
}

// Appends the rows that reach; returns the largest count so far.
template <bool kL2Metric>
inline int64_t collect(const Plane& plane, const QueryBatch& q, const Block& block, const Products& products,
                       const Candidates& out, int64_t fullest) {
  uint64_t rows = ((uint64_t(1) << kRows) - 1) << products.half;
  for (uint32_t found = reaching<kL2Metric>(q, block, products); found; found &= found - 1) {
    int64_t j = __builtin_ctz(found), query = products.group + j;
    if (query >= q.n) break;
    alignas(64) int32_t dots[kBlock] = {};
    for (int64_t i = 0; i < kRows; i++) dots[products.half + i] = products.dots[j * kRows + i] + shift_of(q, query);
    append(plane, q, query, block, dots, rows & block.rows(), out);
    fullest = out.counts[query] > fullest ? out.counts[query] : fullest;
  }
  return fullest;
}

template <bool kL2Metric>
int64_t scan_all(const Plane& plane, const QueryBatch& q, int64_t first, int64_t last, const Candidates& out) {
  DotEngine engine;
  Products products;
  int64_t fullest = 0;
  for (int64_t i = 0; i < q.n; i++) fullest = out.counts[i] > fullest ? out.counts[i] : fullest;
  for (int64_t at = first; at < last; at += kBlock) {
    if (fullest > out.room - kBlock) return at;
    Block block = load_block(plane, q, at, last);
    for (products.half = 0; products.half < block.size; products.half += kRows)
      for (products.group = 0; products.group < q.n; products.group += kQueries) {
        engine.multiply(plane, q, at + products.half, products.group, products.dots);
        fullest = collect<kL2Metric>(plane, q, block, products, out, fullest);
      }
  }
  return last;
}

int64_t scan_batch(const Plane& plane, const QueryBatch& q, int64_t first, int64_t last, const Candidates& out) {
  return q.metric == kL2 ? scan_all<true>(plane, q, first, last, out) : scan_all<false>(plane, q, first, last, out);
}

// Drops rows whose bound, with all that lies behind `level` at its largest (Cauchy-Schwarz), stays below the threshold.
inline uint64_t check_level(const Plane& plane, const QueryBatch& q, const Block& block, int64_t level,
                            const int32_t* dots) {
  int64_t count = plane.capacity / kBlock, b = block.first / kBlock;
  F32N slack = splat(error_factor(q, level, 0) * plane.blocks[(plane.stored + level) * count + b] +
                     norm_factor(q, level, 0) * plane.blocks[level * count + b]);
  F32N behind = splat(norm_behind(q, level, 0)), least = splat(q.thresholds[0]), inverse = splat(step_inverse(q, 0));
  const float* tail = plane.stats + (1 + 2 * plane.stored + level) * plane.capacity + block.first;
  uint64_t alive = 0;
  for (int64_t i = 0; i < kBlock; i += kF32) {
    F32N bound = to_float(load<I32N>(dots + i)) + slack + behind * load<F32N>(tail + i);
    alive |= uint64_t(at_least(in_units(bound, block, i, inverse, q.metric == kL2), least)) << i;
  }
  return alive;
}

// Dot products of the rows still alive, level by level; returns which rows are left.
inline uint64_t descend(const Plane& plane, const QueryBatch& q, const Block& block, const uint8_t* checks,
                        const int32_t* shifts, int64_t* visited, int32_t* dots) {
  uint64_t alive = block.rows();
  bool pruned = false;
  const int8_t* codes = q.codes;
  for (int64_t i = 0; i < kBlock; i++) dots[i] = 0;
  for (int64_t level = 0; level < q.levels; level++) {
    int64_t width = level_width(q.bounds, level);
    const uint8_t* lines = plane.codes + plane.starts[level] + block.first * width;
    for (int64_t tile = 0; tile < kBlock; tile += kTile) {
      if (!(alive >> tile & 0xFFFF)) continue;
      visited[level]++;
      tile_dots(lines + tile * width, width / 4, codes, shifts[level], !pruned, dots + tile);
    }
    codes += query_width(q.bounds, level);
    if (level == q.levels - 1 || !checks[level]) continue;
    alive &= check_level(plane, q, block, level, dots);
    pruned = true;
  }
  return alive;
}

// What unsigned bytes add to a level's dot products, to be taken off before the level is checked.
inline void level_shifts(const QueryBatch& q, int32_t* shifts) {
  const int8_t* codes = q.codes;
  for (int64_t level = 0; level < q.levels; codes += query_width(q.bounds, level++)) {
    int32_t sum = 0;
    for (int64_t i = 0; i < query_width(q.bounds, level); i++) sum += codes[i];
    shifts[level] = -(128 - kOffset) * sum;
  }
}

int64_t scan_query(const Plane& plane, const QueryBatch& q, const uint8_t* checks, int64_t first, int64_t last,
                   const Candidates& out, int64_t* visited) {
  alignas(64) int32_t dots[kBlock];
  int32_t shifts[kMaxLevels];
  level_shifts(q, shifts);
  F32N inverse = splat(step_inverse(q, 0)), least = splat(q.thresholds[0]);
  for (int64_t at = first; at < last; at += kBlock) {
    if (out.counts[0] > out.room - kBlock) return at;
    Block block = load_block(plane, q, at, last);
    uint64_t alive = descend(plane, q, block, checks, shifts, visited, dots), reaching = 0;
    if (!alive) continue;
    F32N slack = splat(error_factor(q, q.levels - 1, 0) * block.error + norm_factor(q, q.levels - 1, 0) * block.norm);
    for (int64_t i = 0; i < kBlock; i += kF32) {
      F32N value = in_units(to_float(load<I32N>(dots + i)) + slack, block, i, inverse, q.metric == kL2);
      reaching |= uint64_t(at_least(value, least)) << i;
    }
    if (alive &= reaching) append(plane, q, 0, block, dots, alive, out);
  }
  return last;
}

}  // namespace
}  // namespace nestvec
