// Estimated scores from coarse codes, and the best of them; specification: python/nestvec/kernels/estimate.py.
// A scan of signs is bound by 3 instructions per digit of the query, word and 8 rows (AVX-512) or by reading the plane;
// a list by cache misses, which are asked for 8 rows ahead.
#pragma once
#include "bits.h"
#include "bounds.h"
#include "convert.h"
#include "dots.h"

namespace nestvec {
namespace {

constexpr int kMaxDigits = 8;
constexpr int64_t kRowsAhead = 24;

inline int32_t weight_of(int64_t digit, int64_t digits) { return digit == digits - 1 ? -(1 << digit) : 1 << digit; }

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

template <int kDigits>
inline void sum_digits(const CodePlane& p, const CodeQuery& q, int64_t block, int32_t* sums) {
  constexpr int kSome = kNative == 16 ? 2 : 4;  // vectors: their sums fill the registers
  for (int64_t row = 0; row < kBlock; row += kSome * kF64) {
    U64N counts[kDigits][kSome];
    for (auto& some : counts)
      for (U64N& count : some) count = U64N{};
    const uint64_t* codes = static_cast<const uint64_t*>(q.codes);
    for (int64_t level = 0; level < p.levels; level++) {
      int64_t wide = word_width(p.bounds, level);
      const uint64_t* line = static_cast<const uint64_t*>(p.codes) + p.starts[level] + block * wide + row;
      for (int64_t word = 0; word < wide; word++, line += kBlock, codes++) {
        for (int i = 0; i < kSome * kF64; i += 8) __builtin_prefetch(line + i + kWordsAhead);
        for (int i = 0; i < kSome; i++) {
          U64N rows = load<U64N>(line + i * kF64);
          for (int digit = 0; digit < kDigits; digit++)
            counts[digit][i] += lane_sums(some_ones(rows & codes[digit * q.width]));
        }
      }
    }
    for (int i = 0; i < kSome; i++) {
      U64N sum = -counts[kDigits - 1][i];
      for (int digit = kDigits - 2; digit >= 0; digit--) sum = sum + sum + counts[digit][i];
      store(sums + row + i * kF64, __builtin_convertvector(sum, I32Half));
    }
  }
}

// A query's codes of up to 5 digits as sums over four dims for each value of four bits: 9 instructions per 8 rows and
// word where digits need 15.
struct SignTables {
#if defined(__AVX512VBMI__)
  static constexpr int64_t kMostWords = 64;
  alignas(64) uint8_t tables[kMostWords][4][64];  // low and high halves of bytes 0-3 and of bytes 4-7
  int64_t words = 0;
  bool usable = false;

  void prepare(const CodePlane& p, const CodeQuery& q) {
    for (int64_t level = 0; level < p.levels; level++) words += word_width(p.bounds, level);
    usable = q.digits <= 5 && words <= kMostWords;
    for (int64_t word = 0; usable && word < words; word++) fill(q, word);
  }

  // Entries are lifted by 64: codes are -16 to 15, so that two entries fit a byte.
  void fill(const CodeQuery& q, int64_t word) {
    int8_t codes[64];  // of bit 0, the last dim of the word, to bit 63
    const uint64_t* digits = static_cast<const uint64_t*>(q.codes) + word;
    for (int64_t bit = 0; bit < 64; bit++) {
      int code = 0;
      for (int64_t digit = 0; digit < q.digits; digit++)
        code += int(digits[digit * q.width] >> bit & 1) * weight_of(digit, q.digits);
      codes[bit] = int8_t(code);
    }
    for (int table = 0; table < 4; table++)
      for (int byte = 0; byte < 4; byte++) {
        const int8_t* four = codes + (table / 2 * 4 + byte) * 8 + table % 2 * 4;
        uint8_t* entries = tables[word][table] + byte * 16;
        entries[0] = 64;
        for (int value = 1; value < 16; value++)
          entries[value] = uint8_t(entries[value & (value - 1)] + four[__builtin_ctz(value)]);
      }
  }

  void sum(const CodePlane& p, int64_t block, int32_t* sums) const {
    typedef uint16_t U16 __attribute__((vector_size(64)));
    const __m512i low = _mm512_set1_epi8(15), place = _mm512_set1_epi32(0x30201000), ones = _mm512_set1_epi8(1);
    constexpr __mmask64 kAll = ~__mmask64(0), kUpper = 0xF0F0F0F0F0F0F0F0;
    __m512i totals[8];
    for (__m512i& total : totals) total = _mm512_set1_epi32(int(-512 * words));
    const uint8_t (*table)[4][64] = tables;
    for (int64_t level = 0; level < p.levels; level++) {
      int64_t wide = word_width(p.bounds, level);
      const uint64_t* line = static_cast<const uint64_t*>(p.codes) + p.starts[level] + block * wide;
      for (int64_t word = 0; word < wide; word++, line += kBlock, table++) {
        __m512i entries[4];
        for (int i = 0; i < 4; i++) entries[i] = _mm512_load_si512((*table)[i]);
        for (int i = 0; i < 8; i++) {
          __builtin_prefetch(line + i * 8 + kWordsAhead);
          __m512i rows = _mm512_loadu_si512(line + i * 8), high = (__m512i)((U16)rows >> 4);
          rows = _mm512_ternarylogic_epi64(rows, low, place, 0xEA);  // rows & low | place
          high = _mm512_ternarylogic_epi64(high, low, place, 0xEA);
          __m512i a = _mm512_maskz_permutexvar_epi8(kAll, rows, entries[0]);
          __m512i b = _mm512_maskz_permutexvar_epi8(kAll, high, entries[1]);
          a = _mm512_mask_permutexvar_epi8(a, kUpper, rows, entries[2]);
          b = _mm512_mask_permutexvar_epi8(b, kUpper, high, entries[3]);
          totals[i] = _mm512_dpbusd_epi32(totals[i], _mm512_add_epi8(a, b), ones);
        }
      }
    }
    for (int i = 0; i < 8; i++) {
      U64N both = (U64N)totals[i];
      store(sums + i * 8, __builtin_convertvector(both + (both >> 32), I32Half));
    }
  }
#else
  static constexpr bool usable = false;
  void prepare(const CodePlane&, const CodeQuery&) {}
  void sum(const CodePlane&, int64_t, int32_t*) const {}
#endif
};

struct Signs {
  static constexpr int32_t kMultiply = 2;
  HalfFactors factors;
  SignTables tables;
  Signs(const CodePlane& p, const CodeQuery&) : factors(p) {}
  void prepare(const CodePlane& p, const CodeQuery& q) { tables.prepare(p, q); }

  void sum(const CodePlane& p, const CodeQuery& q, int64_t block, int32_t* sums) const {
    if (tables.usable) return tables.sum(p, block, sums);
    switch (q.digits) {
      case 4:
        return sum_digits<4>(p, q, block, sums);
      case 5:
        return sum_digits<5>(p, q, block, sums);
      case 6:
        return sum_digits<6>(p, q, block, sums);
      default:
        return sum_digits<kMaxDigits>(p, q, block, sums);
    }
  }

  static int32_t sum_one(const CodePlane& p, const CodeQuery& q, int64_t begin, int64_t row) {
    const uint64_t* codes = static_cast<const uint64_t*>(q.codes);
    int32_t sum = 0;
    for (int64_t level = 0; level < p.levels; level++) {
      int64_t wide = word_width(p.bounds, level);
      const uint64_t* at = word_of(p, level, row);
      for (int64_t word = 0; word < wide && level >= begin; word++)
        for (int64_t digit = 0; digit < q.digits; digit++)
          sum += weight_of(digit, q.digits) * popcount(at[word * kBlock] & codes[digit * q.width + word]);
      codes += wide;
    }
    return sum;
  }

  void prefetch(const CodePlane& p, int64_t begin, int64_t row) const {
    factors.prefetch(row);
    for (int64_t level = begin; level < p.levels; level++)
      for (int64_t word = 0; word < word_width(p.bounds, level); word++)
        __builtin_prefetch(word_of(p, level, row) + word * kBlock);
  }

  static const uint64_t* word_of(const CodePlane& p, int64_t level, int64_t row) {
    return static_cast<const uint64_t*>(p.codes) + p.starts[level] +
           row / kBlock * kBlock * word_width(p.bounds, level) + row % kBlock;
  }
};

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
int64_t scan_codes(const CodePlane& p, const CodeQuery& q, float threshold, int64_t first, int64_t last,
                   const Shortlist& out) {
  Code code(p, q);
  code.prepare(p, q);
  bool lifted = code.factors.lifted;
  int64_t block = first, count = *out.count;
  for (; block < last && count <= out.room - kBlock; block += kBlock) {
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

// Order of floats as order of integers, the two zeros alike.
inline uint32_t order_of(float value) {
  uint32_t bits = bits_of(value + 0.0f);
  return bits >> 31 ? ~bits : bits | 0x80000000;
}

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
  float low = values[0], high = values[0];
  for (int64_t i = 1; i < n; i++) {
    low = values[i] < low ? values[i] : low;
    high = values[i] > high ? values[i] : high;
  }
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

void keep_best(const Shortlist& list, int64_t keep) {
  int64_t count = *list.count, kept = 0, ties = keep;
  if (count <= keep) return;
  uint32_t least = kth_largest(list.values, count, keep);
  for (int64_t c = 0; c < count; c++) ties -= order_of(list.values[c]) > least;
  for (int64_t c = 0; c < count; c++) {
    uint32_t order = order_of(list.values[c]);
    if (order < least || (order == least && ties-- <= 0)) continue;
    list.rows[kept] = list.rows[c];
    list.sums[kept] = list.sums[c];
    list.values[kept++] = list.values[c];
  }
  *list.count = kept;
}

}  // namespace
}  // namespace nestvec
