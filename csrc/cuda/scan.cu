// A warp multiplies tiles of 16 rows with columns of 8 queries; fragments of rows come straight from the plane into
// registers, codes of queries are staged in shared memory. One query is bound by reading the plane, a thousand by
// multiplying: signs are spread to bytes for that, since 8 columns of products cost less than one of popcounts.
#include "mma.h"
#include "signs.h"

namespace nestvec::cuda {

namespace {

constexpr int TILES = 4;  // of 16 rows, for a warp at a time: its fragments of queries serve all of them
constexpr int SKEW = 16;  // bytes between rows in shared memory: 8 queries then lie in 8 groups of banks

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
__global__ void __launch_bounds__(ROWS * QUERIES * WARP) scan_kernel(Scanned s, int64_t groups, int64_t blocks) {
  constexpr int HELD = COLUMNS * QUERIES * 8;  // queries
  __shared__ __align__(16) int8_t staged[HELD * (CHUNK + SKEW)];
  __shared__ typename Value::Query parameters[HELD];
  __shared__ float least[HELD];
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
  int64_t first_query = blockIdx.x % groups * HELD;
  int first_column = warp % QUERIES * COLUMNS * 8;
  bool lifted = s.lifted();
  for (int i = threadIdx.x; i < HELD; i += blockDim.x) {
    least[i] = NAN;  // of no query: nothing reaches it, whatever was in its parameters
    if (first_query + i >= s.queries.nq) continue;
    parameters[i] = Value::query(s.queries, s.levels, first_query + i);
    least[i] = s.lists.thresholds[first_query + i];
  }
  bool once = s.queries.stride <= CHUNK;
  if (once) stage<HELD, CHUNK>(s.queries, first_query, 0, staged);
  __syncthreads();
  int64_t stride = gridDim.x / groups * ROWS;
  for (int64_t begin = blockIdx.x / groups * ROWS; begin < blocks; begin += stride) {
    int64_t block = begin + warp / QUERIES;  // all warps go on together, with work or without
    int64_t row0 = s.blocks.first_row(block < blocks ? block : begin);
    int64_t last = block < blocks ? s.blocks.rows : 0;
    int sums[TILES][COLUMNS][4] = {};
    int64_t at = 0, below = 0, chunk = once ? 0 : -1;
    for (int64_t level = 0; level < s.levels; level++) {
      int64_t dims = s.plane.bounds[level] - below, width = Rows::width(dims);
      const uint8_t* codes = s.plane.codes + s.plane.starts[level] + row0 * width;
      for (int64_t step = 0; step * STEP < dims; step++) {
        int64_t place = at + step * STEP;
        if (place / CHUNK != chunk) {
          chunk = place / CHUNK;
          __syncthreads();
          stage<HELD, CHUNK>(s.queries, first_query, chunk * CHUNK, staged);
          __syncthreads();
        }
        uint32_t a[TILES][4];
        for (int i = 0; i < TILES; i++) Rows::load(codes, width, i, step, a[i]);
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
      if (row >= last) continue;
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
  int64_t blocks = s.blocks.count(), most = ceil_div<int64_t>(16 * multiprocessors(), groups);
  launch(scan_kernel<Rows, Value, COLUMNS, ROWS, QUERIES, CHUNK>, groups * min(ceil_div<int64_t>(blocks, ROWS), most),
         ROWS * QUERIES * WARP, 0, stream, s, groups, blocks);
}

template <class Rows, class Value>
void scan(const Scanned& s, Stream stream) {
  if (s.queries.nq <= 8)
    scan_as<Rows, Value, 1, 4, 1, 2048>(s, stream);
  else
    scan_as<Rows, Value, 8, 2, 2, 256>(s, stream);
}

// A team of threads for each listed row.
template <class Rows, int TEAM>
__global__ void list_kernel(Scanned s) {
  int64_t query = blockIdx.x;
  auto q = Estimated::query(s.queries, s.levels, query);
  int teams = blockDim.x / TEAM, lane = threadIdx.x % TEAM, count = s.lists.counts[query];
  for (int first = blockIdx.y * teams; first < count; first += gridDim.y * teams) {
    int place = first + threadIdx.x / TEAM;  // as often for all: lanes exchange their sums
    int64_t at = query * s.lists.room + (place < count ? place : first), row = s.lists.rows[at];
    int sum = sum_of_row<Rows>(s.plane, s.queries, s.levels, query, row, lane, TEAM);
    for (int width = TEAM / 2; width > 0; width /= 2) sum += __shfl_xor_sync(EVERYBODY, sum, width, TEAM);
    if (lane == 0 && place < count)
      s.lists.values[at] = Estimated::value(sum, Estimated::row(s.plane, s.levels, s.metric, row), q, s.lifted());
  }
}

// One block a query, one thread a row, in the order of rows: of those as good as the worst kept none is needed.
template <class Rows>
__global__ void __launch_bounds__(SELECTORS) lost_kernel(Scanned s, int keep) {
  int64_t query = blockIdx.x;
  if (!s.lists.lost[query]) return;
  auto q = Estimated::query(s.queries, s.levels, query);
  int32_t* rows = s.lists.rows + query * s.lists.room;
  float* values = s.lists.values + query * s.lists.room;
  int count = 0;
  float worst = -INFINITY;
  for (int64_t first = 0; first < s.blocks.rows; first += SELECTORS) {
    int64_t row = first + threadIdx.x;
    float value = -INFINITY;
    if (row < s.blocks.rows && s.allowed.has(int(query), row)) {
      int sum = sum_of_row<Rows>(s.plane, s.queries, s.levels, query, row, 0, 1);
      value = Estimated::value(sum, Estimated::row(s.plane, s.levels, s.metric, row), q, s.lifted());
    }
    int total, place = place_among(value > worst, total);
    if (count + total > s.lists.room) {
      worst = keep_of_list(s.lists, query, count, keep);
      count = keep;
      place = place_among(value > worst, total);
    }
    if (value > worst) {
      rows[count + place] = int32_t(row);
      values[count + place] = value;
    }
    count += total;
    __syncthreads();
  }
  if (threadIdx.x != 0) return;
  s.lists.counts[query] = count;
  s.lists.lost[query] = 0;
}

}  // namespace

void scan_certified(const Codes& plane, const CodedQueries& queries, int64_t levels, int metric, const Blocks& blocks,
                    const RowSets& allowed, const Lists& lists, Stream stream) {
  scan<Bytes, Certified>({plane, queries, levels, metric, blocks, allowed, lists}, stream);
}

void scan_estimates(const Codes& plane, const CodedQueries& queries, int64_t levels, int metric, const Blocks& blocks,
                    const RowSets& allowed, const Lists& lists, Stream stream) {
  Scanned s = {plane, queries, levels, metric, blocks, allowed, lists};
  if (queries.nq == 0) return;
  if (plane.code == I8) scan<Bytes, Estimated>(s, stream);
  if (plane.code == I4) scan<Nibbles, Estimated>(s, stream);
  if (plane.code == B1) queries.nq <= MOST_BY_POPCOUNT ? scan_signs(s, stream) : scan<Signs, Estimated>(s, stream);
}

void list_estimates(const Codes& plane, const CodedQueries& queries, int64_t levels, int metric, const Lists& lists,
                    Stream stream) {
  Scanned s = {plane, queries, levels, metric, {}, {}, lists};
  if (queries.nq == 0) return;
  dim3 grid(queries.nq, max(int64_t(16), 4 * multiprocessors() / queries.nq));
  if (plane.code == I8) launch(list_kernel<Bytes, WARP>, grid, 256, 0, stream, s);
  if (plane.code == I4) launch(list_kernel<Nibbles, WARP>, grid, 256, 0, stream, s);
  if (plane.code == B1) launch(list_kernel<Signs, 4>, grid, 256, 0, stream, s);
}

void scan_lost(const Codes& plane, const CodedQueries& queries, int64_t levels, int metric, int64_t rows, int64_t keep,
               const RowSets& allowed, const Lists& lists, Stream stream) {
  Scanned s = {plane, queries, levels, metric, {rows, 1, 0}, allowed, lists};
  if (plane.code == I8) launch(lost_kernel<Bytes>, queries.nq, SELECTORS, 0, stream, s, keep);
  if (plane.code == I4) launch(lost_kernel<Nibbles>, queries.nq, SELECTORS, 0, stream, s, keep);
  if (plane.code == B1) launch(lost_kernel<Signs>, queries.nq, SELECTORS, 0, stream, s, keep);
}

}  // namespace nestvec::cuda
