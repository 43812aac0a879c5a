// Binary codes: the nearest of a plane of words, as python/nestvec/kernels/bits.py lays it out.
#pragma once
#include "best.h"
#include "blocks.h"

namespace nestvec::cuda {

constexpr int XOR = 0, AND = 1;  // what is counted: bits that differ; AND ranks by bits that are one in both

// A word of all rows: the 64 rows of block b have it side by side, from `begin + b * step` on. It holds the bits of a
// code from `bit` on, and none from `end` on, where a level ends.
struct Word {
  int64_t begin, step;
  int32_t bit, end;

  // Those of its bits that are among the first `bits` ones; there is at least one.
  __host__ __device__ uint64_t mask(int bits) const { return leading((end < bits ? end : bits) - bit); }
  static __host__ __device__ uint64_t leading(int count) {
    return count >= 64 ? ~uint64_t(0) : count > 0 ? ~uint64_t(0) << (64 - count) : 0;
  }
};

struct BitPlane {
  uint64_t* words;
  const Word* table;  // (count,)
  int64_t count, capacity;
};

struct BitQueries {
  const uint64_t* words;  // (nq, plane.count), of whole codes
  int64_t nq, width;      // of them, those that hold the first `bits` bits
  int32_t bits, what;
};

// Lists of the nearest: values are distances, negated, and a histogram says how many rows of each were appended.
struct Near {
  Lists lists;
  int32_t* histogram;    // (nq, bins): [bins - 1 - distance]
  int32_t* ends;         // (nq,) a row at the limit is of use if its rank is less; valid once there is a limit
  const int32_t* ranks;  // (rows,) their order by id; null: ids ascend
  int64_t bins;
};

// Appends rows that are at least as near as the limit, which is the threshold of the list.
void scan_bits(const BitPlane&, const BitQueries&, const Blocks&, const RowSets&, const Near&, Stream);
// Limits such that k rows were found within; drops what is beyond if `all`, or if a list has many such rows.
void narrow_lists(const Near&, int64_t nq, int64_t k, bool all, Stream);
// The k best of each list, of equally near rows those of smaller rank.
void keep_nearest(const Lists&, const int32_t* ranks, int64_t nq, int64_t k, Stream);
// Adds bits [begin, bits) to the distances of listed rows, or makes these the distances where `begin` is 0.
void list_bits(const BitPlane&, const BitQueries&, int64_t begin, const Lists&, Stream);
// The `keep` nearest for queries whose lists lost rows, by distance and then row.
void list_lost(const BitPlane&, const BitQueries&, int64_t rows, int64_t keep, const RowSets&, const Lists&, Stream);
// The k nearest of all rows, for queries that `brute` names; partial: (nq, shares, k).
void top_k_of_bits(const BitPlane&, const BitQueries&, const Brute&, const Best& partial, const Best&, Stream);
// Distances and ids (nq, k) of results (nq, best.k), k no less, as the CPU returns them; none for `bad` queries.
void as_distances(const Best&, int64_t nq, int64_t k, const int32_t* bad, int32_t* distances, int64_t* ids, Stream);

// Signs of rows (n, d) relative to (d,) thresholds, as packed codes.
void pack_signs(const float* x, int64_t n, int64_t d, const float* thresholds, uint8_t* codes, Stream);
// Packed codes (n, stride) to words: rows `first` and those behind of a plane, or queries.
void pack_codes(const uint8_t* codes, int64_t n, int64_t stride, const BitPlane&, int64_t first, Stream);
void pack_query_codes(const uint8_t* codes, int64_t n, int64_t stride, const BitPlane&, uint64_t* words, Stream);

}  // namespace nestvec::cuda
