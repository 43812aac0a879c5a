// A warp multiplies tiles of 16 rows with columns of 8 queries. A line of a plane is 4 dims of 16 rows, which is what a
// fragment of rows holds: a warp loads 512 consecutive bytes for 32 dims of 16 rows, straight into registers. Codes of
// queries are staged in shared memory. One query is bound by reading the plane, a thousand by multiplying.
#include "scan.h"

#include "mma.h"

namespace nestvec::cuda {

namespace {

constexpr int TILES = 4;  // of 16 rows, for a warp at a time: its fragments of queries serve all of them
constexpr int STEP = 32;  // dims of one multiplication
constexpr int QUERY_ALIGN = 64;
constexpr int SKEW = 16;  // bytes between rows in shared memory: 8 queries then lie in 8 groups of banks

struct Bytes {
  static __device__ int64_t width(int64_t dims) { return (dims + 3) / 4 * 4; }
  // Fragment of rows g and g + 8 of a tile.
  static __device__ void load(const uint8_t* level, int64_t step, uint32_t (&a)[4]) {
    int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    auto word = reinterpret_cast<const uint32_t*>(level) + (step * 8 + t) * 16 + g;
    a[0] = word[0];
    a[1] = word[8];
    a[2] = word[64];
    a[3] = word[72];
  }
  static __device__ int dot(const uint8_t* level, int64_t step, int row, int t, const int8_t* query) {
    int sum = 0;
    for (int j = 0; j < 4; j++) sum += int(level[(step * 8 + t) * 64 + row * 4 + j]) * query[step * STEP + t * 4 + j];
    return sum;
  }
};

struct Nibbles {
  static __device__ int64_t width(int64_t dims) { return (dims + 7) / 8 * 4; }
  static __device__ void load(const uint8_t* level, int64_t step, uint32_t (&a)[4]) {
    int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    auto word = reinterpret_cast<const uint32_t*>(level) + (step * 4 + t / 2) * 16 + g;
    int shift = t % 2 * 4;  // a byte holds a dim of the lower four, and one of the upper four
    a[0] = word[0] >> shift & 0x0f0f0f0fu;
    a[1] = word[8] >> shift & 0x0f0f0f0fu;
    a[2] = word[32] >> shift & 0x0f0f0f0fu;
    a[3] = word[40] >> shift & 0x0f0f0f0fu;
  }
  static __device__ int dot(const uint8_t* level, int64_t step, int row, int t, const int8_t* query) {
    int sum = 0;
    for (int j = 0; j < 4; j++)
      sum += int(level[(step * 4 + t / 2) * 64 + row * 4 + j] >> (t % 2 * 4) & 15) * query[step * STEP + t * 4 + j];
    return sum;
  }
};

struct Terms {
  float unit, half, error, norm;
};

// kernels/scan.py: _load_terms.
__device__ Terms terms_of(const Codes& p, int64_t levels, int metric, int64_t row) {
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
  Range range;
  RowSets allowed;
  Lists lists;
};

// Loads codes of queries, dims [first, first + chunk) of the padded ones, zero where there are none.
template <int QUERIES, int CHUNK>
__device__ void stage(const CodedQueries& q, int64_t first_query, int64_t first, int8_t* staged) {
  for (int i = threadIdx.x; i < QUERIES * (CHUNK / 16); i += blockDim.x) {
    int64_t query = first_query + i / (CHUNK / 16), at = first + i % (CHUNK / 16) * 16;
    uint4 some = {0, 0, 0, 0};
    if (query < q.nq && at < q.stride) some = *reinterpret_cast<const uint4*>(q.codes + query * q.stride + at);
    *reinterpret_cast<uint4*>(staged + i / (CHUNK / 16) * (CHUNK + SKEW) + i % (CHUNK / 16) * 16) = some;
  }
}

// COLUMNS of 8 queries for a warp, ROWS by QUERIES warps a block. Dims are taken CHUNK by CHUNK of the queries.
template <class Rows, class Value, int COLUMNS, int ROWS, int QUERIES, int CHUNK>
__global__ void __launch_bounds__(ROWS * QUERIES * WARP) scan_kernel(Scanned s, int64_t groups) {
  constexpr int HELD = COLUMNS * QUERIES * 8;  // queries
  __shared__ __align__(16) int8_t staged[HELD * (CHUNK + SKEW)];
  __shared__ typename Value::Query parameters[HELD];
  __shared__ float least[HELD];
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
  int64_t first_query = blockIdx.x % groups * HELD;
  int first_column = warp % QUERIES * COLUMNS * 8;
  bool lifted = s.metric == L2;
  for (int i = threadIdx.x; i < HELD; i += blockDim.x) {
    least[i] = INFINITY;
    if (first_query + i >= s.queries.nq) continue;
    parameters[i] = Value::query(s.queries, s.levels, first_query + i);
    least[i] = s.lists.thresholds[first_query + i];
  }
  bool once = s.queries.stride <= CHUNK;
  if (once) stage<HELD, CHUNK>(s.queries, first_query, 0, staged);
  __syncthreads();
  constexpr int64_t BLOCK_ROWS = ROWS * TILES * 16;
  int64_t stride = gridDim.x / groups * BLOCK_ROWS;
  for (int64_t begin = s.range.first + blockIdx.x / groups * BLOCK_ROWS; begin < s.range.last; begin += stride) {
    int64_t row0 = begin + warp / QUERIES * TILES * 16;
    int64_t read = min(row0, s.plane.capacity - TILES * 16);  // capacity is a multiple of 64
    int sums[TILES][COLUMNS][4] = {};
    int64_t at = 0, below = 0, chunk = once ? 0 : -1;
    for (int64_t level = 0; level < s.levels; level++) {
      int64_t dims = s.plane.bounds[level] - below, width = Rows::width(dims);
      const uint8_t* codes = s.plane.codes + s.plane.starts[level] + read * width;
      for (int64_t step = 0; step * STEP < dims; step++) {
        int64_t place = at + step * STEP;
        if (place / CHUNK != chunk) {
          chunk = place / CHUNK;
          __syncthreads();
          stage<HELD, CHUNK>(s.queries, first_query, chunk * CHUNK, staged);
          __syncthreads();
        }
        uint32_t a[TILES][4];
        for (int i = 0; i < TILES; i++) Rows::load(codes + i * 16 * width, step, a[i]);
        const int8_t* column = staged + (first_column + g) * (CHUNK + SKEW) + place % CHUNK + t * 4;
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) {
          auto words = reinterpret_cast<const uint32_t*>(column + c * 8 * (CHUNK + SKEW));
          uint32_t b[2] = {words[0], words[4]};
#pragma unroll
          for (int i = 0; i < TILES; i++) mma_u8s8(sums[i][c], a[i], b);
        }
      }
      at += (dims + QUERY_ALIGN - 1) / QUERY_ALIGN * QUERY_ALIGN;
      below = s.plane.bounds[level];
    }
#pragma unroll
    for (int i = 0; i < TILES * 2; i++) {
      int64_t row = row0 + i / 2 * 16 + i % 2 * 8 + g;
      if (row >= s.range.last) continue;
      typename Value::Row terms = Value::row(s.plane, s.levels, s.metric, row);
#pragma unroll
      for (int c = 0; c < COLUMNS * 2; c++) {
        int query = first_column + c / 2 * 8 + t * 2 + c % 2;
        float value = Value::value(sums[i / 2][c / 2][i % 2 * 2 + c % 2], terms, parameters[query], lifted);
        if (value >= least[query] && s.allowed.has(int(first_query) + query, row))
          append(s.lists, int(first_query) + query, int32_t(row), value);
      }
    }
  }
}

template <class Rows, class Value, int COLUMNS, int ROWS, int QUERIES, int CHUNK>
void scan_as(const Scanned& s, Stream stream) {
  int64_t groups = ceil_div<int64_t>(s.queries.nq, COLUMNS * QUERIES * 8);
  int64_t blocks = ceil_div<int64_t>(s.range.last - s.range.first, ROWS * TILES * 16);
  int64_t most = ceil_div<int64_t>(16 * multiprocessors(), groups);
  launch(scan_kernel<Rows, Value, COLUMNS, ROWS, QUERIES, CHUNK>, groups * min(blocks, most), ROWS * QUERIES * WARP, 0,
         stream, s, groups);
}

template <class Rows, class Value>
void scan(const Scanned& s, Stream stream) {
  if (s.queries.nq == 0 || s.range.first >= s.range.last) return;
  if (s.queries.nq <= 8)
    scan_as<Rows, Value, 1, 4, 1, 2048>(s, stream);
  else
    scan_as<Rows, Value, 8, 2, 2, 256>(s, stream);
}

// One warp a listed row.
template <class Rows>
__global__ void list_kernel(Scanned s) {
  int64_t query = blockIdx.x;
  bool lifted = s.metric == L2;
  auto q = Estimated::query(s.queries, s.levels, query);
  int lane = threadIdx.x % WARP, count = s.lists.counts[query];
  for (int c = blockIdx.y * (blockDim.x / WARP) + threadIdx.x / WARP; c < count; c += gridDim.y * (blockDim.x / WARP)) {
    int64_t row = s.lists.rows[query * s.lists.room + c], at = 0, below = 0;
    int sum = 0;
    for (int64_t level = 0; level < s.levels; level++) {
      int64_t dims = s.plane.bounds[level] - below, width = Rows::width(dims);
      const uint8_t* codes = s.plane.codes + s.plane.starts[level] + row / 16 * 16 * width;
      const int8_t* mine = s.queries.codes + query * s.queries.stride + at;
      for (int64_t word = lane; word * 4 < dims; word += WARP)
        sum += Rows::dot(codes, word / 8, int(row % 16), int(word % 8), mine);
      at += (dims + QUERY_ALIGN - 1) / QUERY_ALIGN * QUERY_ALIGN;
      below = s.plane.bounds[level];
    }
    for (int width = 16; width > 0; width /= 2) sum += __shfl_xor_sync(EVERYBODY, sum, width);
    if (lane == 0)
      s.lists.values[query * s.lists.room + c] =
          Estimated::value(sum, Estimated::row(s.plane, s.levels, s.metric, row), q, lifted);
  }
}

}  // namespace

void scan_certified(const Codes& plane, const CodedQueries& queries, int64_t levels, int metric, const Range& range,
                    const RowSets& allowed, const Lists& lists, Stream stream) {
  scan<Bytes, Certified>({plane, queries, levels, metric, range, allowed, lists}, stream);
}

void scan_estimates(const Codes& plane, const CodedQueries& queries, int64_t levels, int metric, const Range& range,
                    const RowSets& allowed, const Lists& lists, Stream stream) {
  Scanned s = {plane, queries, levels, metric, range, allowed, lists};
  plane.factors ? scan<Nibbles, Estimated>(s, stream) : scan<Bytes, Estimated>(s, stream);
}

void list_estimates(const Codes& plane, const CodedQueries& queries, int64_t levels, int metric, const Lists& lists,
                    Stream stream) {
  Scanned s = {plane, queries, levels, metric, {}, {}, lists};
  dim3 grid(queries.nq, 16);
  plane.factors ? launch(list_kernel<Nibbles>, grid, 256, 0, stream, s)
                : launch(list_kernel<Bytes>, grid, 256, 0, stream, s);
}

}  // namespace nestvec::cuda
