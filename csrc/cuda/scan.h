// Scans of int8 and i4 planes by tensor cores: which rows reach the threshold of their query.
#pragma once
#include "lists.h"

namespace nestvec::cuda {

// Codes of rows as python/nestvec/kernels/pack.py and codes.py lay them out.
struct Codes {
  const uint8_t* codes;
  const int64_t *starts, *bounds;  // (stored,)
  int64_t stored, capacity;
  const float* stats;       // of pack_rows: (3 stored, capacity)
  const uint16_t* factors;  // of pack_nibbles: (3, stored, capacity); null for int8
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
};

struct Range {
  int64_t first, last;  // rows; first is a multiple of 64
};

// Appends rows whose certified upper bound over `levels` levels reaches the threshold: kernels/scan.py.
void scan_certified(const Codes&, const CodedQueries&, int64_t levels, int metric, const Range&, const RowSets&,
                    const Lists&, Stream);
// Appends rows whose estimate does: scan_i8 and scan_i4 (where there are factors) of kernels/estimate.py.
void scan_estimates(const Codes&, const CodedQueries&, int64_t levels, int metric, const Range&, const RowSets&,
                    const Lists&, Stream);
// Estimates the listed rows anew: list_i8 and list_i4.
void list_estimates(const Codes&, const CodedQueries&, int64_t levels, int metric, const Lists&, Stream);

}  // namespace nestvec::cuda
