// Integer sums of a query's codes over the signs of 64 rows; specification: `scan_b1` in
// python/nestvec/kernels/estimate.py. Digits cost 3 instructions each per 8 rows and word; with AVX-512 VBMI, tables
// cost 8 for all of them.
#pragma once
#include "bits.h"
#include "factors.h"
#include "units.h"

namespace nestvec {
namespace {

constexpr int kMaxDigits = 8;
constexpr int64_t kDigitsAhead = kWordsAhead / kBlock;  // words of all rows that prefetching is ahead
constexpr int64_t kTablesAhead = 16;                    // into L2: words that are skipped end what hardware foresees
using SignUnits = Units<kMaxWords, kTablesAhead>;

inline int32_t weight_of(int64_t digit, int64_t digits) { return digit == digits - 1 ? -(1 << digit) : 1 << digit; }

template <int kDigits>
inline void sum_digits(const CodePlane& p, const CodeQuery& q, const SignUnits& units, int64_t block, int32_t* sums) {
  constexpr int kSome = kNative == 16 ? 2 : 4;  // vectors: their sums fill the registers
  for (int64_t row = 0; row < kBlock; row += kSome * kF64) {
    U64N counts[kDigits][kSome];
    for (auto& some : counts)
      for (U64N& count : some) count = U64N{};
    const uint64_t* codes = static_cast<const uint64_t*>(q.codes);
    for (int64_t level = 0; level < p.levels; level++) {
      int64_t wide = word_width(p.bounds, level);
      const uint64_t* lines = static_cast<const uint64_t*>(p.codes) + p.starts[level] + block * wide + row;
      for (const uint32_t* word = units[level].begin; word < units[level].end; word++) {
        const uint64_t *line = lines + *word * kBlock, *ahead = lines + word[kDigitsAhead] * kBlock;
        for (int i = 0; i < kSome * kF64; i += 8) __builtin_prefetch(ahead + i);
        for (int i = 0; i < kSome; i++) {
          U64N rows = load<U64N>(line + i * kF64);
          for (int digit = 0; digit < kDigits; digit++)
            counts[digit][i] += lane_sums(some_ones(rows & codes[digit * q.width + *word]));
        }
      }
      codes += wide;
    }
    for (int i = 0; i < kSome; i++) {
      U64N sum = -counts[kDigits - 1][i];
      for (int digit = kDigits - 2; digit >= 0; digit--) sum = sum + sum + counts[digit][i];
      store(sums + row + i * kF64, __builtin_convertvector(sum, I32Half));
    }
  }
}

// A query's codes of up to 5 digits as sums over four dims for each value of four bits: 8 instructions per 8 rows and
// word where digits need 15. Rows in L3 or memory then come slower than they are summed.
struct SignTables {
#if defined(__AVX512VBMI__)
  static constexpr int64_t kMostWords = 256;      // 64 KB
  alignas(64) uint8_t tables[kMostWords][4][64];  // low and high halves of bytes 0-3 and of bytes 4-7
  bool usable = false;

  void prepare(const CodePlane& p, const CodeQuery& q, const SignUnits& units) {
    usable = q.digits <= 5 && units.count <= kMostWords;
    if (!usable) return;
    const uint64_t* codes = static_cast<const uint64_t*>(q.codes);
    uint8_t (*table)[4][64] = tables;
    for (int64_t level = 0; level < p.levels; level++) {
      for (const uint32_t* word = units[level].begin; word < units[level].end; word++) fill(q, codes + *word, *table++);
      codes += word_width(p.bounds, level);
    }
  }

  // Entry v of 16 sums the codes of the bits that v has. Entries are lifted by 64: codes are -16 to 15, so that two
  // entries fit a byte.
  static void fill(const CodeQuery& q, const uint64_t* digits, uint8_t (*to)[64]) {
    const __m512i lanes = _mm512_set_epi64(0x1818181818181818, 0x1818181818181818, 0x1010101010101010,
                                           0x1010101010101010, 0x0808080808080808, 0x0808080808080808, 0, 0);
    constexpr __mmask64 kHas[4] = {0xAAAAAAAAAAAAAAAA, 0xCCCCCCCCCCCCCCCC, 0xF0F0F0F0F0F0F0F0, 0xFF00FF00FF00FF00};
    __m512i codes = _mm512_setzero_si512();  // of bit 0, the last dim of the word, to bit 63
    for (int64_t digit = 0; digit < q.digits; digit++)
      codes = _mm512_mask_add_epi8(codes, digits[digit * q.width], codes,
                                   _mm512_set1_epi8(int8_t(weight_of(digit, q.digits))));
    for (int table = 0; table < 4; table++) {
      __m512i entries = _mm512_set1_epi8(64);
      for (int bit = 0; bit < 4; bit++) {
        __m512i from = _mm512_add_epi8(lanes, _mm512_set1_epi8(int8_t(table / 2 * 32 + table % 2 * 4 + bit)));
        entries =
            _mm512_mask_add_epi8(entries, kHas[bit], entries, _mm512_maskz_permutexvar_epi8(kHas[bit], from, codes));
      }
      _mm512_store_si512(to[table], entries);
    }
  }

  // Two lines of 8 rows become one of their bytes 0-3 and one of bytes 4-7, so that each table is asked for 16 rows at
  // once; rows r and r + 8 then lie side by side.
  void sum(const CodePlane& p, const SignUnits& units, int64_t block, int32_t* sums) const {
    constexpr __mmask16 kOdd = 0xAAAA, kEven = 0x5555, kAll = 0xFFFF;
    __m512i totals[4];
    for (__m512i& total : totals) total = _mm512_set1_epi32(int(-1024 * units.count));
    const uint8_t (*table)[4][64] = tables;
    for (int64_t level = 0; level < p.levels; level++) {
      int64_t wide = word_width(p.bounds, level);
      const uint64_t* lines = static_cast<const uint64_t*>(p.codes) + p.starts[level] + block * wide;
      for (const uint32_t* word = units[level].begin; word < units[level].end; word++, table++) {
        const uint64_t *line = lines + *word * kBlock, *ahead = lines + word[kTablesAhead] * kBlock;
        __m512i entries[4];
        for (int i = 0; i < 4; i++) entries[i] = _mm512_load_si512((*table)[i]);
        for (int i = 0; i < 4; i++) {
          __builtin_prefetch(ahead + i * 16, 0, 2);
          __builtin_prefetch(ahead + i * 16 + 8, 0, 2);
          __m512i some = _mm512_loadu_si512(line + i * 16), others = _mm512_loadu_si512(line + i * 16 + 8);
          __m512i left = _mm512_mask_shuffle_epi32(some, kOdd, others, _MM_PERM_CCAA);
          __m512i right = _mm512_mask_shuffle_epi32(others, kEven, some, _MM_PERM_DDBB);
          totals[i] = add(add(totals[i], left, entries), right, entries + 2);
        }
      }
    }
    const __m512i order = _mm512_set_epi32(15, 13, 11, 9, 7, 5, 3, 1, 14, 12, 10, 8, 6, 4, 2, 0);
    for (int i = 0; i < 4; i++)
      _mm512_storeu_si512(sums + i * 16, _mm512_maskz_permutexvar_epi32(kAll, order, totals[i]));
  }

  // The sums of four bytes a row, by tables for their low and their high halves.
  static __m512i add(__m512i total, __m512i bytes, const __m512i* entries) {
    typedef uint16_t U16 __attribute__((vector_size(64)));
    constexpr __mmask64 kAll = ~__mmask64(0);  // of what has no mask, GCC warns that it reads what is not set
    const __m512i low = _mm512_set1_epi8(15), place = _mm512_set1_epi32(0x30201000);
    __m512i high = (__m512i)((U16)bytes >> 4);
    bytes = _mm512_ternarylogic_epi64(bytes, low, place, 0xEA);  // bytes & low | place
    high = _mm512_ternarylogic_epi64(high, low, place, 0xEA);
    __m512i a = _mm512_maskz_permutexvar_epi8(kAll, bytes, entries[0]);
    __m512i b = _mm512_maskz_permutexvar_epi8(kAll, high, entries[1]);
    return _mm512_dpbusd_epi32(total, _mm512_add_epi8(a, b), _mm512_set1_epi8(1));
  }
#else
  static constexpr bool usable = false;
  void prepare(const CodePlane&, const CodeQuery&, const SignUnits&) {}
  void sum(const CodePlane&, const SignUnits&, int64_t, int32_t*) const {}
#endif
};

struct Signs {
  static constexpr int32_t kMultiply = 2;
  HalfFactors factors;
  SignUnits units;
  SignTables tables;

  Signs(const CodePlane& p, const CodeQuery& q, int64_t begin) : factors(p) {
    const uint64_t* codes = static_cast<const uint64_t*>(q.codes);
    for (int64_t level = 0; level < p.levels; level++) {
      int64_t wide = word_width(p.bounds, level);
      units.add(level < begin ? 0 : wide, [&](int64_t word) {
        uint64_t any = 0;
        for (int64_t digit = 0; digit < q.digits; digit++) any |= codes[digit * q.width + word];
        return any != 0;
      });
      codes += wide;
    }
  }

  void prepare(const CodePlane& p, const CodeQuery& q) { tables.prepare(p, q, units); }

  void sum(const CodePlane& p, const CodeQuery& q, int64_t block, int32_t* sums) const {
    if (tables.usable) return tables.sum(p, units, block, sums);
    switch (q.digits) {
      case 4:
        return sum_digits<4>(p, q, units, block, sums);
      case 5:
        return sum_digits<5>(p, q, units, block, sums);
      case 6:
        return sum_digits<6>(p, q, units, block, sums);
      default:
        return sum_digits<kMaxDigits>(p, q, units, block, sums);
    }
  }

  int32_t sum_one(const CodePlane& p, const CodeQuery& q, int64_t row) const {
    const uint64_t* codes = static_cast<const uint64_t*>(q.codes);
    int32_t sum = 0;
    for (int64_t level = 0; level < p.levels; level++) {
      const uint64_t* at = word_of(p, level, row);
      for (const uint32_t* word = units[level].begin; word < units[level].end; word++)
        for (int64_t digit = 0; digit < q.digits; digit++)
          sum += weight_of(digit, q.digits) * popcount(at[*word * kBlock] & codes[digit * q.width + *word]);
      codes += word_width(p.bounds, level);
    }
    return sum;
  }

  void prefetch(const CodePlane& p, int64_t row) const {
    factors.prefetch(row);
    for (int64_t level = 0; level < p.levels; level++)
      for (const uint32_t* word = units[level].begin; word < units[level].end; word++)
        __builtin_prefetch(word_of(p, level, row) + *word * kBlock);
  }

  static const uint64_t* word_of(const CodePlane& p, int64_t level, int64_t row) {
    return static_cast<const uint64_t*>(p.codes) + p.starts[level] +
           row / kBlock * kBlock * word_width(p.bounds, level) + row % kBlock;
  }
};

}  // namespace
}  // namespace nestvec
