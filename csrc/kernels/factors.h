// What turns integer sums into estimates, row by row: `F` and `G` of python/nestvec/kernels/codes.py.
#pragma once
#include "bounds.h"
#include "convert.h"

namespace nestvec {
namespace {

// F and G of the rows of a block, for `estimate`.
struct HalfFactors {
  const uint16_t *f, *g;
  bool lifted;

  explicit HalfFactors(const CodePlane& p) : lifted(p.mode) {
    f = static_cast<const uint16_t*>(p.factors) + (p.levels - 1) * p.capacity;
    g = f + p.stored * p.capacity;
  }
  void load(int64_t, int64_t) {}
  F32N factor(int64_t row) const { return widen(f + row); }
  F32N lift(int64_t row) const { return widen(g + row); }
  void one(int64_t row, float& of, float& by) const {
    of = widen_one_bf16(f[row]);
    by = widen_one_bf16(g[row]);
  }
  void prefetch(int64_t row) const { __builtin_prefetch(f + row); }

  static F32N widen(const uint16_t* p) {
    return (F32N)(__builtin_convertvector(nestvec::load<U16Half>(p), U32N) << 16);
  }
};

// The same from the stats of an int8 plane.
struct StatFactors {
  Plane plane;
  QueryBatch query{};
  Block block;
  bool lifted;

  explicit StatFactors(const CodePlane& p)
      : plane{nullptr, p.starts, static_cast<const float*>(p.factors), nullptr, p.stored, p.capacity},
        lifted(p.mode == kL2) {
    query.levels = p.levels;
    query.metric = p.mode;
  }
  void load(int64_t first, int64_t last) { block = load_block(plane, query, first, last); }
  F32N factor(int64_t row) const { return nestvec::load<F32N>(block.unit + row - block.first); }
  F32N lift(int64_t row) const { return nestvec::load<F32N>(block.half + row - block.first); }
  void one(int64_t row, float& of, float& by) {
    load(row / kBlock * kBlock, row + 1);
    of = block.unit[row % kBlock];
    by = lifted ? block.half[row % kBlock] : 0;
  }
};

}  // namespace
}  // namespace nestvec
