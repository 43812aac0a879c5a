// Integer sums of a query's codes over the signs of 64 rows; specification: `scan_b1` in
// python/nestvec/kernels/estimate.py. Digits cost 3 instructions each per 8 rows and word; with AVX-512 VBMI, tables
// cost 9 for all of them.
#pragma once
#include "bits.h"
#include "factors.h"

namespace nestvec {
namespace {

constexpr int kMaxDigits = 8;

inline int32_t weight_of(int64_t digit, int64_t digits) { return digit == digits - 1 ? -(1 << digit) : 1 << digit; }

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

}  // namespace
}  // namespace nestvec
