// Binary codes: sign bits, planes of words, counts and top-k by counting; specification:
// python/nestvec/kernels/bits.py. One query is bound by reading the plane; many by counting: 3 instructions per 8 rows
// and word on AVX-512. Blocks of 64 rows stay in L1 while all queries pass.
#pragma once
#include "allowed.h"

namespace nestvec {
namespace {

enum What { kXor, kAnd, kOr };
constexpr int64_t kWordsAhead = 256;            // words that prefetching is ahead
constexpr int64_t kMaxWords = 65536 / 64 + 32;  // bits, and levels that end within a word

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
      for (; bit < bounds[level]; bit += 64, to += kBlock)
        *to = word_at(codes, width, bit) & word_mask(bounds[level] - bit);
    }
}

// Where each word of the first `bits` bits lies, of block 0, and how far it is to the next block.
struct Lines {
  const uint64_t* at[kMaxWords];
  int64_t step[kMaxWords];
  int64_t words = 0, first_level = 0;  // words, and those of the first level
  uint64_t tail = 0;                   // mask of the last word
  bool masked = false;                 // it cuts off bits that rows have

  Lines(const Words& p, int64_t bits) {
    int64_t begin = 0;
    for (int64_t level = 0; begin < bits; begin = p.bounds[level++]) {
      int64_t end = p.bounds[level] < bits ? p.bounds[level] : bits, wide = word_width(p.bounds, level);
      for (int64_t word = 0; word < (end - begin + 63) / 64; word++, words++) {
        at[words] = p.words + p.starts[level] + word * kBlock;
        step[words] = wide * kBlock;
      }
      if (level == 0) first_level = words;
      masked = end < p.bounds[level] && (end - begin) % 64;
      tail = masked ? ~uint64_t(0) << (64 - (end - begin) % 64) : ~uint64_t(0);
    }
  }
};

constexpr int kGroup = kNative == 64 ? 8 : 4;  // vectors of rows: independent sums
constexpr int64_t kGroupRows = kGroup * kF64;

// How a vector of rows meets a word of a query; the result is counted.
template <int kWhat>
struct Plain {
  static constexpr bool kXors = kWhat == kXor;
  static U64N ones(const uint64_t* line, uint64_t query, uint64_t mask) {
    U64N row = load<U64N>(line);
    return some_ones((kWhat == kAnd ? row & query : kWhat == kXor ? row ^ query : row | query) & mask);
  }
};

// start + counts of a group of rows, in 64-bit lanes; kWords 0: as many words as `words` says.
template <class Rows, int kWords>
inline void count_rows(const Lines& lines, const uint64_t* query, int64_t words, int64_t block, int64_t row,
                       bool prefetch, int64_t start, U64N* counts) {
  U64N bytes[kGroup];  // partial sums, of up to 31 words
  for (int i = 0; i < kGroup; i++) counts[i] = bytes[i] = U64N{} + (kWholeLanes ? start : 0);
  int64_t count = kWords ? kWords : words, pending = 0;
  for (int64_t word = 0; word < count; word++) {
    const uint64_t* line = lines.at[word] + block / kBlock * lines.step[word] + row;
    uint64_t mask = !kWords && lines.masked && word == lines.words - 1 ? lines.tail : ~uint64_t(0);
    for (int64_t i = 0; prefetch && i < kGroupRows; i += 8) __builtin_prefetch(line + i + kWordsAhead);
    for (int i = 0; i < kGroup; i++) bytes[i] += Rows::ones(line + i * kF64, query[word], kWords ? ~uint64_t(0) : mask);
    if (kWholeLanes || kWords || ++pending < kMostOnes) continue;
    for (int i = 0; i < kGroup; i++) {
      counts[i] += lane_sums(bytes[i]);
      bytes[i] = U64N{};
    }
    pending = 0;
  }
  for (int i = 0; i < kGroup; i++) counts[i] = kWholeLanes ? bytes[i] : counts[i] + lane_sums(bytes[i]) + start;
}

inline void store_counts(const U64N* counts, int32_t* out) {
  for (int i = 0; i < kGroup; i++) store(out + i * kF64, __builtin_convertvector(counts[i], I32Half));
}

template <int kWhat>
void count_block(const Lines& lines, const uint64_t* query, int64_t block, int32_t* out) {
  for (int64_t row = 0; row < kBlock; row += kGroupRows) {
    U64N counts[kGroup];
    count_rows<Plain<kWhat>, 0>(lines, query, lines.words, block, row, true, 0, counts);
    store_counts(counts, out + row);
  }
}

void count_bits(const Words& p, const BitQueries& q, int64_t first, int64_t last, int32_t* out) {
  Lines lines(p, q.bits);
  int32_t counts[kBlock];
  for (int64_t block = first; block < last; block += kBlock)
    for (int64_t i = 0; i < q.n; i++) {
      auto* count = q.what == kXor ? count_block<kXor> : q.what == kAnd ? count_block<kAnd> : count_block<kOr>;
      count(lines, q.words + i * q.width, block, counts);
      int64_t size = last - block < kBlock ? last - block : kBlock;
      memcpy(out + i * (last - first) + block - first, counts, size * sizeof(int32_t));
    }
}

// The rows of a block that are near enough at the time: one bit each.
inline uint64_t within(const int32_t* distances, int32_t limit) {
  uint64_t found = 0;
  for (int64_t i = 0; i < kBlock; i += kF32)
    found |= uint64_t(at_least(splat(float(limit)), to_float(load<I32N>(distances + i)))) << i;
  return found;
}

// No row beyond this is of use: at the limit, only while there are fewer than k rows or smaller ids may come.
inline int32_t reach(const Nearest& near, int64_t query) {
  return near.limits[query] - (near.in_order && near.totals[query] >= near.k);
}

inline void append_near(const Nearest& near, int64_t query, int64_t block, const int32_t* distances, uint64_t rows,
                        int64_t bits) {
  int32_t& limit = near.limits[query];
  int64_t& total = near.totals[query];
  int32_t* histogram = near.histograms + query * (bits + 1);
  for (uint64_t found = within(distances, reach(near, query)) & rows; found; found &= found - 1) {
    int64_t i = __builtin_ctzll(found), at = query * near.room + near.counts[query];
    int32_t distance = distances[i];
    if (distance > reach(near, query)) continue;
    near.rows[at] = int32_t(block + i);
    near.distances[at] = distance;
    near.counts[query]++;
    histogram[distance]++;
    total++;
    while (total - histogram[limit] >= near.k) total -= histogram[limit--];
  }
}

// Distances of a block, or false where all are beyond `limit`; over the words of a prefix they are lower bounds.
template <class Rows, int kWords>
inline bool near_block(const Lines& lines, const uint64_t* query, int64_t words, int64_t bits, int64_t limit,
                       int64_t block, bool prefetch, int32_t* out) {
  uint64_t found = 0;
  for (int64_t row = 0; row < kBlock; row += kGroupRows) {
    U64N counts[kGroup], below = {};
    count_rows<Rows, kWords>(lines, query, words, block, row, prefetch, Rows::kXors ? -(limit + 1) : 0, counts);
    for (int i = 0; i < kGroup; i++) {
      if (!Rows::kXors) counts[i] = uint64_t(bits - limit - 1) - counts[i];
      below |= counts[i];
    }
    if (!any_negative(below)) continue;
    found |= uint64_t(1) << row;
    for (int i = 0; i < kGroup; i++) counts[i] += uint64_t(limit + 1);
    store_counts(counts, out + row);
  }
  for (int64_t row = 0; found && row < kBlock; row += kGroupRows)
    for (int64_t i = row; !(found >> row & 1) && i < row + kGroupRows; i++) out[i] = int32_t(bits) + 1;
  return found;
}

// One query and a run of blocks.
template <class Rows, int kWords>
void scan_run(const Lines& lines, const BitQueries& q, int64_t query, int64_t first, int64_t last, const RowSets& sets,
              const Nearest& near) {
  const uint64_t* code = q.words + query * q.width;
  const uint64_t* allowed = sets.words ? sets.words + query * sets.step : nullptr;
  alignas(64) int32_t distances[kBlock];
  for (int64_t block = first; block < last; block += kBlock) {
    uint64_t rows = allowed_rows(allowed, block, last);
    if (!rows) continue;
    int32_t limit = reach(near, query);
    // random codes differ in half of their bits: only a limit well below that can be passed within the first level
    bool prune = Rows::kXors && lines.first_level < lines.words && limit * 9 < lines.first_level * 256;
    if (prune && !near_block<Rows, 0>(lines, code, lines.first_level, q.bits, limit, block, query == 0, distances))
      continue;
    if (near_block<Rows, kWords>(lines, code, lines.words, q.bits, limit, block, query == 0, distances))
      append_near(near, query, block, distances, rows, q.bits);
  }
}

typedef void ScanRun(const Lines&, const BitQueries&, int64_t, int64_t, int64_t, const RowSets&, const Nearest&);

template <class Rows>
inline ScanRun& scan_run_of(const Lines& lines) {
  if (lines.masked) return scan_run<Rows, 0>;
  switch (lines.words) {
    case 1:
      return scan_run<Rows, 1>;
    case 2:
      return scan_run<Rows, 2>;
    case 4:
      return scan_run<Rows, 4>;
    case 8:
      return scan_run<Rows, 8>;
    default:
      return scan_run<Rows, 0>;
  }
}

constexpr int64_t kRunBytes = 32768;  // rows that stay in L1 while queries pass

int64_t scan_bits(const Words& p, const BitQueries& q, int64_t first, int64_t last, const RowSets& allowed,
                  const Nearest& near) {
  Lines lines(p, q.bits);
  ScanRun& run = q.what == kAnd ? scan_run_of<Plain<kAnd>>(lines) : scan_run_of<Plain<kXor>>(lines);
  int64_t longest = kRunBytes / (lines.words * 8) / kBlock * kBlock;
  longest = q.n == 1 || longest < kBlock ? kBlock : longest > 4 * kBlock ? 4 * kBlock : longest;
  for (int64_t block = first; block < last;) {
    int64_t fullest = 0;
    for (int64_t i = 0; i < q.n; i++) fullest = near.counts[i] > fullest ? near.counts[i] : fullest;
    int64_t room = (near.room - fullest) / kBlock * kBlock, end = block + (room < longest ? room : longest);
    if (room == 0) return block;
    end = end < last ? end : last;
    for (int64_t i = 0; i < q.n; i++) run(lines, q, i, block, end, allowed, near);
    block = end;
  }
  return last;
}

constexpr int64_t kListedAhead = 16;  // rows that prefetching is ahead

// The query at q.words alone; its words lie as those of the first q.bits bits do.
void list_bits(const Words& p, const BitQueries& q, int64_t begin, const int32_t* rows, int64_t n, int32_t* distances) {
  struct {
    const uint64_t* at;
    int64_t step;
    uint64_t query, mask;
  } read[kMaxWords];
  int64_t count = 0, word = 0;
  for (int64_t level = 0, below = 0; below < q.bits; below = p.bounds[level++]) {
    int64_t width = word_width(p.bounds, level), end = p.bounds[level] < q.bits ? p.bounds[level] : q.bits;
    for (int64_t bit = below; bit < end; bit += 64, word++)
      if ((bit + 64 < end ? bit + 64 : end) > begin)
        read[count++] = {p.words + p.starts[level] + (bit - below) / 64 * kBlock, width, q.words[word],
                         word_mask(end - bit) & (bit < begin ? ~word_mask(begin - bit) : ~uint64_t(0))};
  }
  auto place = [](int32_t row, int64_t step) { return row / kBlock * kBlock * step + row % kBlock; };
  for (int64_t i = 0; i < n; i++) {
    if (i + kListedAhead < n)
      for (int64_t w = 0; w < count; w++) __builtin_prefetch(read[w].at + place(rows[i + kListedAhead], read[w].step));
    int32_t ones = 0;
    for (int64_t w = 0; w < count; w++)
      ones += popcount((read[w].at[place(rows[i], read[w].step)] ^ read[w].query) & read[w].mask);
    distances[i] += ones;
  }
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
