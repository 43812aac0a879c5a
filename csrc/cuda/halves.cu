// Bounds from products of halves. q times a power of two is h + r, where h are halves and r the rest; S is the sum of
// products h x (of float32 rows: of x rounded to bfloat16) that tensor cores return. Then
//
//     <h + r, x>  <=  S + (|r| + (gamma + rho) |h|) |x|
//
// gamma: each multiplication of depth 16 may cut 17 terms off at 2^-22 of the largest, twice what is known of any GPU.
// rho: float32 rows round to bfloat16, 2^-8 of each element. |r| is about 2^-12 of |q| for float16 and 2^-9 for
// bfloat16, so the bound is off by a few percent of the deviation of scores, up to a fifth for float32 rows: a second
// part of h would leave out few rows more, for twice the products.
//
// Each row is read once for up to 128 queries: a lane loads 16 bytes, eight dims, of a row, four lanes 32 dims. Words 0
// and 1 go into one multiplication, 2 and 3 into the next, for rows and queries alike: the order of dims is free.
// The next 32 dims are on their way meanwhile. Squares are summed from the same registers. A block of 256 x 128
// results reads 2 bytes of a row per 256 products, which the L2 cache can deliver at the speed of mma.sync; where few
// queries share a row, the memory is the limit, and a warp keeps 4 KB of reads in flight.
#include "halves.h"

#include "mma.h"

namespace nestvec::cuda {

namespace {

constexpr int STEP = 32;                                          // dims of two multiplications
constexpr int MOST_CHUNK = 1024;                                  // dims of queries in shared memory, at most
constexpr float SAFE_NORM = 0x1p115f;                             // products with longer rows may overflow
constexpr float LEAST_SQUARE = 0x1p-90f, MOST_SQUARE = 0x1p120f;  // sums in between are not hurt by the range

__device__ inline uint16_t rounded_bf16(float value) {
  uint32_t bits = __float_as_uint(value);
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Of values below 65520.
__device__ inline uint16_t rounded_f16(float value) {
  uint32_t bits = __float_as_uint(value), magnitude = bits & 0x7fffffffu, half;
  if (magnitude < 0x38800000u)  // subnormal: the addition rounds at the right bit
    half = __float_as_uint(__uint_as_float(magnitude) + 0.5f) - 0x3f000000u;
  else
    half = (magnitude - 0x38000000u + 0xfff + (magnitude >> 13 & 1)) >> 13;
  return uint16_t(half | (bits >> 16 & 0x8000u));
}

__device__ inline uint32_t bf16_pair(float low, float high) {
#ifndef __CUDACC__
  return rounded_bf16(low) | uint32_t(rounded_bf16(high)) << 16;
#else
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#endif
}

// Eight dims of a row, as stored; zero from `dims` on.
template <class Type>
struct Eight {
  uint32_t words[4];

  __device__ void load(const uint16_t* row, int at, int dims, bool aligned) {
    if (aligned && at + 8 <= dims) {
      uint4 all = *reinterpret_cast<const uint4*>(row + at);
      words[0] = all.x, words[1] = all.y, words[2] = all.z, words[3] = all.w;
      return;
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
      uint32_t low = at + 2 * i < dims ? row[at + 2 * i] : 0, high = at + 2 * i + 1 < dims ? row[at + 2 * i + 1] : 0;
      words[i] = low | high << 16;
    }
  }
  __device__ uint32_t pair(int i) const { return words[i]; }
  __device__ float add_squares(float sum) const {
#pragma unroll
    for (uint32_t word : words) {
      float low = Type::widened(uint16_t(word)), high = Type::widened(uint16_t(word >> 16));
      sum = fmaf(high, high, fmaf(low, low, sum));
    }
    return sum;
  }
};

template <>
struct Eight<F32> {
  float values[8];

  __device__ void load(const float* row, int at, int dims, bool aligned) {
    if (aligned && at + 8 <= dims) {
#pragma unroll
      for (int i = 0; i < 8; i += 4) {
        uint4 some = *reinterpret_cast<const uint4*>(row + at + i);
        values[i] = __uint_as_float(some.x), values[i + 1] = __uint_as_float(some.y);
        values[i + 2] = __uint_as_float(some.z), values[i + 3] = __uint_as_float(some.w);
      }
      return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++) values[i] = at + i < dims ? row[at + i] : 0;
  }
  __device__ uint32_t pair(int i) const { return bf16_pair(values[2 * i], values[2 * i + 1]); }
  __device__ float add_squares(float sum) const {
#pragma unroll
    for (float value : values) sum = fmaf(value, value, sum);
    return sum;
  }
};

template <class Type>
__device__ void multiply(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  mma_bf16(c, a, b);
}
template <>
__device__ void multiply<F16>(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  mma_f16(c, a, b);
}

// |x| by four lanes, for rows whose squares leave the range of float32; NaN for rows that hold NaN or Inf.
template <class Type>
__device__ float careful_norm(const typename Type::Stored* row, int dims) {
  double sum = 0;
  for (int j = threadIdx.x % 4; j < dims; j += 4) {
    double value = Type::widened(row[j]);
    sum += value * value;
  }
  sum += __shfl_xor_sync(EVERYBODY, sum, 1);
  sum += __shfl_xor_sync(EVERYBODY, sum, 2);
  return sum < INFINITY ? float(sqrt(sum)) : NAN;
}

// Relative error of a norm: float32 sums of dims / 4 squares by each of four lanes, and a few operations more.
__host__ __device__ inline float norm_error(int64_t dims) { return float(dims / 4 + 16) * 0x1p-24f; }

struct Scanned {
  Vectors v;
  HalfQueries q;
  Blocks blocks;
  RowSets allowed;
  Lists lists;
  int units, groups, chunk;  // units of TILES
  bool aligned;
};

// What a row makes of a sum: unit * sum + error * slack + rest - min(step low^2 / 2, HUGE).
struct RowTerms {
  float unit, slack, rest, low;

  __device__ RowTerms(float norm, const Vectors& v) {
    bool cosine = v.metric == COSINE;
    unit = !cosine ? 1 : norm > 0 ? 1 / norm : 0;
    slack = !(norm < SAFE_NORM) ? INFINITY : !cosine ? norm : norm > 0;
    rest = float(v.dims + 32) * 0x1p-122f * unit;  // what is lost where products are subnormal
    low = v.metric == L2 ? norm * (1 - norm_error(v.dims) - 0x1p-20f) : 0;
  }
};

struct QueryTerms {
  float error, step, least;

  __device__ float bound(float sum, const RowTerms& row) const {
    return fmaf(sum, row.unit, fmaf(error, row.slack, row.rest)) -
           fminf(row.low * step * (0.5f * row.low), HUGE_ESTIMATE);
  }
};

// Bytes between queries in shared memory: eight lanes that read 16 bytes each then read from all banks.
__host__ __device__ inline int pitch_of(int chunk) { return chunk % 64 ? chunk * 2 : chunk * 2 + 64; }

// Queries from `first_query` on, dims [first, first + chunk); zero where there are none.
template <int HELD>
__device__ void stage(const Scanned& s, int64_t first_query, int first, unsigned char* staged) {
  int warps = blockDim.x / WARP, pitch = pitch_of(s.chunk);
  for (int i = threadIdx.x / WARP; i < HELD; i += warps)
    for (int at = threadIdx.x % WARP * 8; at < s.chunk; at += WARP * 8) {
      uint4 some = {0, 0, 0, 0};
      int64_t query = first_query + i;
      if (query < s.q.nq && first + at < s.q.stride)
        some = *reinterpret_cast<const uint4*>(s.q.halves + query * s.q.stride + first + at);
      *reinterpret_cast<uint4*>(staged + i * pitch + at * 2) = some;
    }
}

// TILES of 16 rows and COLUMNS of 8 queries for a warp, ROWS by QUERIES warps a block.
template <class Type, int TILES, int COLUMNS, int ROWS, int QUERIES>
__global__ void __launch_bounds__(ROWS * QUERIES * WARP) halves_kernel(Scanned s) {
  constexpr int HELD = COLUMNS * QUERIES * 8;
  constexpr int UNITS = 4 / TILES;  // of a block of 64 rows
  __shared__ QueryTerms terms[HELD];
  auto staged = shared_memory<unsigned char>();
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
  int64_t first_query = blockIdx.x % s.groups * HELD;
  int first_column = warp % QUERIES * COLUMNS * 8, dims = int(s.v.dims), pitch = pitch_of(s.chunk);
  auto rows = static_cast<const typename Type::Stored*>(s.v.rows);
  for (int i = threadIdx.x; i < HELD; i += blockDim.x) {
    int64_t query = min(first_query + i, s.q.nq - 1);
    terms[i] = {s.q.errors[query], s.q.steps[query], s.lists.thresholds[query]};
  }
  bool once = s.q.stride <= s.chunk;
  if (once) stage<HELD>(s, first_query, 0, staged);
  __syncthreads();
  const unsigned char* column = staged + (first_column + g) * pitch + t * 16;
  for (int begin = blockIdx.x / s.groups * ROWS; begin < s.units; begin += gridDim.x / s.groups * ROWS) {
    int unit = begin + warp / QUERIES;
    int64_t row0 = s.v.n;
    if (unit < s.units) row0 = s.blocks.first_row(unit / UNITS) + unit % UNITS * TILES * 16 + g;
    int most = int(s.v.n - 1 - row0);
    auto row_of = [&](int i) { return rows + (row0 + min(i * 8, most)) * s.v.row_stride; };
    float sums[TILES][COLUMNS][4] = {}, squares[TILES * 2] = {};
    Eight<Type> next[TILES * 2] = {};
    for (int at = -STEP; at < dims; at += STEP) {
      Eight<Type> now[TILES * 2];
#pragma unroll
      for (int i = 0; i < TILES * 2; i++) {
        now[i] = next[i];
        if (at + STEP < dims) next[i].load(row_of(i), at + STEP + t * 8, dims, s.aligned);
      }
      if (at < 0) continue;
      int place = once ? at : at % s.chunk;
      if (!once && place == 0) {
        __syncthreads();
        stage<HELD>(s, first_query, at, staged);
        __syncthreads();
      }
      uint32_t a[2][TILES][4];
#pragma unroll
      for (int i = 0; i < TILES * 2; i++) {
        squares[i] = now[i].add_squares(squares[i]);
#pragma unroll
        for (int word = 0; word < 4; word++) a[word / 2][i / 2][word % 2 * 2 + i % 2] = now[i].pair(word);
      }
#pragma unroll
      for (int c = 0; c < COLUMNS; c++) {
        uint4 words = *reinterpret_cast<const uint4*>(column + c * 8 * pitch + place * 2);
        uint32_t b[2][2] = {{words.x, words.y}, {words.z, words.w}};
#pragma unroll
        for (int i = 0; i < TILES * 2; i++) multiply<Type>(sums[i % TILES][c], a[i / TILES][i % TILES], b[i / TILES]);
      }
    }
#pragma unroll
    for (int i = 0; i < TILES * 2; i++) {
      float square = squares[i];
      square += __shfl_xor_sync(EVERYBODY, square, 1);
      square += __shfl_xor_sync(EVERYBODY, square, 2);
      float norm = sqrtf(square);
      if (__any_sync(EVERYBODY, !(square > LEAST_SQUARE && square < MOST_SQUARE)))
        norm = careful_norm<Type>(row_of(i), dims);
      int64_t row = row0 + i * 8;
      if (row >= s.v.n || norm != norm) continue;
      RowTerms mine(norm, s.v);
#pragma unroll
      for (int c = 0; c < COLUMNS * 2; c++) {
        int held = first_column + c / 2 * 8 + t * 2 + c % 2;
        float value = terms[held].bound(sums[i / 2][c / 2][i % 2 * 2 + c % 2], mine);
        if (value < terms[held].least) continue;  // NaN goes on: where numbers were too large
        int64_t query = first_query + held;
        if (query < s.q.nq && s.allowed.has(int(query), row))
          append(s.lists, int(query), int32_t(row), value < HUGE_ESTIMATE ? value : HUGE_ESTIMATE);
      }
    }
  }
}

template <class Type, int TILES, int COLUMNS, int ROWS, int QUERIES>
void scan_as(Scanned s, int64_t blocks_each, Stream stream) {  // for a multiprocessor
  constexpr int HELD = COLUMNS * QUERIES * 8;
  s.groups = int(ceil_div<int64_t>(s.q.nq, HELD));
  int64_t room = (int64_t(shared_limit() / blocks_each) - 4096) / (HELD * 2) - 32;  // dims that fit, with their padding
  s.chunk = int(min(s.q.stride, min(room / STEP * STEP, int64_t(MOST_CHUNK))));
  s.units = int(s.blocks.count()) * (4 / TILES);
  int64_t most = max(blocks_each * multiprocessors() / s.groups, int64_t(1));
  launch(halves_kernel<Type, TILES, COLUMNS, ROWS, QUERIES>, s.groups * min(int64_t(ceil_div(s.units, ROWS)), most),
         ROWS * QUERIES * WARP, size_t(HELD) * pitch_of(s.chunk), stream, s);
}

template <class Type, int TILES>
void scan(const Scanned& s, Stream stream) {
  if (s.q.nq <= 8)
    scan_as<Type, TILES, 1, 4, 1>(s, 8, stream);
  else if (s.q.nq <= 32)
    scan_as<Type, TILES, 4, 4, 1>(s, 4, stream);
  else
    scan_as<Type, TILES, 8, 4, 2>(s, 1, stream);
}

// One warp a query.
__global__ void pack_kernel(Vectors v, HalfQueries out, double* multiply, double* offset) {
  int64_t query = int64_t(blockIdx.x) * (blockDim.x / WARP) + threadIdx.x / WARP;
  if (query >= out.nq) return;
  int lane = threadIdx.x % WARP;
  const float* q = v.queries + query * v.query_stride;
  float largest = 0;
  for (int64_t j = lane; j < v.dims; j += WARP) largest = fmaxf(largest, fabsf(q[j]));
  for (int width = 16; width > 0; width /= 2) largest = fmaxf(largest, __shfl_xor_sync(EVERYBODY, largest, width));
  // The largest element becomes 1 to 2, or 2^14 to 2^15 where small ones would be subnormal
  int exponent = largest > 0 ? (v.type == 1 ? 14 : 0) - ilogbf(largest) : 0;
  exponent = min(max(exponent, -126), 126);
  float step = ldexpf(1, exponent);
  double square = 0, half_square = 0, rest_square = 0;
  for (int64_t j = lane; j < out.stride; j += WARP) {
    double value = j < v.dims ? double(q[j]) * step : 0;
    uint16_t half = v.type == 1 ? rounded_f16(float(value)) : rounded_bf16(float(value));
    double rounded = v.type == 1 ? widened_f16(half) : widened_bf16(half), rest = value - rounded;
    out.halves[query * out.stride + j] = half;
    square += value * value;
    half_square += rounded * rounded;
    rest_square += rest * rest;
  }
  for (int width = 16; width > 0; width /= 2) {
    square += __shfl_xor_sync(EVERYBODY, square, width);
    half_square += __shfl_xor_sync(EVERYBODY, half_square, width);
    rest_square += __shfl_xor_sync(EVERYBODY, rest_square, width);
  }
  if (lane != 0) return;
  double norm = sqrt(half_square), share = norm_error(v.dims);
  double gamma = double(out.stride / 16) * 17 * 0x1p-22 + 0x1p-20, rho = v.type == 0 ? 0x1.01p-8 : 0;
  double error = (sqrt(rest_square) + (gamma + rho) * norm) * (1 + 2 * share) + 2 * share * norm;
  out.errors[query] = float(error * (1 + 0x1p-20) + 0x1p-110);
  out.steps[query] = step;
  multiply[query] = v.metric == L2 ? 0.5 * step : v.metric == IP ? step : sqrt(square);
  offset[query] = v.metric == L2 ? 0.5 * square / step : 0;
}

}  // namespace

void pack_halves(const Vectors& v, const HalfQueries& out, double* multiply, double* offset, Stream stream) {
  launch(pack_kernel, ceil_div<int64_t>(out.nq, 4), 4 * WARP, 0, stream, v, out, multiply, offset);
}

void scan_halves(const Vectors& v, const HalfQueries& q, const Blocks& blocks, const RowSets& allowed,
                 const Lists& lists, Stream stream) {
  if (q.nq == 0 || blocks.count() <= 0) return;
  auto start = reinterpret_cast<uintptr_t>(v.rows);
  bool aligned = (start | uintptr_t(v.row_stride) * (v.type ? 2 : 4)) % 16 == 0;
  Scanned s = {v, q, blocks, allowed, lists, 0, 0, 0, aligned};
  if (v.type == 0) scan<F32, 2>(s, stream);
  if (v.type == 1) scan<F16, 4>(s, stream);
  if (v.type == 2) scan<BF16, 4>(s, stream);
}

}  // namespace nestvec::cuda
