// Scans of words. A few queries are bound by reading the plane: a lane takes two rows, 16 bytes a load, four loads in
// flight, and counts on its own: popcounts of 100M x 256 bits take 0.2 ms a query on an H100, reading them 1 ms.
// More are bound by counting, which tensor cores do sixteen times as fast: |a xor b| = |a| + |b| - 2 |a and b|, the
// last by products of bits, |a| by one more with a column of ones. What is left to the lanes is to compare: two
// instructions for each row and query.
#include "bits.h"

#include "mma.h"

namespace nestvec::cuda {

namespace {

constexpr int FEW = 4;  // queries
constexpr int NO_LIMIT = 1 << 24;
constexpr int NEVER = -(1 << 30);
constexpr int BLOCK = 64;

struct Scanned {
  BitPlane plane;
  BitQueries queries;
  Blocks round;
  RowSets allowed;
  Near near;
};

// The largest distance that is of use.
__device__ int limit_of(const Near& near, int64_t query) {
  float threshold = near.lists.thresholds[query];
  return threshold == -INFINITY ? NO_LIMIT : -int(threshold);
}

// A row that is not beyond the limit.
__device__ void offer(const Scanned& s, int64_t query, int64_t row, int distance, int limit) {
  if (row >= s.round.rows) return;
  const Near& near = s.near;
  if (distance == limit && (near.ranks ? near.ranks[row] : int32_t(row)) >= near.ends[query]) return;
  if (!s.allowed.has(int(query), row)) return;
  append(near.lists, int(query), int32_t(row), float(-distance));
  atomicAdd(&near.histogram[query * near.bins + near.bins - 1 - distance], 1);
}

// Whether no query may find a row of a block.
__device__ bool none_allowed(const RowSets& allowed, int64_t block) {
  return allowed.words && allowed.step == 0 && allowed.words[block] == 0;
}

// Words [first, first + N) of the table, with masks, zero where there are none.
template <int N>
struct Columns {
  int64_t begins[N], steps[N];
  uint64_t masks[N];

  __device__ void load(const Scanned& s, int64_t first) {
    for (int i = threadIdx.x; i < N; i += blockDim.x) {
      bool there = first + i < s.queries.width;
      Word word = s.plane.table[there ? first + i : s.queries.width - 1];
      begins[i] = word.begin;
      steps[i] = word.step;
      masks[i] = there ? word.mask(s.queries.bits) : 0;
    }
  }
};

// A word of queries as far as it counts.
__device__ uint64_t query_word(const Scanned& s, int64_t query, int64_t word) {
  if (query >= s.queries.nq || word >= s.queries.width) return 0;
  return s.queries.words[query * s.plane.count + word] & s.plane.table[word].mask(s.queries.bits);
}

template <bool BOTH>
__device__ int count(unsigned low, unsigned high, uint64_t query, uint64_t mask) {
  uint64_t word = uint64_t(high) << 32 | low;
  return __popcll(BOTH ? ~(word & query) & mask : (word ^ query) & mask);
}

template <int QUERIES, bool BOTH>
__global__ void __launch_bounds__(256, QUERIES > 2 ? 3 : 4) few_kernel(Scanned s, int64_t blocks) {
  constexpr int HELD = 64, LOADS = 4;
  __shared__ Columns<HELD> columns;
  __shared__ uint64_t staged[HELD][QUERIES];
  int limits[QUERIES];
  auto stage = [&](int64_t first) {
    columns.load(s, first);
    for (int i = threadIdx.x; i < HELD * QUERIES; i += blockDim.x)
      staged[i / QUERIES][i % QUERIES] = query_word(s, i % QUERIES, first + i / QUERIES);
  };
  for (int i = 0; i < QUERIES; i++) limits[i] = i < s.queries.nq ? limit_of(s.near, i) : NEVER;
  bool once = s.queries.width <= HELD;
  if (once) stage(0);
  __syncthreads();
  int warps = blockDim.x / WARP, lane = threadIdx.x % WARP;
  for (int64_t i = int64_t(blockIdx.x) * warps; i < blocks; i += int64_t(gridDim.x) * warps) {
    int64_t mine = i + threadIdx.x / WARP, block = s.round.block(mine < blocks ? mine : blocks - 1);
    if (once && none_allowed(s.allowed, block)) continue;
    int counts[QUERIES][2] = {};
    for (int64_t first = 0; first < s.queries.width; first += HELD) {
      if (!once) {
        __syncthreads();
        stage(first);
        __syncthreads();
      }
      int64_t left = s.queries.width - first;
      int width = int(left < HELD ? left : HELD);
      for (int word = 0; word < width; word += LOADS) {
        uint4 rows[LOADS] = {};
#pragma unroll
        for (int j = 0; j < LOADS; j++)
          if (word + j < width)
            rows[j] = reinterpret_cast<const uint4*>(s.plane.words + columns.begins[word + j] +
                                                     block * columns.steps[word + j])[lane];
#pragma unroll
        for (int j = 0; j < LOADS; j++)
#pragma unroll
          for (int q = 0; q < QUERIES; q++) {
            uint64_t query = staged[word + j][q], mask = columns.masks[word + j];
            counts[q][0] += count<BOTH>(rows[j].x, rows[j].y, query, mask);
            counts[q][1] += count<BOTH>(rows[j].z, rows[j].w, query, mask);
          }
      }
    }
    if (mine >= blocks) continue;
#pragma unroll
    for (int q = 0; q < QUERIES; q++)
#pragma unroll
      for (int half = 0; half < 2; half++)
        if (counts[q][half] <= limits[q]) offer(s, q, block * BLOCK + lane * 2 + half, counts[q][half], limits[q]);
  }
}

// Rows at 8 places of a tile that are within the limits of queries: gathered in shared memory, so that all lanes offer.
struct Hits {
  int count;
  uint32_t hits[WARP * 16];
  __device__ void push(int query, int place, int distance) {
    hits[atomicAdd(&count, 1)] = uint32_t(distance) << 10 | uint32_t(query) << 3 | uint32_t(place);
  }
};

// COLUMNS of 8 queries for a warp, ROWS by QUERIES warps a block; a warp takes 32 rows at a time. Word t of four is
// lane t's: its first half is k = 32 t ..., its second k = 128 + 32 t ...; rows 2 g and 2 g + 1 stand for g and g + 8.
template <int COLUMNS, int ROWS, int QUERIES>
__global__ void __launch_bounds__(ROWS * QUERIES * WARP, 2) many_kernel(Scanned s, int64_t units, int64_t groups) {
  constexpr int HELD = COLUMNS * QUERIES * 8, CHUNK = 16, SKEW = 4, TILES = 2;  // skewed: 4 queries fill all banks
  __shared__ Columns<CHUNK> columns;
  __shared__ __align__(16) uint64_t staged[HELD][CHUNK + SKEW];
  __shared__ int limits[HELD], ones[HELD];
  __shared__ int2 bounds[HELD / 2];  // of |a| - 2 |a and b|, or of - |a and b|
  __shared__ Hits all_hits[ROWS * QUERIES];
  static_assert(HELD <= 128);
  int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, g = lane / 4, t = lane % 4;
  int64_t first_query = blockIdx.x % groups * HELD;
  int column = warp % QUERIES * COLUMNS * 8;
  Hits& found = all_hits[warp];
  if (lane == 0) found.count = 0;
  bool both = s.queries.what == AND;
  auto stage = [&](int64_t first) {
    columns.load(s, first);
    for (int i = threadIdx.x; i < HELD * CHUNK; i += blockDim.x)
      staged[i / CHUNK][i % CHUNK] = query_word(s, first_query + i / CHUNK, first + i % CHUNK);
  };
  for (int i = threadIdx.x; i < HELD; i += blockDim.x) {
    limits[i] = first_query + i < s.queries.nq ? limit_of(s.near, first_query + i) : NEVER;
    ones[i] = both ? s.queries.bits : 0;
    for (int64_t word = 0; !both && word < s.queries.width; word++)
      ones[i] += __popcll(query_word(s, first_query + i, word));
    (i % 2 ? bounds[i / 2].y : bounds[i / 2].x) = limits[i] - ones[i];
  }
  bool once = s.queries.width <= CHUNK;
  if (once) stage(0);
  __syncthreads();
  int64_t stride = gridDim.x / groups * ROWS;
  for (int64_t i = blockIdx.x / groups * ROWS; i < units; i += stride) {
    int64_t unit = i + warp / QUERIES, mine = unit < units ? unit : units - 1;
    int64_t block = s.round.block(mine / 2);
    if (once && none_allowed(s.allowed, block)) continue;
    int pair = int(mine % 2) * (BLOCK / 2 / 2) + g;  // of rows: the first tile's
    int sums[TILES][COLUMNS][4] = {}, sizes[TILES][4] = {};
    for (int64_t first = 0; first < s.queries.width; first += CHUNK) {
      if (!once) {
        __syncthreads();
        stage(first);
        __syncthreads();
      }
      int64_t left = s.queries.width - first;
      int width = int(left < CHUNK ? left : CHUNK);
      for (int word = 0; word < width; word += 4) {
        int own = word + t;
        uint32_t a[TILES][4];
        auto line = reinterpret_cast<const uint4*>(s.plane.words + columns.begins[own] + block * columns.steps[own]);
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
          uint4 two = line[pair + tile * 8];
          a[tile][0] = two.x;
          a[tile][1] = two.z;
          a[tile][2] = two.y;
          a[tile][3] = two.w;
        }
        uint32_t all[2] = {uint32_t(columns.masks[own]), uint32_t(columns.masks[own] >> 32)};
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) mma_b1(sizes[tile], a[tile], all);
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) {
          uint64_t query = staged[column + c * 8 + g][own];
          uint32_t b[2] = {uint32_t(query), uint32_t(query >> 32)};
#pragma unroll
          for (int tile = 0; tile < TILES; tile++) mma_b1(sums[tile][c], a[tile], b);
        }
      }
    }
    if (unit >= units) continue;
    int times = both ? -1 : -2;
    const int2* bound = bounds + column / 2 + t;
    bool any[TILES][2] = {};
#pragma unroll
    for (int c = 0; c < COLUMNS; c++)
#pragma unroll
      for (int i = 0; i < TILES * 2; i++) {
        int size = both ? 0 : sizes[i / 2][i % 2 * 2];
        any[i / 2][i % 2] |= size + times * sums[i / 2][c][i % 2 * 2] <= bound[c * 4].x;
        any[i / 2][i % 2] |= size + times * sums[i / 2][c][i % 2 * 2 + 1] <= bound[c * 4].y;
      }
#pragma unroll
    for (int tile = 0; tile < TILES; tile++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        if (!__any_sync(EVERYBODY, any[tile][half])) continue;
        int size = both ? 0 : sizes[tile][half * 2];
#pragma unroll
        for (int c = 0; c < COLUMNS; c++)
#pragma unroll
          for (int j = 0; j < 2; j++) {
            int query = column + c * 8 + t * 2 + j, distance = size + times * sums[tile][c][half * 2 + j] + ones[query];
            if (distance <= limits[query]) found.push(query, g, distance);
          }
        __syncwarp();
        for (int e = lane; e < found.count; e += WARP) {
          uint32_t hit = found.hits[e];
          int query = hit >> 3 & 127;
          int64_t row = block * BLOCK + (mine % 2 * 16 + tile * 8 + hit % 8) * 2 + half;
          offer(s, first_query + query, row, int(hit >> 10), limits[query]);
        }
        __syncwarp();
        if (lane == 0) found.count = 0;
        __syncwarp();
      }
  }
}

template <int QUERIES>
void scan_few(const Scanned& s, Stream stream) {
  int64_t blocks = s.round.count(), grid = min(ceil_div<int64_t>(blocks, 8), int64_t(16 * multiprocessors()));
  launch(s.queries.what == AND ? few_kernel<QUERIES, true> : few_kernel<QUERIES, false>, grid, 256, 0, stream, s,
         blocks);
}

template <int COLUMNS, int ROWS, int QUERIES>
void scan_many(const Scanned& s, Stream stream) {
  int64_t groups = ceil_div<int64_t>(s.queries.nq, COLUMNS * QUERIES * 8), units = s.round.count() * 2;
  int64_t most = ceil_div<int64_t>(16 * multiprocessors(), groups);
  launch(many_kernel<COLUMNS, ROWS, QUERIES>, groups * min(ceil_div<int64_t>(units, ROWS), most), ROWS * QUERIES * WARP,
         0, stream, s, units, groups);
}

}  // namespace

void scan_bits(const BitPlane& plane, const BitQueries& queries, const Blocks& round, const RowSets& allowed,
               const Near& near, Stream stream) {
  Scanned s = {plane, queries, round, allowed, near};
  if (queries.nq == 0 || round.count() <= 0) return;
  if (queries.nq == 1) return scan_few<1>(s, stream);
  if (queries.nq == 2) return scan_few<2>(s, stream);
  if (queries.nq <= FEW) return scan_few<FEW>(s, stream);
  if (queries.nq <= 8) return scan_many<1, 8, 1>(s, stream);
  if (queries.nq <= 64) return scan_many<8, 8, 1>(s, stream);
  scan_many<8, 4, 2>(s, stream);
}

}  // namespace nestvec::cuda
