// Scans of planes of codes: which rows reach the threshold of their query.
#pragma once
#include "blocks.h"
#include "lists.h"

namespace nestvec::cuda {

constexpr int B1 = 0, I4 = 1, I8 = 2;
constexpr int DIGITS = 5;  // of a query's codes in two's complement, where it meets signs

// Codes of rows as python/nestvec/kernels/{bits,pack,codes}.py lay them out.
struct Codes {
  int code;
  const uint8_t* codes;
  const int64_t *starts, *bounds;  // (stored,); starts in bytes
  int64_t stored, capacity;
  const float* stats;       // of pack_rows: (3 stored, capacity); null for others than int8
  const uint16_t* factors;  // of pack_signs and pack_nibbles: (3, stored, capacity); null for int8
};

// Codes of queries, each level filled up with zeros to a multiple of 64.
struct CodedQueries {
  const int8_t* codes;  // (>= nq, stride)
  int64_t nq, stride;
  // certified scans: pack_queries
  const int32_t* sums;  // (levels, padded)
  const float* stats;   // (3 levels + 1, padded)
  int64_t padded;
  // estimates: coding.encode
  const int64_t* shifts;
  const float* lifts;
  const uint64_t* digits;  // for signs: (nq, DIGITS, stride / 64)
};

// Appends rows whose certified upper bound over `levels` levels reaches the threshold: kernels/scan.py.
void scan_certified(const Codes&, const CodedQueries&, int64_t levels, int metric, const Blocks&, const RowSets&,
                    const Lists&, Stream);
// Appends rows whose estimate does: scan_b1, scan_i4 and scan_i8 of kernels/estimate.py.
void scan_estimates(const Codes&, const CodedQueries&, int64_t levels, int metric, const Blocks&, const RowSets&,
                    const Lists&, Stream);
// Estimates the listed rows anew: list_b1, list_i4 and list_i8.
void list_estimates(const Codes&, const CodedQueries&, int64_t levels, int metric, const Lists&, Stream);
// Lists that lost rows anew: at least the `keep` best of all `rows` rows. Room must be for 256 more than are kept.
void scan_lost(const Codes&, const CodedQueries&, int64_t levels, int metric, int64_t rows, int64_t keep,
               const RowSets&, const Lists&, Stream);

}  // namespace nestvec::cuda
