// Sums of tensor cores. A warp takes a document, 16 or 32 tokens and 32 dims at a time: tokens are rows of the product,
// straight from memory to registers, query tokens columns, split and laid out once, from shared memory. Lanes read 16
// consecutive bytes, so that a fragment's dims are in another order than its depth: in the same one for both factors.
//
// A token of 128 float16 dims is 256 bytes, 32 of them with 32 query tokens are 8 kB of shared memory and 64 products
// of 4096: a multiprocessor takes 550 cycles to read the rows, 64 for the columns and 105 for the products of one part.
#include "maxsim.h"
#include "tokens.h"

namespace nestvec::cuda {

namespace {

constexpr int WARPS = 8;
constexpr int STAGED = 96 * 1024;  // bytes of columns in shared memory, at most: two blocks fit
constexpr int64_t LONG = 16;       // documents for each multiprocessor: fewer are shared by the warps of a block
constexpr int BLOCKS = 4;          // for each multiprocessor

struct Scanned {
  Bags bags;
  Tiles tiles;
  Bundles bundles;
  Items items;
  RowSets allowed;
  Scores scores;
  bool staged;  // columns fit into shared memory
  bool team;    // a block's warps share a document
};

// The tokens of a document that a warp multiplies: `begin` and those behind it, then `step` further on, below `count`.
template <class Tokens>
struct Walk {
  const typename Tokens::Stored* tokens;  // from this lane's dims on
  const float* scales;                    // null: 1
  int count, begin, step;
};

// Tokens `row` + g and those 8, 16 and 24 further on; the last one again where there is none.
template <class Tokens>
__device__ void load(const Walk<Tokens>& walk, const Bags& bags, int row, int chunk,
                     typename Tokens::Raw (&raw)[Tokens::ROWS][2]) {
  int lane = threadIdx.x % WARP, dim = chunk * CHUNK;
  bool there = dim + lane % 4 * 8 < bags.dims;
#pragma unroll
  for (int i = 0; i < Tokens::ROWS * 2; i++) {
    auto source = walk.tokens + int64_t(min(row + i * 8 + lane / 4, walk.count - 1)) * bags.stride + dim;
    raw[i / 2][i % 2] = there ? *reinterpret_cast<const typename Tokens::Raw*>(source) : typename Tokens::Raw{};
  }
}

// c += 16 tokens times 8 columns, 32 dims.
template <class Tokens>
__device__ void multiply(float (&c)[4], const Words& a, const uint4& b) {
  uint32_t first[4] = {a[0].x, a[1].x, a[0].y, a[1].y}, first_columns[2] = {b.x, b.y};
  uint32_t second[4] = {a[0].z, a[1].z, a[0].w, a[1].w}, second_columns[2] = {b.z, b.w};
  Tokens::multiply(c, first, first_columns);
  Tokens::multiply(c, second, second_columns);
}

// All products of one chunk with one tile's parts, the small ones apart: they are not cut off at the large ones' end.
template <class Tokens>
__device__ void multiply_parts(float (&sums)[Tokens::ROWS][4], const Words (&a)[Tokens::PLANES][Tokens::ROWS],
                               const uint4* fragment, int parts) {
  uint4 b = fragment[0];
  if (parts > 1 || Tokens::PLANES > 1) {
    float small[Tokens::ROWS][4] = {};
#pragma unroll 1
    for (int part = parts - 1; part >= 0; part--) {
      b = fragment[part * WARP];
#pragma unroll
      for (int plane = Tokens::PLANES - 1; plane >= 0; plane--)
        if (part + plane > 0 && part + plane < 3)
#pragma unroll
          for (int i = 0; i < Tokens::ROWS; i++) multiply<Tokens>(small[i], a[plane][i], b);
    }
#pragma unroll
    for (int i = 0; i < Tokens::ROWS * 4; i++) sums[i / 4][i % 4] += small[i / 4][i % 4];
  }
#pragma unroll
  for (int i = 0; i < Tokens::ROWS; i++) multiply<Tokens>(sums[i], a[0][i], b);
}

// best: the largest sums of columns 2 t and 2 t + 1 of each tile with the tokens that this lane holds.
template <class Tokens, int COLUMNS>
__device__ void maxima(const Walk<Tokens>& walk, const Bags& bags, const uint4* columns, int tiles, int chunks,
                       int parts, float (&best)[COLUMNS][2]) {
  constexpr int ROWS = Tokens::ROWS;
  int lane = threadIdx.x % WARP;
  float sums[COLUMNS][ROWS][4] = {};
  typename Tokens::Raw raw[ROWS][2] = {};
  if (walk.begin < walk.count) load<Tokens>(walk, bags, walk.begin, 0, raw);
#pragma unroll 1
  for (int row = walk.begin; row < walk.count; row += walk.step) {
#pragma unroll 1
    for (int chunk = 0; chunk < chunks; chunk++) {
      Words a[Tokens::PLANES][ROWS];
#pragma unroll
      for (int i = 0; i < ROWS * 2; i++) {
        uint4 planes[Tokens::PLANES];
        Tokens::planes(raw[i / 2][i % 2], planes);
#pragma unroll
        for (int plane = 0; plane < Tokens::PLANES; plane++) a[plane][i / 2][i % 2] = planes[plane];
      }
      bool same = chunk + 1 < chunks;  // what comes next is under way while this is multiplied
      if (same || row + walk.step < walk.count)
        load<Tokens>(walk, bags, same ? row : row + walk.step, same ? chunk + 1 : 0, raw);
      const uint4* fragment = columns + chunk * parts * WARP + lane;
#pragma unroll
      for (int c = 0; c < COLUMNS; c++) {
        if (c < tiles) multiply_parts<Tokens>(sums[c], a, fragment, parts);
        fragment += chunks * parts * WARP;
      }
    }
#pragma unroll
    for (int i = 0; i < ROWS * 2; i++) {
      float scale = walk.scales ? walk.scales[min(row + i * 8 + lane / 4, walk.count - 1)] : 1;
#pragma unroll
      for (int c = 0; c < COLUMNS * 2; c++) {
        float& sum = sums[c / 2][i / 2][i % 2 * 2 + c % 2];
        best[c / 2][c % 2] = fmaxf(best[c / 2][c % 2], sum * scale);
        sum = 0;
      }
    }
  }
}

__device__ inline float rounded_up(double value) {
  if (!(value < HUGE_ESTIMATE)) return HUGE_ESTIMATE;
  if (value < -HUGE_ESTIMATE) return -HUGE_ESTIMATE;
  float rounded = float(value);
  return double(rounded) < value ? unordered(ordered(rounded) + 1) : rounded;
}

// A score, `there` or not, by one lane.
__device__ void emit(const Scanned& s, int query, int64_t item, int64_t doc, bool there, double sum, double error) {
  if (s.scores.out) {
    s.scores.out[query * s.scores.items + item] = there ? float(sum) : -INFINITY;
    return;
  }
  if (!there || !s.allowed.has(query, doc)) return;
  float norm = s.bags.norms[doc], bound = norm < INFINITY ? rounded_up(sum + error * norm) : HUGE_ESTIMATE;
  if (bound >= s.scores.lists.thresholds[query]) append(s.scores.lists, query, int32_t(doc), bound);
}

// The largest of what all lanes, and all warps of a team, have in each column; lanes 0 to 3 have it.
template <int COLUMNS>
__device__ void join(bool team, float (*held)[TILES * TILE], float (&best)[COLUMNS][2]) {
  int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
#pragma unroll
  for (int c = 0; c < COLUMNS * 2; c++)
    for (int width = 16; width >= 4; width /= 2)
      best[c / 2][c % 2] = fmaxf(best[c / 2][c % 2], __shfl_xor_sync(EVERYBODY, best[c / 2][c % 2], width));
  if (!team) return;
  __syncthreads();  // what was held before has been read
  if (lane < 4)
    for (int c = 0; c < COLUMNS * 2; c++) held[warp][c / 2 * TILE + lane * 2 + c % 2] = best[c / 2][c % 2];
  __syncthreads();
#pragma unroll
  for (int c = 0; c < COLUMNS * 2; c++)
    for (int i = 0; i < WARPS; i++)
      best[c / 2][c % 2] = fmaxf(best[c / 2][c % 2], held[i][c / 2 * TILE + lane % 4 * 2 + c % 2]);
}

// Scores of one bundle with one document, by a warp or a team.
template <class Tokens, int COLUMNS>
__device__ void score(const Scanned& s, const uint4* columns, int begin, int end, int item, int doc,
                      float (*held)[TILES * TILE]) {
  int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  int64_t first = s.bags.offsets[doc], dims = lane % 4 * 8;
  int rows = Tokens::ROWS * 16;
  int count = int(s.bags.offsets[doc + 1] - first), chunks = int(ceil_div<int64_t>(s.bags.dims, CHUNK));
  Walk<Tokens> walk = {static_cast<const typename Tokens::Stored*>(s.bags.tokens) + first * s.bags.stride + dims,
                       s.bags.scales ? s.bags.scales + first : nullptr, count, s.team ? warp * rows : 0,
                       s.team ? WARPS * rows : rows};
  double sum = 0, error = 0;
#pragma unroll 1
  for (int tile = begin; tile < end; tile += COLUMNS) {
    float best[COLUMNS][2];
    for (int c = 0; c < COLUMNS * 2; c++) best[c / 2][c % 2] = -INFINITY;
    int tiles = min(end - tile, COLUMNS), parts = int(s.tiles.parts);
    auto some = columns + int64_t(tile - begin) * (chunks * parts * WARP);
    maxima<Tokens, COLUMNS>(walk, s.bags, some, tiles, chunks, parts, best);
    join<COLUMNS>(s.team, held, best);
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) {
      if (c >= tiles) continue;
      const double* steps = s.tiles.steps + (tile + c) * TILE + lane % 4 * 2;
      double mine = steps[0] * best[c][0] + steps[1] * best[c][1];
      mine += __shfl_xor_sync(EVERYBODY, mine, 1);
      sum += mine + __shfl_xor_sync(EVERYBODY, mine, 2);
      error += s.tiles.errors[tile + c];
      int query = s.tiles.queries[tile + c];
      if (tile + c + 1 < end && s.tiles.queries[tile + c + 1] == query) continue;
      if (lane == 0 && (!s.team || warp == 0)) emit(s, query, item, doc, count > 0, sum, error);
      sum = error = 0;
    }
  }
}

template <class Tokens, int COLUMNS>
__global__ void __launch_bounds__(WARPS* WARP, 4 / (COLUMNS / 2)) scan_kernel(Scanned s) {
  __shared__ float held[WARPS][TILES * TILE];
  int bundles = int(s.bundles.count), bundle = blockIdx.x % bundles, slot = blockIdx.x / bundles;
  int slots = gridDim.x / bundles, begin = int(s.bundles.tiles[bundle]), end = int(s.bundles.tiles[bundle + 1]);
  int per_tile = int(ceil_div<int64_t>(s.bags.dims, CHUNK) * s.tiles.parts) * WARP;
  const uint4* columns = s.tiles.fragments + int64_t(begin) * per_tile;
  if (s.staged) {
    uint4* near = shared_memory<uint4>();
    for (int i = threadIdx.x; i < (end - begin) * per_tile; i += blockDim.x) near[i] = columns[i];
    columns = near;
    __syncthreads();
  }
  int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, first_query = s.tiles.queries[begin];
  int last_query = s.tiles.queries[end - 1];
  int item = int(s.items.first) + (s.team ? slot : slot * WARPS + warp), step = s.team ? slots : slots * WARPS;
#pragma unroll 1
  for (; item < s.items.last; item += step) {
    int64_t doc = s.items.docs ? s.items.docs[first_query * s.items.step + item] : item;
    bool found = doc >= 0 && doc < s.bags.n, wanted = false;
    for (int query = first_query; query <= last_query && found; query++) wanted |= s.allowed.has(query, doc);
    if (wanted)
      score<Tokens, COLUMNS>(s, columns, begin, end, item, int(doc), held);
    else if (lane == 0)
      for (int query = first_query; query <= last_query; query++) emit(s, query, item, doc, false, 0, 0);
  }
}

template <class Tokens, int COLUMNS>
void scan_as(Scanned s, Stream stream) {
  int64_t documents = s.items.last - s.items.first, parallel = multiprocessors();
  s.team = documents * s.bundles.count < LONG * parallel;
  int64_t bytes = s.bundles.widest * ceil_div<int64_t>(s.bags.dims, CHUNK) * s.tiles.parts * WARP * sizeof(uint4);
  s.staged = bytes <= STAGED;
  int64_t blocks = s.team ? documents : ceil_div<int64_t>(documents, WARPS);
  blocks = min(blocks, ceil_div(BLOCKS * parallel, s.bundles.count));
  launch(scan_kernel<Tokens, COLUMNS>, blocks * s.bundles.count, WARPS * WARP, s.staged ? bytes : 0, stream, s);
}

template <class Tokens>
void scan_tokens(Scanned s, Stream stream) {
  s.bundles.widest <= TILES / 2 ? scan_as<Tokens, TILES / 2>(s, stream) : scan_as<Tokens, TILES>(s, stream);
}

}  // namespace

void scan(const Bags& bags, const Tiles& tiles, const Bundles& bundles, const Items& items, const RowSets& allowed,
          const Scores& scores, Stream stream) {
  if (bundles.count == 0 || items.first >= items.last) return;
  Scanned s = {bags, tiles, bundles, items, allowed, scores, false, false};
  if (bags.type == FLOAT32) scan_tokens<F32Tokens>(s, stream);
  if (bags.type == FLOAT16) scan_tokens<F16Tokens>(s, stream);
  if (bags.type == BFLOAT16) scan_tokens<BF16Tokens>(s, stream);
  if (bags.type == INT8) scan_tokens<I8Tokens>(s, stream);
}

}  // namespace nestvec::cuda
