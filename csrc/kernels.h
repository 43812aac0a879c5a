// The compiled side of the kernel table: one reference per kernel, so that a missing entry does not compile.
// What each kernel computes is written in python/nestvec/kernels/, in files named like the ones in csrc/kernels/.
#pragma once
#include <cstddef>
#include <cstdint>

namespace nestvec {

struct Plane {
  const uint8_t* codes;
  const int64_t* starts;
  const float* stats;   // (3 stored, capacity)
  const float* blocks;  // (2 stored, capacity / 64)
  int64_t stored, capacity;
};

// Which rows may be found, one bit each.
struct Allowed {
  const uint64_t* words;  // null: every row
  int64_t stride;         // words from one query's set to the next one's; 0: one set for all
};

struct QueryBatch {
  const int8_t* codes;  // (padded, stride)
  const int32_t* sums;  // (levels, padded) of the codes of each prefix
  const float* stats;   // (3 levels + 1, padded)
  const float* thresholds;
  const int64_t* bounds;  // (levels,)
  int64_t n, padded, stride, levels;
  int metric;
  Allowed allowed;
};

struct Candidates {
  int32_t* rows;  // (nq, room)
  float* upper;
  int64_t* counts;
  int64_t room;
};

struct Rows {
  const void* data;
  int64_t stride;  // elements between rows
  int64_t n, dims;
  const int64_t* ids;  // null: row r has id base + r
  int64_t base;
};

struct Queries {
  const double* data;
  int64_t n, stride;
  int metric;
};

struct Best {
  double* scores;  // (nq, k) heaps
  int64_t* ids;
  int64_t k;
};

struct Thresholds {
  const double* multiply;
  const double* offset;
  float* values;
};

// Rows that may be found, row r by bit r % 64 of word r / 64; null: all.
struct RowSets {
  const uint64_t* words;
  int64_t step;  // words from one query's set to the next one's; 0: one set for all
};

// Sign bits: words of 64 rows, see python/nestvec/kernels/bits.py.
struct Words {
  const uint64_t* words;
  const int64_t *starts, *bounds;
  int64_t levels;
};

struct BitQueries {
  const uint64_t* words;  // (n, width)
  int64_t n, width;
  int64_t bits;  // searched
  int what;
};

struct Nearest {
  int32_t *histograms, *limits;  // (nq, bits + 1), (nq,)
  int64_t* totals;
  int32_t *rows, *distances;  // (nq, room)
  int64_t* counts;
  int64_t room, k;
  bool in_order;
};

// Coarse codes of any kind, and what turns integer sums into estimates: python/nestvec/kernels/estimate.py.
struct CodePlane {
  const void* codes;
  const int64_t *starts, *bounds;
  const void* factors;  // bfloat16 (3, stored, capacity), or the stats of an int8 plane
  int64_t stored, capacity, levels;
  int mode;  // whether estimates have a lift; for int8 the metric
};

struct CodeQuery {
  const void* codes;
  int64_t digits, width;
  int64_t shift;
  float a;
};

// Queries as integers: python/nestvec/kernels/coding.py.
struct FloatQueries {
  const double* q;
  int64_t n, d;
  const double* center;   // null: 0
  const int64_t* bounds;  // at least up to `dims`
  int64_t dims, widest;
  int metric;
};

struct CodedQueries {
  int8_t* codes;  // null: digits alone
  int64_t width;
  uint64_t* digits;  // (n, count, width / 64)
  int64_t count;
  int64_t* shifts;
  float* lifts;
  double *units, *offsets;
};

struct Shortlist {
  int32_t *rows, *sums;
  float* values;
  int64_t* count;
  int64_t room;
};

// Documents as bags of tokens, queries as bags of query tokens: python/nestvec/kernels/maxsim.py.
struct Documents {
  const void* tokens;
  int64_t stride, dims;
  const float* scales;  // null: 1
  const int64_t* offsets;
};

struct BagQueries {
  const double* data;  // (m, dims)
  int64_t m;
  const int64_t* offsets;
  int64_t n;
};

struct CodedBags {
  const int8_t* codes;
  int64_t width;
  const float* scales;
  const int32_t* sums;
  const int64_t* offsets;
  const float* bounds;  // (2, n)
  int64_t n;
};

struct CodedBagQueries {
  const uint8_t* codes;  // (panels, size)
  int64_t size;
  const float* steps;  // (panels, 16)
  const int64_t* panels;
  const float* bounds;  // (2, n)
  int64_t n;
};

// Documents that may be found, a byte each; null: all.
struct DocumentSets {
  const uint8_t* bytes;
  int64_t step;  // as in RowSets
};

// Bags of tokens and their fixed dimensional encodings: python/nestvec/kernels/fde.py.
struct Bags {
  const float* x;
  int64_t dims;
  const int64_t* offsets;
  int64_t n;
  const uint32_t* partitions;
};

struct Fde {
  const int32_t *ams, *final;  // null: no sketch
  int64_t repetitions, parts, width, size;
  int64_t step;  // from the values of a token for one repetition to those for the next
  int mode;      // what blocks are divided by
  bool fill;
};

// Query tokens and their projections: python/nestvec/kernels/fitted.py.
struct ProbeQueries {
  const float* x;
  int64_t dims;
  const float* projected;
  int64_t stride, wide;  // floats from token to token, and those before products with planes
  const int64_t* offsets;
  int64_t n;
  const float* shift;
  int64_t k;
};

using ScanCodes = float(const CodePlane&, const CodeQuery&, float threshold, int64_t keep, int64_t first, int64_t last,
                        int64_t stride, int64_t slot, const uint64_t* allowed, const Shortlist&);
using ListCodes = void(const CodePlane&, const CodeQuery&, int64_t begin, int64_t n, const Shortlist&);
using Scores = void(const Queries&, const Rows&, float* out);
using TopK = void(const Queries&, const Rows&, const Allowed&, const Best&);
using ListRows = void(const Queries&, const Rows&, const int32_t* numbers, int64_t n, const Best&);
using Rescore = int64_t(const Queries&, const Rows&, int64_t take, const Thresholds&, const Candidates&, const Best&);
using MaxSim = int64_t(const BagQueries&, const Documents&, const int64_t* docs, int64_t n, uint8_t* scratch,
                       double* out);

struct Kernels {
  void (&widen_f16)(const uint16_t* source, float* target, int64_t n);
  void (&widen_bf16)(const uint16_t* source, float* target, int64_t n);
  void (&narrow_f16)(const float* source, uint16_t* target, int64_t n);
  void (&narrow_bf16)(const float* source, uint16_t* target, int64_t n);
  int64_t (&first_nonfinite)(const float* values, int64_t n);
  int64_t (&sum_bytes)(const uint8_t* values, int64_t n);
  uint32_t (&crc32c)(const uint8_t* data, int64_t n, uint32_t seed);
  void (&pack_rows)(const float* x, int64_t n, int64_t d, const int64_t* bounds, int64_t levels, const int64_t* starts,
                    int64_t first, uint8_t* codes, float* stats, float* blocks, int64_t capacity);
  void (&pack_queries)(const float* q, int64_t n, int64_t d, const int64_t* bounds, int64_t levels, int metric,
                       int8_t* codes, int64_t stride, int32_t* sums, float* stats, int64_t padded, double* multiply,
                       double* offset);
  int64_t (&scan)(const Plane&, const QueryBatch&, int64_t check, int64_t first, int64_t last, const Candidates&);
  void (&sign_bits_f32)(const float* x, int64_t n, int64_t d, const float* thresholds, uint8_t* codes);
  void (&sign_bits_f64)(const double* x, int64_t n, int64_t d, const double* thresholds, uint8_t* codes);
  void (&pack_words)(const uint8_t* codes, int64_t n, int64_t width, const int64_t* bounds, int64_t levels,
                     const int64_t* starts, int64_t first, uint64_t* words);
  void (&count_bits)(const Words&, const BitQueries&, int64_t first, int64_t last, int32_t* out);
  int64_t (&scan_bits)(const Words&, const BitQueries&, int64_t first, int64_t last, const RowSets&, const Nearest&);
  void (&list_bits)(const Words&, const BitQueries&, int64_t begin, const int32_t* rows, int64_t n, int32_t* distances);
  void (&order_bits)(const Nearest&, int64_t n, int64_t* places, int32_t* best_rows, int32_t* best);
  void (&pack_signs)(const float* x, int64_t n, int64_t d, const double* center, const int64_t* bounds, int64_t levels,
                     const int64_t* starts, int metric, int64_t first, uint64_t* words, uint16_t* factors,
                     int64_t capacity);
  void (&pack_nibbles)(const float* x, int64_t n, int64_t d, const int64_t* bounds, int64_t levels,
                       const int64_t* starts, const uint8_t* codes, const int64_t* nibble_starts, int metric,
                       int64_t first, uint8_t* nibbles, uint16_t* factors, int64_t capacity);
  void (&code_queries)(const FloatQueries&, int64_t largest, double shift, const CodedQueries&);
  ScanCodes &scan_b1, &scan_i4, &scan_i8;
  ListCodes &list_b1, &list_i4, &list_i8;
  float (&keep_best)(const Shortlist&, int64_t keep);
  void (&order_best)(const Best&, int64_t n, double sign, float* values);
  void (&simhash)(const float* x, int64_t n, int64_t d, const double* gaussians, const float* panels, double reach,
                  int64_t repetitions, int64_t k, uint32_t* partitions);
  void (&encode_bags)(const Bags&, const Fde&, float* scratch, float* out);
  void (&project_tokens)(const float* x, int64_t n, int64_t dims, const float* panels, int64_t count, float* out);
  void (&encode_probes)(const ProbeQueries&, const Fde&, float* scratch, float* out);
  void (&transform_rows)(const double* x, int64_t n, int64_t dims, const float* panels, int64_t count, float* out);
  Scores &scores_f32, &scores_f16, &scores_bf16;
  TopK &topk_f32, &topk_f16, &topk_bf16;
  ListRows &list_f32, &list_f16, &list_bf16;
  Rescore &rescore_f32, &rescore_f16, &rescore_bf16;
  MaxSim &maxsim_f32, &maxsim_f16, &maxsim_bf16, &maxsim_i8;
  void (&pack_bags)(const float* x, int64_t dims, const int64_t* offsets, int64_t n, int8_t* codes, int64_t width,
                    float* scales, int32_t* sums, float* bounds);
  void (&scan_bags)(const CodedBags&, const CodedBagQueries&, int64_t first, int64_t last, const DocumentSets&,
                    float* out);
};

}  // namespace nestvec
