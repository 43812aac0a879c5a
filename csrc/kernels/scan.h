// Scans of int8 planes with certified upper bounds; specification: python/nestvec/kernels/scan.py.
// One query is bound by reading the plane: software prefetch a few KB ahead, one check per 16 rows. Many queries are bound by
// multiplying: half a block of rows (32 x d bytes, in L1) meets 8 or 32 queries at a time, sums stay in registers, and a
// score is compared with its threshold where it lies: four vector operations for 16 scores, nothing written.
#pragma once
#include "../kernels.h"
#include "dots.h"

namespace nestvec {
namespace {

// What turns upper bounds on integer dot products into threshold units, for the rows of one block. Block maxima stand in for
// each row's error and norm in the vector test; rounding is monotonic, so that test never drops a row the exact one keeps.
struct Block {
  float unit[kBlock], half[kBlock];
  float error, norm;
  int64_t first, size;
};

inline F32N in_units(F32N bound, const Block& block, int64_t i, float step_inverse, int metric) {
  F32N value = bound * load<F32N>(block.unit + i);
  if (metric != kL2) return value;
  return value - min(load<F32N>(block.half + i) * splat(step_inverse), splat(3e38f));
}

inline Block load_block(const Plane& plane, int64_t levels, int metric, int64_t first, int64_t last) {
  Block block;
  const float* scale = plane.stats + first;
  const float* norm = plane.stats + levels * plane.capacity + first;
  if (metric == kCosine)
    for (int64_t i = 0; i < kBlock; i++) block.unit[i] = norm[i] > 0 ? 1 / norm[i] : 0;
  else
    memcpy(block.unit, scale, sizeof block.unit);
  for (int64_t i = 0; i < kBlock && metric == kL2; i++) {
    float under = norm[i] - 2e-30f, low = scale[i] * (under > 0 ? under : 0), half = low * low * 0.49999f;
    block.half[i] = half < 3e38f ? half : 3e38f;
  }
  int64_t count = plane.capacity / kBlock, b = first / kBlock;
  block.norm = plane.blocks[(levels - 1) * count + b];
  block.error = plane.blocks[(plane.stored + levels - 1) * count + b];
  block.first = first;
  block.size = last - first < kBlock ? last - first : kBlock;
  return block;
}

// The exact test of one row, and its entry among the candidates.
inline void append(const Plane& plane, const QueryBatch& q, int64_t query, const Block& block, int64_t i,
                   int32_t dot, const Candidates& out) {
  const float* stats = plane.stats + block.first + i;
  float error_factor = q.stats[(q.levels - 1) * q.padded + query];
  float norm_factor = q.stats[(2 * q.levels - 1) * q.padded + query];
  float slack = error_factor * stats[(plane.stored + q.levels) * plane.capacity] +
                norm_factor * stats[q.levels * plane.capacity];
  float reach = (float(dot) + slack) * block.unit[i];
  if (q.metric == kL2) {
    float shift = block.half[i] * q.stats[3 * q.levels * q.padded + query];
    reach -= shift < 3e38f ? shift : 3e38f;
  }
  if (!(reach >= q.thresholds[query])) return;
  int64_t at = query * out.room + out.counts[query]++;
  out.rows[at] = int32_t(block.first + i);
  out.upper[at] = reach;
}

inline float block_slack(const QueryBatch& q, int64_t query, int64_t level, float error, float norm) {
  return q.stats[level * q.padded + query] * error + q.stats[(q.levels + level) * q.padded + query] * norm;
}

// Upper bounds of rows [i, i + lanes) of a block that reach the threshold, as a mask.
inline I32N reaching(const int32_t* dots, F32N slack, const Block& block, int64_t i, float step_inverse, int metric,
                     F32N least) {
  return in_units(to_float(load<I32N>(dots)) + slack, block, i, step_inverse, metric) >= least;
}

int64_t scan_batch(const Plane& plane, const QueryBatch& q, int64_t first, int64_t last, const Candidates& out) {
  DotEngine engine;
  alignas(64) int32_t dots[kQueries * kRows];
  int64_t fullest = 0;
  for (int64_t i = 0; i < q.n; i++) fullest = out.counts[i] > fullest ? out.counts[i] : fullest;
  for (int64_t at = first; at < last; at += kBlock) {
    if (fullest > out.room - kBlock) return at;
    Block block = load_block(plane, q.levels, q.metric, at, last);
    for (int64_t half = 0; half < block.size; half += kRows)
      for (int64_t group = 0; group < q.n; group += kQueries) {
        engine.multiply(plane, q, at + half, group, dots);
        int64_t end = q.n - group < kQueries ? q.n - group : kQueries;
        for (int64_t j = 0; j < end; j++) {
          int64_t query = group + j;
          float step_inverse = q.stats[3 * q.levels * q.padded + query];
          F32N slack = splat(block_slack(q, query, q.levels - 1, block.error, block.norm));
          F32N least = splat(q.thresholds[query]);
          int32_t* row = dots + j * kRows;
          I32N found = {};
          for (int64_t i = 0; i < kRows; i += kF32)
            found |= reaching(row + i, slack, block, half + i, step_inverse, q.metric, least);
          if (!any(found)) continue;
          for (int64_t i = 0; i < kRows && half + i < block.size; i++)
            append(plane, q, query, block, half + i, row[i], out);
          fullest = out.counts[query] > fullest ? out.counts[query] : fullest;
        }
      }
  }
  return last;
}

// Drops rows whose bound, with all that lies behind `level` at its largest (Cauchy-Schwarz), stays below the threshold.
inline void check_level(const Plane& plane, const QueryBatch& q, const Block& block, int64_t level,
                        const int32_t* dots, int32_t* alive) {
  int64_t count = plane.capacity / kBlock, b = block.first / kBlock;
  F32N slack = splat(block_slack(q, 0, level, plane.blocks[(plane.stored + level) * count + b],
                                 plane.blocks[level * count + b]));
  F32N behind = splat(q.stats[(2 * q.levels + level) * q.padded]);
  F32N least = splat(q.thresholds[0]);
  float step_inverse = q.stats[3 * q.levels * q.padded];
  const float* tail = plane.stats + (1 + 2 * plane.stored + level) * plane.capacity + block.first;
  for (int64_t i = 0; i < kBlock; i += kF32) {
    F32N bound = to_float(load<I32N>(dots + i)) + slack + behind * load<F32N>(tail + i);
    I32N reach = in_units(bound, block, i, step_inverse, q.metric) >= least;
    store(alive + i, load<I32N>(alive + i) & reach);
  }
}

inline bool tile_alive(const int32_t* alive) {
  I32N some = {};
  for (int64_t i = 0; i < kTile; i += kF32) some |= load<I32N>(alive + i);
  return any(some);
}

int64_t scan_query(const Plane& plane, const QueryBatch& q, const uint8_t* checks, int64_t first,
                   int64_t last, const Candidates& out, int64_t* visited) {
  alignas(64) int32_t dots[kBlock], alive[kBlock];
    float step_inverse = q.stats[3 * q.levels * q.padded];
  for (int64_t at = first; at < last; at += kBlock) {
    if (out.counts[0] > out.room - kBlock) return at;
    Block block = load_block(plane, q.levels, q.metric, at, last);
    for (int64_t i = 0; i < kBlock; i++) {
      alive[i] = i < block.size ? -1 : 0;
      dots[i] = -(128 - kOffset) * q.sums[0];
    }
    bool pruned = false;
    const int8_t* level_codes = q.codes;
    for (int64_t level = 0; level < q.levels; level++) {
      int64_t width = level_width(q.bounds, level);
      for (int64_t tile = 0; tile < kBlock; tile += kTile) {
        if (!tile_alive(alive + tile)) continue;
        visited[level]++;
        tile_dots(plane.codes + plane.starts[level] + (at + tile) * width, width / 4, level_codes, !pruned, dots + tile);
      }
      level_codes += query_width(q.bounds, level);
      if (level == q.levels - 1 || !checks[level]) continue;
      check_level(plane, q, block, level, dots, alive);
      pruned = true;
    }
    F32N slack = splat(block_slack(q, 0, q.levels - 1, block.error, block.norm));
    F32N least = splat(q.thresholds[0]);
    for (int64_t tile = 0; tile < block.size; tile += kTile) {
      I32N found = {};
      for (int64_t i = tile; i < tile + kTile; i += kF32)
        found |= load<I32N>(alive + i) & reaching(dots + i, slack, block, i, step_inverse, q.metric, least);
      if (!any(found)) continue;
      for (int64_t i = tile; i < tile + kTile; i++)
        if (alive[i]) append(plane, q, 0, block, i, dots[i], out);
    }
  }
  return last;
}

}  // namespace
}  // namespace nestvec
