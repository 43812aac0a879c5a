// The best of a shortlist, by a few passes over the values, and results in order; specification:
// python/nestvec/kernels/select.py.
#pragma once
#include "../kernels.h"
#include "convert.h"
#include "heap.h"

namespace nestvec {
namespace {

// Order of floats as order of integers, the two zeros alike.
inline uint32_t order_of(float value) {
  uint32_t bits = bits_of(value + 0.0f);
  return bits >> 31 ? ~bits : bits | 0x80000000;
}

inline float value_of(uint32_t order) { return float_of(order >> 31 ? order & 0x7FFFFFFF : ~order); }

// The `keep`-th largest of at least `keep` values, by three passes of counting digits.
inline uint32_t kth_largest_digits(const float* values, int64_t n, int64_t keep) {
  uint32_t prefix = 0;
  for (int shift = 21; shift >= 0; shift -= shift == 21 ? 11 : 10) {
    int32_t counts[2048] = {};
    int bits = shift == 0 ? 10 : 11;
    uint64_t done = uint64_t(prefix) >> (shift + bits);
    for (int64_t i = 0; i < n; i++) {
      uint32_t key = order_of(values[i]);
      if (uint64_t(key) >> (shift + bits) == done) counts[key >> shift & ((1 << bits) - 1)]++;
    }
    int32_t bin = (1 << bits) - 1;
    while (counts[bin] < keep) keep -= counts[bin--];
    prefix |= uint32_t(bin) << shift;
  }
  return prefix;
}

// The same by one pass over even bins, which spread what lies close together; digits decide within a bin.
inline uint32_t kth_largest(const float* values, int64_t n, int64_t keep) {
  constexpr int kBins = 2048, kMost = 1024;
  F32N lows = splat(values[0]), highs = lows;
  int64_t whole = n / kF32 * kF32;
  for (int64_t i = 0; i < whole; i += kF32) {
    lows = min(load<F32N>(values + i), lows);
    highs = max(load<F32N>(values + i), highs);
  }
  float low = values[0], high = values[0];
  auto widen = [&](float least, float most) {
    low = least < low ? least : low;
    high = most > high ? most : high;
  };
  for (int lane = 0; lane < kF32; lane++) widen(lows[lane], highs[lane]);
  for (int64_t i = whole; i < n; i++) widen(values[i], values[i]);
  float scale = (kBins - 1) / (high - low);
  if (!(high - low < 1e38f && scale < 1e38f)) return kth_largest_digits(values, n, keep);
  int32_t counts[kBins] = {};
  for (int64_t i = 0; i < n; i++) counts[int32_t((values[i] - low) * scale)]++;
  int32_t bin = kBins - 1;
  int64_t left = keep;
  while (counts[bin] < left) left -= counts[bin--];
  if (counts[bin] > kMost) return kth_largest_digits(values, n, keep);
  float some[kMost];
  int64_t count = 0;
  for (int64_t i = 0; i < n; i++)
    if (int32_t((values[i] - low) * scale) == bin) some[count++] = values[i];
  return kth_largest_digits(some, count, left);
}

// Leaves what is larger than the `keep`-th largest value, and the first that equal it; returns how many.
inline int64_t cut(const Shortlist& list, int64_t keep) {
  int64_t count = *list.count, kept = 0, ties = keep;
  uint32_t least = kth_largest(list.values, count, keep);
  for (int64_t c = 0; c < count; c++) ties -= order_of(list.values[c]) > least;
  auto leave = [&](int64_t c) {
    if (order_of(list.values[c]) == least && ties-- <= 0) return;
    list.rows[kept] = list.rows[c];
    list.sums[kept] = list.sums[c];
    list.values[kept++] = list.values[c];
  };
  F32N edge = splat(value_of(least));
  int64_t c = 0;  // which ones are left cannot be foreseen, so branches are taken for those alone
  for (; c + kF32 <= count; c += kF32)
    for (uint64_t some = at_least(load<F32N>(list.values + c), edge); some; some &= some - 1)
      leave(c + __builtin_ctzll(some));
  for (; c < count; c++)
    if (order_of(list.values[c]) >= least) leave(c);
  return kept;
}

float keep_best(const Shortlist& list, int64_t keep) {
  if (*list.count > keep) *list.count = cut(list, keep);
  float smallest = __builtin_inff();
  for (int64_t c = 0; c < *list.count; c++) smallest = list.values[c] < smallest ? list.values[c] : smallest;
  return smallest;
}

void order_best(const Best& best, int64_t n, double sign, float* values) {
  for (int64_t i = 0; i < n; i++) {
    double* scores = best.scores + i * best.k;
    int64_t* ids = best.ids + i * best.k;
    for (int64_t hole = best.k / 2 - 1; hole >= 0; hole--) sink(scores, ids, hole, best.k, scores[hole], ids[hole]);
    for (int64_t last = best.k - 1; last > 0; last--) {
      double score = scores[last];
      int64_t id = ids[last];
      scores[last] = scores[0];
      ids[last] = ids[0];
      sink(scores, ids, 0, last, score, id);
    }
    for (int64_t place = 0; place < best.k; place++) *values++ = float(sign * scores[place]);
  }
}

}  // namespace
}  // namespace nestvec
