// Scan of int8 planes for the rows that can reach a threshold; specification: python/nestvec/kernels/scan.py.
// One query is bound by reading the plane: software prefetch 2 KB ahead, levels skipped for tiles that are dropped.
// Many queries are bound by multiplying: half a block of rows (32 x d bytes, in L1) meets 8 or 32 queries at a time up
// to the first check, a product is compared where it lies, and only what survives goes on, tile by tile. Rows that no
// query may find are not read, nor multiplied where 32 of them lie together.
#pragma once
#include "allowed.h"
#include "bounds.h"
#include "dots.h"

namespace nestvec {
namespace {

// Levels from `level` on, for the rows of one query that are alive; then the last test.
inline void descend(const Plane& plane, const QueryBatch& q, int64_t query, const Block& block, int64_t level,
                    int64_t check, uint64_t alive, int32_t* dots, const Candidates& out) {
  const int8_t* codes = q.codes + query * q.stride;
  for (int64_t l = 0; l < level; l++) codes += query_width(q.bounds, l);
  bool prefetch = level == 0;
  for (; level < q.levels; level++) {
    int64_t width = level_width(q.bounds, level);
    int32_t shift = prefix_shift(q, level, query) - (level ? prefix_shift(q, level - 1, query) : 0);
    const uint8_t* lines = plane.codes + plane.starts[level] + block.first * width;
    for (int64_t tile = 0; tile < kBlock; tile += kTile)
      if (alive >> tile & 0xFFFF) tile_dots(lines + tile * width, width / 4, codes, shift, prefetch, dots + tile);
    codes += query_width(q.bounds, level);
    if (level < check && level < q.levels - 1) continue;
    alive = surviving(plane, q, query, block, level, dots, alive);
    if (!alive) return;
    prefetch = false;
  }
  append(plane, q, query, block, dots, alive, out);
}

int64_t scan_one(const Plane& plane, const QueryBatch& q, int64_t check, int64_t first, int64_t last,
                 const Candidates& out) {
  for (int64_t at = first; at < last; at += kBlock) {
    if (out.counts[0] > out.room - kBlock) return at;
    uint64_t alive = allowed_rows(q.allowed.words, at, last);
    if (!alive) continue;
    Block block = load_block(plane, q, at, last);
    alignas(64) int32_t dots[kBlock] = {};
    descend(plane, q, 0, block, 0, check, alive, dots, out);
  }
  return last;
}

// Dot products of a group of queries with half a block of rows, over the levels up to `level`.
struct Products {
  alignas(64) int32_t dots[kQueries * kRows];
  int64_t level, half, group;
  uint64_t rows;  // of the block, one bit each
};

// One bit a query of the group: some row may reach its threshold.
template <bool kL2Metric, bool kTail>
inline uint32_t reaching(const QueryBatch& q, const Block& block, const LevelTest& test, const Products& products) {
  const float* errors = error_factors(q, products.level) + products.group;
  const float* norms = norm_factors(q, products.level) + products.group;
  const float* behind = kTail ? norms_behind(q, products.level) + products.group : nullptr;
  const float* inverses = step_inverses(q) + products.group;
  const float* least = q.thresholds + products.group;
  const int32_t* sums = q.sums + products.level * q.padded + products.group;
  float slack[kQueries];
  for (int64_t j = 0; j < kQueries; j++) slack[j] = errors[j] * test.error + norms[j] * test.norm;
  uint32_t found = 0;
  for (int64_t j = 0; j < kQueries; j++) {
    F32N most = splat(-__builtin_inff()), extra = splat(slack[j]), inverse = splat(inverses[j]);
    I32N shift = I32N{} - (128 - kOffset) * sums[j];
    for (int64_t i = 0; i < kRows; i += kF32) {
      F32N bound = to_float(load<I32N>(products.dots + j * kRows + i) + shift) + extra;
      if (kTail) bound += splat(behind[j]) * load<F32N>(test.tail + products.half + i);
      // in this order a NaN, from the unwritten stats behind the last row, loses
      most = max(in_units(bound, block, products.half + i, inverse, kL2Metric), most);
    }
    found |= uint32_t(at_least(most, splat(least[j])) != 0) << j;
  }
  return found;
}

// Takes the rows that survive on to the candidates; returns the largest count so far.
template <bool kL2Metric>
inline int64_t collect(const Plane& plane, const QueryBatch& q, const Block& block, const LevelTest& test,
                       const Products& products, const Sets& sets, int64_t check, const Candidates& out,
                       int64_t fullest) {
  uint32_t found = test.tail ? reaching<kL2Metric, true>(q, block, test, products)
                             : reaching<kL2Metric, false>(q, block, test, products);
  for (; found; found &= found - 1) {
    int64_t j = __builtin_ctz(found), query = products.group + j;
    if (query >= q.n) break;
    uint64_t alive = products.rows & sets.of(query);
    if (!alive) continue;
    alignas(64) int32_t dots[kBlock] = {};
    int32_t shift = prefix_shift(q, products.level, query);
    for (int64_t i = 0; i < kRows; i++) dots[products.half + i] = products.dots[j * kRows + i] + shift;
    alive = surviving(plane, q, query, block, products.level, dots, alive);
    if (alive) descend(plane, q, query, block, products.level + 1, check, alive, dots, out);
    fullest = out.counts[query] > fullest ? out.counts[query] : fullest;
  }
  return fullest;
}

template <bool kL2Metric>
int64_t scan_many(const Plane& plane, const QueryBatch& q, int64_t check, int64_t first, int64_t last,
                  const Candidates& out) {
  DotEngine engine;
  Products products;
  Sets sets(q.allowed, q.n);
  products.level = check < q.levels - 1 ? check : q.levels - 1;
  int64_t fullest = 0;
  for (int64_t i = 0; i < q.n; i++) fullest = out.counts[i] > fullest ? out.counts[i] : fullest;
  for (int64_t at = first; at < last; at += kBlock) {
    if (fullest > out.room - kBlock) return at;
    sets.turn_to(at);
    if (!sets.some(0, q.n)) continue;
    Block block = load_block(plane, q, at, last);
    if (!q.allowed.stride) forbid(block, ~sets.of(0));
    LevelTest test(plane, q, products.level, at);
    for (products.half = 0; products.half < block.size; products.half += kRows) {
      products.rows = block.rows() & ((uint64_t(1) << kRows) - 1) << products.half;
      for (products.group = 0; products.group < q.n; products.group += kQueries) {
        int64_t end = products.group + kQueries < q.n ? products.group + kQueries : q.n;
        if (!(products.rows & sets.some(products.group, end))) continue;
        engine.multiply(plane, q, products.level + 1, at + products.half, products.group, products.dots);
        fullest = collect<kL2Metric>(plane, q, block, test, products, sets, check, out, fullest);
      }
    }
  }
  return last;
}

int64_t scan(const Plane& plane, const QueryBatch& q, int64_t check, int64_t first, int64_t last,
             const Candidates& out) {
  if (q.n == 1) return scan_one(plane, q, check, first, last, out);
  return q.metric == kL2 ? scan_many<true>(plane, q, check, first, last, out)
                         : scan_many<false>(plane, q, check, first, last, out);
}

}  // namespace
}  // namespace nestvec
