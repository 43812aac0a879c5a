// Estimated scores from coarse codes; specification: python/nestvec/kernels/estimate.py.
// A scan is bound by reading the plane, a list by cache misses, which are asked for some rows ahead.
#pragma once
#include "dots.h"
#include "signs.h"

namespace nestvec {
namespace {

constexpr int64_t kRowsAhead = 24;

// Sums of unsigned codes in tiles of 16 rows: what the offset of `dot4` took away is put back.
template <class Self>
struct Tiles {
  int32_t offsets[kMaxLevels];

  void prepare(const CodePlane&, const CodeQuery&) {}
  explicit Tiles(const CodePlane& p, const CodeQuery& q) {
    const int8_t* codes = static_cast<const int8_t*>(q.codes);
    for (int64_t level = 0; level < p.levels; level++) {
      int64_t wide = query_width(p.bounds, level);
      offsets[level] = 0;
      for (int64_t j = 0; j < wide; j++) offsets[level] += codes[j];
      codes += wide;
    }
  }

  void tile(const CodePlane& p, const CodeQuery& q, int64_t begin, int64_t row, bool prefetch, int32_t* sums) const {
    const int8_t* codes = static_cast<const int8_t*>(q.codes);
    for (int64_t level = 0; level < p.levels; level++) {
      const uint8_t* lines = static_cast<const uint8_t*>(p.codes) + p.starts[level] + row * Self::width(p, level);
      if (level >= begin) Self::dots(lines, Self::width(p, level) / 4, codes, offsets[level], prefetch, sums);
      codes += query_width(p.bounds, level);
    }
  }

  void sum(const CodePlane& p, const CodeQuery& q, int64_t block, int32_t* sums) const {
    memset(sums, 0, kBlock * sizeof *sums);
    for (int64_t at = 0; at < kBlock; at += kTile) tile(p, q, 0, block + at, true, sums + at);
  }

  int32_t sum_one(const CodePlane& p, const CodeQuery& q, int64_t begin, int64_t row) const {
    int32_t sums[kTile] = {};
    tile(p, q, begin, row / kTile * kTile, false, sums);
    return sums[row % kTile];
  }

  void prefetch(const CodePlane& p, int64_t begin, int64_t row) const {
    for (int64_t level = begin; level < p.levels; level++) {
      int64_t wide = Self::width(p, level);
      const uint8_t* lines = static_cast<const uint8_t*>(p.codes) + p.starts[level] + row / kTile * kTile * wide;
      for (int64_t line = 0; line < wide / 4; line++) __builtin_prefetch(lines + line * kLine);
    }
  }
};

struct Nibbles : Tiles<Nibbles> {
  static constexpr int32_t kMultiply = 2;
  HalfFactors factors;
  Nibbles(const CodePlane& p, const CodeQuery& q) : Tiles(p, q), factors(p) {}

  static int64_t width(const CodePlane& p, int64_t level) { return nibble_width(p.bounds, level); }

  static void dots(const uint8_t* lines, int64_t count, const int8_t* query, int32_t, bool prefetch, int32_t* sums) {
    constexpr U8N kLow = U8N{} + 15, kUp = U8N{} + uint8_t(kOffset);
    I32N acc[2][kParts] = {};
    for (int64_t line = 0; line < count; line++, lines += kLine, query += 8) {
      if (prefetch) __builtin_prefetch(lines + kAhead);
      for (int p = 0; p < kParts; p++) {
        U8N both = load<U8N>(lines + p * kNative);
        acc[0][p] = dot4(acc[0][p], codes_of((both & kLow) + kUp), four_codes(query));
        acc[1][p] = dot4(acc[1][p], codes_of((both >> 4) + kUp), four_codes(query + 4));
      }
    }
    for (int p = 0; p < kParts; p++) store(sums + p * kF32, load<I32N>(sums + p * kF32) + acc[0][p] + acc[1][p]);
  }
};

struct Bytes : Tiles<Bytes> {
  static constexpr int32_t kMultiply = 1;
  StatFactors factors;
  Bytes(const CodePlane& p, const CodeQuery& q) : Tiles(p, q), factors(p) {}

  static int64_t width(const CodePlane& p, int64_t level) { return level_width(p.bounds, level); }

  static void dots(const uint8_t* lines, int64_t count, const int8_t* query, int32_t sum, bool prefetch,
                   int32_t* sums) {
    tile_dots(lines, count, query, kOffset * sum, prefetch, sums);
  }
};

// What overflows, and NaN, still has a value: no row is lost.
inline F32N estimate(I32N t, F32N f, F32N g, bool lifted, float a) {
  F32N value = to_float(t) * f;
  if (lifted) value = value + g * splat(a);
  return min(max(value, splat(-3e38f)), splat(3e38f));
}

template <class Code>
int64_t scan_codes(const CodePlane& p, const CodeQuery& q, float threshold, int64_t first, int64_t last, int64_t stride,
                   const Shortlist& out) {
  Code code(p, q);
  code.prepare(p, q);
  bool lifted = code.factors.lifted;
  int64_t block = first, count = *out.count;
  for (; block < last && count <= out.room - kBlock; block += stride) {
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
    if (last - block < kBlock) found &= ~uint64_t(0) >> (kBlock - (last - block));
    for (; found; found &= found - 1, count++) {
      int64_t i = __builtin_ctzll(found);
      out.rows[count] = int32_t(block + i);
      out.sums[count] = sums[i];
      out.values[count] = values[i];
    }
  }
  *out.count = count;
  return block < last ? block : last;
}

template <class Code>
void list_codes(const CodePlane& p, const CodeQuery& q, int64_t begin, int64_t n, const Shortlist& list) {
  Code code(p, q);
  bool lifted = code.factors.lifted;
  for (int64_t c = 0; c < n; c++) {
    if (c + kRowsAhead < n) code.prefetch(p, begin, list.rows[c + kRowsAhead]);
    int64_t row = list.rows[c];
    list.sums[c] += code.sum_one(p, q, begin, row);
    float f, g;
    code.factors.one(row, f, g);
    I32N t = I32N{} + (Code::kMultiply * list.sums[c] - int32_t(q.shift));
    list.values[c] = estimate(t, splat(f), splat(g), lifted, q.a)[0];
  }
}

}  // namespace
}  // namespace nestvec
