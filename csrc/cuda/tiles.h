// Codes of rows as scans read them, by tiles or row by row, and what makes values of their sums.
#pragma once
#include "scan.h"

namespace nestvec::cuda {

constexpr int STEP = 32;         // dims of one multiplication
constexpr int QUERY_ALIGN = 64;  // dims of queries, level by level

// What a code knows: bytes of a row in a level; the fragment of rows g and g + 8 of 16 rows, `tile` of a block of 64;
// and the part of a row's sum over a level that one thread of a team adds up.

__device__ inline int dot4(uint32_t row, uint32_t query) {
  int sum = 0;
  for (int i = 0; i < 32; i += 8) sum += int(row >> i & 255) * int(int8_t(query >> i & 255));
  return sum;
}

__device__ inline const uint32_t* words_of(const CodedQueries& q, int64_t query, int64_t at) {
  return reinterpret_cast<const uint32_t*>(q.codes + query * q.stride + at);
}

// A line is 4 dims of 16 rows, which is what a fragment holds: a warp loads 512 consecutive bytes.
struct Bytes {
  static __device__ int64_t width(int64_t dims) { return (dims + 3) / 4 * 4; }
  static __device__ void load(const uint8_t* block, int64_t width, int tile, int64_t step, uint32_t (&a)[4]) {
    int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    auto word = reinterpret_cast<const uint32_t*>(block + tile * 16 * width) + (step * 8 + t) * 16 + g;
    a[0] = word[0];
    a[1] = word[8];
    a[2] = word[64];
    a[3] = word[72];
  }
  static __device__ int sum(const uint8_t* level, int64_t dims, int64_t row, const CodedQueries& q, int64_t query,
                            int64_t at, int lane, int team) {
    auto words = reinterpret_cast<const uint32_t*>(level + row / 16 * 16 * width(dims)) + row % 16;
    auto mine = words_of(q, query, at);
    int sum = 0;
    for (int64_t i = lane; i * 4 < dims; i += team) sum += dot4(words[i * 16], mine[i]);
    return sum;
  }
};

// A byte holds a dim of the lower four of a line, and one of the upper four.
struct Nibbles {
  static __device__ int64_t width(int64_t dims) { return (dims + 7) / 8 * 4; }
  static __device__ void load(const uint8_t* block, int64_t width, int tile, int64_t step, uint32_t (&a)[4]) {
    int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    auto word = reinterpret_cast<const uint32_t*>(block + tile * 16 * width) + (step * 4 + t / 2) * 16 + g;
    int shift = t % 2 * 4;
    a[0] = word[0] >> shift & 0x0f0f0f0fu;
    a[1] = word[8] >> shift & 0x0f0f0f0fu;
    a[2] = word[32] >> shift & 0x0f0f0f0fu;
    a[3] = word[40] >> shift & 0x0f0f0f0fu;
  }
  static __device__ int sum(const uint8_t* level, int64_t dims, int64_t row, const CodedQueries& q, int64_t query,
                            int64_t at, int lane, int team) {
    auto words = reinterpret_cast<const uint32_t*>(level + row / 16 * 16 * width(dims)) + row % 16;
    auto mine = words_of(q, query, at);
    int sum = 0;
    for (int64_t i = lane; i * 4 < dims; i += team)
      sum += dot4(words[i / 2 * 16] >> (i % 2 * 4) & 0x0f0f0f0fu, mine[i]);
    return sum;
  }
};

__device__ inline int weighed(int sum, uint64_t bits, const uint64_t* digit, int64_t step) {
  for (int i = 0; i < DIGITS; i++) {
    int ones = __popcll(bits & digit[i * step]) << i;
    sum = i == DIGITS - 1 ? sum - ones : sum + ones;
  }
  return sum;
}

// A line is 64 dims of 64 rows, a word each, first dim highest. As bytes of 0 and 1 they are multiplied like the
// others.
struct Signs {
  static __device__ int64_t width(int64_t dims) { return (dims + 63) / 64 * 8; }
  static __device__ uint32_t spread(uint32_t bits) { return (bits & 15) * 0x00204081u & 0x01010101u; }
  static __device__ void load(const uint8_t* block, int64_t, int tile, int64_t step, uint32_t (&a)[4]) {
    int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    auto half = reinterpret_cast<const uint32_t*>(block) + (step / 2 * 64 + tile * 16 + g) * 2 + (step + 1) % 2;
    uint32_t low = __brev(half[0]) >> (t * 4), high = __brev(half[16]) >> (t * 4);
    a[0] = spread(low);
    a[1] = spread(high);
    a[2] = spread(low >> 16);
    a[3] = spread(high >> 16);
  }
  static __device__ int sum(const uint8_t* level, int64_t dims, int64_t row, const CodedQueries& q, int64_t query,
                            int64_t at, int lane, int team) {
    auto words = reinterpret_cast<const uint64_t*>(level + row / 64 * 64 * width(dims)) + row % 64;
    const uint64_t* digit = q.digits + query * DIGITS * (q.stride / 64) + at / 64;
    int sum = 0;
    for (int64_t i = lane; i * 64 < dims; i += team) sum = weighed(sum, words[i * 64], digit + i, q.stride / 64);
    return sum;
  }
};

template <class Rows>
__device__ int sum_of_row(const Codes& p, const CodedQueries& q, int64_t levels, int64_t query, int64_t row, int lane,
                          int team) {
  int64_t at = 0, below = 0;
  int sum = 0;
  for (int64_t level = 0; level < levels; level++) {
    int64_t dims = p.bounds[level] - below;
    sum += Rows::sum(p.codes + p.starts[level], dims, row, q, query, at, lane, team);
    at += (dims + QUERY_ALIGN - 1) / QUERY_ALIGN * QUERY_ALIGN;
    below = p.bounds[level];
  }
  return sum;
}

struct Terms {
  float unit, half, error, norm;
};

// kernels/scan.py: _load_terms.
__device__ inline Terms terms_of(const Codes& p, int64_t levels, int metric, int64_t row) {
  float scale = p.stats[row], norm = p.stats[levels * p.capacity + row];
  float error = p.stats[(p.stored + levels) * p.capacity + row];
  Terms found = {scale, 0, error, norm};
  if (metric == COSINE) found.unit = norm > 0 ? 1.0f / norm : 0.0f;
  if (metric == L2) {
    float low = scale * fmaxf(norm - 2e-30f, 0.0f);
    float half = low * 0.49999f * low - 1e-44f;
    found.half = fminf(fmaxf(half, 0.0f), HUGE_ESTIMATE);
  }
  return found;
}

// What makes a value of a sum of products, for one row and one query. `Query` is loaded to shared memory.
struct Certified {
  struct Query {
    float error_factor, norm_factor, step_inverse;
    int offset;
  };
  static __device__ Query query(const CodedQueries& q, int64_t levels, int64_t i) {
    return {q.stats[(levels - 1) * q.padded + i], q.stats[(2 * levels - 1) * q.padded + i],
            q.stats[3 * levels * q.padded + i], 128 * q.sums[(levels - 1) * q.padded + i]};
  }
  using Row = Terms;
  static __device__ Row row(const Codes& p, int64_t levels, int metric, int64_t row) {
    return terms_of(p, levels, metric, row);
  }
  static __device__ float value(int sum, const Row& row, const Query& query, bool) {
    float slack = query.error_factor * row.error + query.norm_factor * row.norm;
    float bound = float(sum - query.offset) + slack;
    return bound * row.unit - fminf(row.half * query.step_inverse, HUGE_ESTIMATE);
  }
};

struct Estimated {
  struct Query {
    float lift;
    int64_t shift;
  };
  static __device__ Query query(const CodedQueries& q, int64_t, int64_t i) { return {q.lifts[i], q.shifts[i]}; }
  struct Row {
    float f, g;
    int times;
  };
  static __device__ Row row(const Codes& p, int64_t levels, int metric, int64_t row) {
    if (!p.factors) {
      Terms found = terms_of(p, levels, metric, row);
      return {found.unit, found.half, 1};
    }
    const uint16_t* factors = p.factors + (levels - 1) * p.capacity + row;
    return {widened_bf16(factors[0]), widened_bf16(factors[p.stored * p.capacity]), 2};
  }
  static __device__ float value(int sum, const Row& row, const Query& query, bool lifted) {
    float value = float(row.times * int64_t(sum) - query.shift) * row.f;
    if (lifted) value = value + row.g * query.lift;
    if (!(value >= -HUGE_ESTIMATE)) value = -HUGE_ESTIMATE;  // NaN, too
    return fminf(value, HUGE_ESTIMATE);
  }
};

struct Scanned {
  Codes plane;
  CodedQueries queries;
  int64_t levels;
  int metric;
  Blocks blocks;
  RowSets allowed;
  Lists lists;

  // Whether estimates have a second term: signs of unit rows are lifted for cosine.
  __device__ bool lifted() const { return metric == L2 || (metric == COSINE && plane.code == B1); }
};

}  // namespace nestvec::cuda
