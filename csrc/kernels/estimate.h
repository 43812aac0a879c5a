// Estimated scores from coarse codes; specification: python/nestvec/kernels/estimate.py.
// A scan is bound by reading the plane, a list by cache misses, which are asked for some rows ahead.
#pragma once
#include "dots.h"
#include "select.h"
#include "signs.h"

namespace nestvec {
namespace {

constexpr int64_t kRowsAhead = 24;

// Sums of unsigned codes in tiles of 16 rows: what the offset of `dot4` took away is put back. A line holds
// `Self::kDims` dims.
template <class Self, int64_t kDims>
struct Tiles {
  static constexpr int kUnroll = kParts >= 4 ? 1 : 4 / kParts;  // several sums a lane hide the multiplier's latency
  int32_t offsets[kMaxLevels];
  Units<kMaxDims / kDims + kMaxLevels, kAhead / kLine> units;

  void prepare(const CodePlane&, const CodeQuery&) {}
  Tiles(const CodePlane& p, const CodeQuery& q, int64_t begin) {
    const int8_t* codes = static_cast<const int8_t*>(q.codes);
    for (int64_t level = 0; level < p.levels; level++) {
      int64_t wide = query_width(p.bounds, level);
      offsets[level] = 0;
      for (int64_t j = 0; j < wide && level >= begin; j++) offsets[level] += codes[j];
      units.add(level < begin ? 0 : lines(p, level), [codes](int64_t line) {
        return four_codes(codes + line * kDims) || four_codes(codes + (line + 1) * kDims - 4);
      });
      codes += wide;
    }
  }

  static int64_t lines(const CodePlane& p, int64_t level) {
    return (p.bounds[level] - level_start(p.bounds, level) + kDims - 1) / kDims;
  }
  static const uint8_t* tile_of(const CodePlane& p, int64_t level, int64_t row) {
    return static_cast<const uint8_t*>(p.codes) + p.starts[level] + row / kTile * lines(p, level) * kLine;
  }

  void tile(const CodePlane& p, const CodeQuery& q, int64_t row, bool prefetch, int32_t* sums) const {
    const int8_t* codes = static_cast<const int8_t*>(q.codes);
    I32N acc[kUnroll][kParts] = {};
    int32_t offset = 0;
    for (int64_t level = 0; level < p.levels; level++) {
      const uint8_t* tile = tile_of(p, level, row);
      const uint32_t* listed = units[level].begin;
      int64_t count = units[level].end - listed;
      if (count == lines(p, level))
        add(tile, codes, AllUnits{}, count, prefetch, acc);
      else
        add(tile, codes, listed, count, prefetch, acc);
      offset += offsets[level];
      codes += query_width(p.bounds, level);
    }
    for (int p = 0; p < kParts; p++) {
      I32N sum = I32N{} + Self::kLifted * offset;
      for (int u = 0; u < kUnroll; u++) sum += acc[u][p];
      store(sums + p * kF32, sum);
    }
  }

  template <class Listed>
  static void add(const uint8_t* tile, const int8_t* codes, Listed line, int64_t count, bool prefetch,
                  I32N (*acc)[kParts]) {
    int64_t i = 0;
    for (; i + kUnroll <= count; i += kUnroll)
      for (int u = 0; u < kUnroll; u++) {
        if (prefetch) __builtin_prefetch(tile + line[i + u + kAhead / kLine] * kLine);
        Self::dots(tile + line[i + u] * kLine, codes + line[i + u] * kDims, acc[u]);
      }
    for (; i < count; i++) Self::dots(tile + line[i] * kLine, codes + line[i] * kDims, acc[0]);
  }

  void sum(const CodePlane& p, const CodeQuery& q, int64_t block, int32_t* sums) const {
    for (int64_t at = 0; at < kBlock; at += kTile) tile(p, q, block + at, true, sums + at);
  }

  int32_t sum_one(const CodePlane& p, const CodeQuery& q, int64_t row) const {
    int32_t sums[kTile];
    tile(p, q, row, false, sums);
    return sums[row % kTile];
  }

  void prefetch(const CodePlane& p, int64_t row) const {
    for (int64_t level = 0; level < p.levels; level++) {
      const uint8_t* tile = tile_of(p, level, row);
      for (const uint32_t* line = units[level].begin; line < units[level].end; line++)
        __builtin_prefetch(tile + *line * kLine);
    }
  }
};

struct Nibbles : Tiles<Nibbles, 8> {
  static constexpr int32_t kMultiply = 2, kLifted = 0;
  HalfFactors factors;
  Nibbles(const CodePlane& p, const CodeQuery& q, int64_t begin) : Tiles(p, q, begin), factors(p) {}

  static void dots(const uint8_t* line, const int8_t* query, I32N* acc) {
    constexpr U8N kLow = U8N{} + 15, kUp = U8N{} + uint8_t(kOffset);
    for (int p = 0; p < kParts; p++) {
      U8N both = load<U8N>(line + p * kNative);
      acc[p] = dot4(acc[p], codes_of((both & kLow) + kUp), four_codes(query));
      acc[p] = dot4(acc[p], codes_of((both >> 4) + kUp), four_codes(query + 4));
    }
  }
};

struct Bytes : Tiles<Bytes, 4> {
  static constexpr int32_t kMultiply = 1, kLifted = kOffset;
  StatFactors factors;
  Bytes(const CodePlane& p, const CodeQuery& q, int64_t begin) : Tiles(p, q, begin), factors(p) {}

  static void dots(const uint8_t* line, const int8_t* query, I32N* acc) {
    for (int p = 0; p < kParts; p++) acc[p] = dot4(acc[p], nestvec::prepare(line + p * kNative), four_codes(query));
  }
};

// What overflows, and NaN, still has a value: no row is lost.
inline F32N estimate(I32N t, F32N f, F32N g, bool lifted, float a) {
  F32N value = to_float(t) * f;
  if (lifted) value = value + g * splat(a);
  return min(max(value, splat(-3e38f)), splat(3e38f));
}

template <class Code>
float scan_codes(const CodePlane& p, const CodeQuery& q, float threshold, int64_t keep, int64_t first, int64_t last,
                 int64_t stride, int64_t slot, const uint64_t* allowed, const Shortlist& out) {
  Code code(p, q, 0);
  code.prepare(p, q);
  bool lifted = code.factors.lifted;
  int64_t count = *out.count;
  for (int64_t block = first; block < last; block += stride) {
    if (count > out.room - kBlock) {
      *out.count = count;
      float least = keep_best(out, keep);
      threshold = least > threshold ? least : threshold;
      count = *out.count;
    }
    uint64_t rows = allowed_rows(allowed, block, last);
    if (!rows) continue;
    alignas(64) int32_t sums[kBlock];
    float values[kBlock];
    code.sum(p, q, block, sums);
    code.factors.load(block, last);
    uint64_t found = 0;
    for (int64_t i = 0; i < kBlock; i += kF32) {
      I32N t = Code::kMultiply * load<I32N>(sums + i) - int32_t(q.shift);
      F32N lift = lifted ? code.factors.lift(block + i) : F32N{};
      F32N value = estimate(t, code.factors.factor(block + i), lift, lifted, q.a);
      store(values + i, value);
      found |= uint64_t(at_least(value, splat(threshold))) << i;
    }
    for (found &= rows; found; found &= found - 1, count++) {
      int64_t i = __builtin_ctzll(found);
      out.rows[count] = int32_t(slot + block + i);
      out.sums[count] = sums[i];
      out.values[count] = values[i];
    }
  }
  *out.count = count;
  return threshold;
}

template <class Code>
void list_codes(const CodePlane& p, const CodeQuery& q, int64_t begin, int64_t n, const Shortlist& list) {
  Code code(p, q, begin);
  bool lifted = code.factors.lifted;
  for (int64_t c = 0; c < n; c++) {
    if (c + kRowsAhead < n) code.prefetch(p, list.rows[c + kRowsAhead]);
    int64_t row = list.rows[c];
    list.sums[c] += code.sum_one(p, q, row);
    float f, g;
    code.factors.one(row, f, g);
    I32N t = I32N{} + (Code::kMultiply * list.sums[c] - int32_t(q.shift));
    list.values[c] = estimate(t, splat(f), splat(g), lifted, q.a)[0];
  }
}

}  // namespace
}  // namespace nestvec
