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

struct QueryBatch {
  const int8_t* codes;  // (padded, stride)
  const int32_t* sums;  // (levels, padded) of the codes of each prefix
  const float* stats;   // (3 levels + 1, padded)
  const float* thresholds;
  const int64_t* bounds;  // (levels,)
  int64_t n, padded, stride, levels;
  int metric;
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

using Scores = void(const Queries&, const Rows&, float* out);
using TopK = void(const Queries&, const Rows&, const Best&);
using Rescore = int64_t(const Queries&, const Rows&, int64_t take, const Thresholds&, const Candidates&, const Best&);

struct Kernels {
  void (&widen_f16)(const uint16_t* source, float* target, int64_t n);
  void (&widen_bf16)(const uint16_t* source, float* target, int64_t n);
  void (&narrow_f16)(const float* source, uint16_t* target, int64_t n);
  void (&narrow_bf16)(const float* source, uint16_t* target, int64_t n);
  int64_t (&first_nonfinite)(const float* values, int64_t n);
  int64_t (&sum_bytes)(const uint8_t* values, int64_t n);
  void (&pack_rows)(const float* x, int64_t n, int64_t d, const int64_t* bounds, int64_t levels, const int64_t* starts,
                    int64_t first, uint8_t* codes, float* stats, float* blocks, int64_t capacity);
  void (&pack_queries)(const float* q, int64_t n, int64_t d, const int64_t* bounds, int64_t levels, int metric,
                       int8_t* codes, int64_t stride, int32_t* sums, float* stats, int64_t padded, double* multiply,
                       double* offset);
  int64_t (&scan)(const Plane&, const QueryBatch&, int64_t check, int64_t first, int64_t last, const Candidates&);
  Scores &scores_f32, &scores_f16, &scores_bf16;
  TopK &topk_f32, &topk_f16, &topk_bf16;
  Rescore &rescore_f32, &rescore_f16, &rescore_bf16;
};

}  // namespace nestvec
