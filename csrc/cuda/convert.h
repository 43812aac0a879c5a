// Arrays of others as kernels here read them, and results as callers want them.
#pragma once
#include "best.h"

namespace nestvec::cuda {

constexpr int MOST_AXES = 8;

// Anything with strides, in bytes.
struct Strided {
  const void* data;
  int axes;
  int64_t shape[MOST_AXES], strides[MOST_AXES];
  int item;  // bytes: 1, 2, 4 or 8
};

// C-contiguous.
void copy_strided(const Strided&, void* target, Stream);

// How values are kept that become float32.
enum class Source : int { f32, f16, bf16, f64, i8, u8, i16, u16, i32, u32, i64, u64 };

inline int64_t bytes_of(Source type) {
  constexpr int64_t BYTES[] = {4, 2, 2, 8, 1, 1, 2, 2, 4, 4, 8, 8};
  return BYTES[int(type)];
}

// Rows of which not all values are finite float32: bad[row], and bad[n] for any of them. Null: nobody asks.
struct Check {
  int32_t* bad;  // (n + 1,)
  int64_t n;
};

// A value as it is kept: what is not finite is noted and becomes 0, so that nothing later on meets it.
__device__ inline float checked(float value, int64_t row, const Check& check) {
  if (isfinite(value)) return value;
  if (check.bad) check.bad[row] = check.bad[check.n] = 1;
  return 0;
}

// Rows (n, dims), `stride` elements apart, to nearest; what is not finite becomes 0 and is noted.
void to_float32(const void* source, Source type, int64_t stride, int64_t dims, float* target, const Check&, Stream);

// Scores as float32, of distances with the other sign, and ids, `k` of each query; -1 where there is none.
struct Results {
  float* scores;
  int64_t* ids;
  int64_t k;
};
// `bad` queries, if not null, find nothing.
void to_results(const Best&, int64_t nq, bool distances, const int32_t* bad, const Results&, Stream);

}  // namespace nestvec::cuda
