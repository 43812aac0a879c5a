// Binary codes: sign bits, planes of words, counts and top-k by counting; specification: python/nestvec/kernels/bits.py.
// One query is bound by reading the plane; many by counting: 3 instructions per 8 rows and word on AVX-512. Blocks of 64
// rows stay in L1 while all queries pass.
#pragma once
#include "../kernels.h"
#include "../simd.h"

namespace nestvec {
namespace {

enum What { kXor, kAnd, kOr };
constexpr int64_t kWordsAhead = 256;  // words that prefetching is ahead

inline uint64_t reversed(uint64_t x) {
  x = (x >> 1 & 0x5555555555555555) | (x & 0x5555555555555555) << 1;
  x = (x >> 2 & 0x3333333333333333) | (x & 0x3333333333333333) << 2;
  x = (x >> 4 & 0x0F0F0F0F0F0F0F0F) | (x & 0x0F0F0F0F0F0F0F0F) << 4;
  return __builtin_bswap64(x);
}

// The first `count` bits of a word: all from 64 on.
inline uint64_t word_mask(int64_t count) { return ~uint64_t(0) << (count < 64 ? 64 - count : 0); }

inline int64_t word_width(const int64_t* bounds, int64_t level) {
  return (bounds[level] - (level ? bounds[level - 1] : 0) + 63) / 64;
}

inline uint32_t some_above(const float* x, const float* least) {
  return ~at_least(load<F32N>(least), load<F32N>(x)) & ((uint64_t(1) << kF32) - 1);
}
inline uint32_t some_above(const double* x, const double* least) { return above(load<F64N>(x), load<F64N>(least)); }

// Bit 63 - j says whether x[j] > thresholds[j], for up to 64 values.
template <class T>
inline uint64_t word_above(const T* x, const T* thresholds, int64_t n) {
  constexpr int kLanes = kNative / int(sizeof(T));
  uint64_t bits = 0;
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) bits |= uint64_t(some_above(x + j, thresholds + j)) << j;
  for (; j < n; j++) bits |= uint64_t(x[j] > thresholds[j]) << j;
  return reversed(bits);
}

template <class T>
void sign_bits(const T* x, int64_t n, int64_t d, const T* thresholds, uint8_t* codes) {
  for (int64_t i = 0; i < n; i++, x += d)
    for (int64_t j = 0; j < d; j += 64) {
      int64_t left = d - j < 64 ? d - j : 64, bytes = (left + 7) / 8;
      uint64_t word = __builtin_bswap64(word_above(x + j, thresholds + j, left));
      memcpy(codes, &word, bytes);
      codes += bytes;
    }
}

// 64 bits of a code of `width` bytes from `bit` on, zero behind its end.
inline uint64_t word_at(const uint8_t* code, int64_t width, int64_t bit) {
  uint8_t bytes[9] = {};
  int64_t byte = bit / 8, left = width - byte < 9 ? width - byte : 9;
  if (left > 0) memcpy(bytes, code + byte, left);
  uint64_t word;
  memcpy(&word, bytes, 8);
  word = __builtin_bswap64(word);
  return bit % 8 ? word << bit % 8 | bytes[8] >> (8 - bit % 8) : word;
}

void pack_words(const uint8_t* codes, int64_t n, int64_t width, const int64_t* bounds, int64_t levels,
                const int64_t* starts, int64_t first, uint64_t* words) {
  for (int64_t at = first; at < first + n; at++, codes += width)
    for (int64_t level = 0; level < levels; level++) {
      int64_t wide = word_width(bounds, level), bit = level ? bounds[level - 1] : 0;
      uint64_t* to = words + starts[level] + at / kBlock * kBlock * wide + at % kBlock;
      for (; bit < bounds[level]; bit += 64, to += kBlock) *to = word_at(codes, width, bit) & word_mask(bounds[level] - bit);
    }
}

inline U64N combined(U64N row, uint64_t query, int what) {
  return what == kXor ? row ^ query : what == kAnd ? row & query : row | query;
}

// Counts of a block's rows into out[64], or false, leaving them be, where all rows are further than `limit` by a prefix.
template <int kWhat>
bool count_block(const Words& p, const BitQueries& q, int64_t query, int64_t block, int64_t limit, int32_t* out) {
  constexpr int kGroup = kNative == 64 ? 8 : 4;  // vectors: independent sums, one pass over the block with AVX-512
  const uint64_t* codes = q.words + query * q.width;
  for (int64_t row = 0; row < kBlock; row += kGroup * kF64) {
    U64N counts[kGroup] = {};
    const uint64_t* word = codes;
    int64_t bit = 0;
    for (int64_t level = 0; bit < q.bits; level++) {
      int64_t wide = word_width(p.bounds, level), end = p.bounds[level];
      const uint64_t* line = p.words + p.starts[level] + block * wide + row;
      for (; bit < end && bit < q.bits; bit += 64, line += kBlock, word++) {
        uint64_t mask = word_mask((end < q.bits ? end : q.bits) - bit);
        if (query == 0)
          for (int i = 0; i < kGroup * kF64; i += 8) __builtin_prefetch(line + i + kWordsAhead);
        for (int i = 0; i < kGroup; i++) {
          U64N both = combined(load<U64N>(line + i * kF64), *word, kWhat);
          counts[i] += popcount(kWhat == kAnd ? both : both & mask);
        }
      }
      bit = end;
      // random codes differ in half of their bits: below that no prefix can be too far for all rows
      if (kWhat != kXor || kGroup * kF64 < kBlock || end >= q.bits || limit * 9 >= bit * 4) continue;
      U64N near = counts[0];
      for (int i = 1; i < kGroup; i++) near = near < counts[i] ? near : counts[i];
      bool reaches = false;
      for (int i = 0; i < kF64; i++) reaches |= int64_t(near[i]) <= limit;
      if (!reaches) return false;
    }
    for (int i = 0; i < kGroup; i++) {
      typedef int32_t Narrow __attribute__((vector_size(kNative / 2)));
      store(out + row + i * kF64, __builtin_convertvector(counts[i], Narrow));
    }
  }
  return true;
}

void count_bits(const Words& p, const BitQueries& q, int64_t first, int64_t last, int32_t* out) {
  int32_t counts[kBlock];
  for (int64_t block = first; block < last; block += kBlock)
    for (int64_t i = 0; i < q.n; i++) {
      if (q.what == kXor)
        count_block<kXor>(p, q, i, block, q.bits, counts);
      else if (q.what == kAnd)
        count_block<kAnd>(p, q, i, block, q.bits, counts);
      else
        count_block<kOr>(p, q, i, block, q.bits, counts);
      int64_t size = last - block < kBlock ? last - block : kBlock;
      memcpy(out + i * (last - first) + block - first, counts, size * sizeof(int32_t));
    }
}

// The rows of a block that are near enough at the time: one bit each.
inline uint64_t within(const int32_t* distances, int32_t limit, int64_t size) {
  uint64_t found = 0;
  for (int64_t i = 0; i < kBlock; i += kF32)
    found |= uint64_t(at_least(splat(float(limit)), to_float(load<I32N>(distances + i)))) << i;
  return found & ~uint64_t(0) >> (kBlock - size);
}

inline void append_near(const Nearest& near, int64_t query, int64_t block, const int32_t* distances, int64_t size,
                        int64_t bits) {
  int32_t& limit = near.limits[query];
  int64_t& total = near.totals[query];
  int32_t* histogram = near.histograms + query * (bits + 1);
  for (uint64_t found = within(distances, limit - (near.in_order && total >= near.k), size); found; found &= found - 1) {
    int64_t i = __builtin_ctzll(found);
    int32_t distance = distances[i];
    if (distance > limit || (near.in_order && distance == limit && total >= near.k)) continue;
    int64_t at = query * near.room + near.counts[query]++;
    near.rows[at] = int32_t(block + i);
    near.distances[at] = distance;
    histogram[distance]++;
    total++;
    while (total - histogram[limit] >= near.k) total -= histogram[limit--];
  }
}

int64_t scan_bits(const Words& p, const BitQueries& q, int64_t first, int64_t last, const Nearest& near) {
  int64_t fullest = 0;
  for (int64_t i = 0; i < q.n; i++) fullest = near.counts[i] > fullest ? near.counts[i] : fullest;
  alignas(64) int32_t distances[kBlock];
  for (int64_t block = first; block < last; block += kBlock) {
    if (fullest > near.room - kBlock) return block;
    int64_t size = last - block < kBlock ? last - block : kBlock;
    for (int64_t i = 0; i < q.n; i++) {
      if (q.what == kXor) {
        if (!count_block<kXor>(p, q, i, block, near.limits[i], distances)) continue;
      } else {
        count_block<kAnd>(p, q, i, block, q.bits, distances);
        for (int32_t& distance : distances) distance = int32_t(q.bits) - distance;
      }
      append_near(near, i, block, distances, size, q.bits);
      fullest = near.counts[i] > fullest ? near.counts[i] : fullest;
    }
  }
  return last;
}

void order_bits(const Nearest& near, int64_t n, int64_t* places, int32_t* best_rows, int32_t* best) {
  for (int64_t i = 0; i < n; i++, best_rows += near.k, best += near.k) {
    const int32_t *rows = near.rows + i * near.room, *distances = near.distances + i * near.room;
    int32_t limit = near.limits[i];
    for (int64_t j = 0; j < near.k; j++) best_rows[j] = -1;
    memset(places, 0, (limit + 2) * sizeof *places);
    for (int64_t c = 0; c < near.counts[i]; c++)
      if (distances[c] <= limit) places[distances[c] + 1]++;
    for (int64_t j = 0; j <= limit; j++) places[j + 1] += places[j];
    for (int64_t c = 0; c < near.counts[i]; c++) {
      if (distances[c] > limit || places[distances[c]] >= near.k) continue;
      int64_t place = places[distances[c]]++;
      best_rows[place] = rows[c];
      best[place] = distances[c];
    }
  }
}

}  // namespace
}  // namespace nestvec
