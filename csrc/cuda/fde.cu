// Sums of the tokens in each partition.
// Cost: 128 tokens of 128 dims with 20 repetitions of 16 values are 10,240 additions of a warp, with about 6
// instructions each, then 1,280 to blocks in shared memory: 17,000 cycles of a multiprocessor, at most 13M documents a
// second on an H100.
#include "fde.h"

namespace nestvec::cuda {

namespace {

constexpr int ROW = WARP + 1;  // 32 tokens side by side, and a place that keeps columns in banks of their own

// How a block encodes one bag in some repetitions.
struct Layout {
  int64_t group;  // repetitions
  bool staged;    // tokens in shared memory, where a sketch reads them
  bool local;     // blocks in shared memory, and counts of their tokens
  int warps;
  size_t bytes;
};

// Sum of the coordinates of one column, in their order.
template <class Step>
__device__ float sketched(const FdeSketch& sketch, int64_t column, const float* from, Step step) {
  float sum = 0;
  int64_t end = sketch.starts[column + 1];
#pragma unroll 4
  for (int64_t at = sketch.starts[column]; at < end; at++) {
    auto entry = uint32_t(__ldg(sketch.entries + at));
    sum += __uint_as_float(__float_as_uint(from[Step(entry & 0x7fffffffu) * step]) ^ (entry & 0x80000000u));
  }
  return sum;
}

// Tokens of a bag, and a share of the repetitions, as a block encodes them.
struct Share {
  int64_t begin, tokens, first;
  int count, columns;  // repetitions; values of a token in all of them
  __device__ Share(const FdeBags& bags, const FdeShape& shape, int64_t group) {
    int64_t groups = ceil_div(shape.repetitions, group), bag = blockIdx.x / groups;
    first = blockIdx.x % groups * group;
    count = int(shape.repetitions - first < group ? shape.repetitions - first : group);
    columns = int(count * shape.width);
    begin = bags.offsets[bag] - bags.base;
    tokens = bags.offsets[bag + 1] - bags.offsets[bag];
  }
};

// What a warp found when it looked through a repetition's partitions: how many tokens are in one, and the token whose
// sign bits differ least from it, the first of several.
struct Looked {
  int64_t equal, nearest;
  __device__ Looked(const FdeTask& t, const Share& share, int64_t r, uint32_t partition) {
    uint64_t best = ~uint64_t(0), count = 0;
    for (int64_t i = threadIdx.x % WARP; i < share.tokens; i += WARP) {
      uint32_t other = __ldg(t.partitions + (share.begin + i) * t.shape.repetitions + share.first + r);
      uint32_t differing = (other ^ (other >> 1)) ^ (partition ^ (partition >> 1));
      uint64_t key = uint64_t(__popc(differing)) << 32 | uint64_t(i);
      if (key < best) best = key;
      count += differing == 0;
    }
    for (int lanes = WARP / 2; lanes > 0; lanes /= 2) {
      uint64_t other = __shfl_xor_sync(EVERYBODY, best, lanes);
      if (other < best) best = other;
      count += __shfl_xor_sync(EVERYBODY, count, lanes);
    }
    equal = int64_t(count);
    nearest = int64_t(best & 0xffffffffu);
  }
};

// n or n^0.75, by operations that round correctly everywhere.
__device__ inline float divisor_of(int64_t n, FdeMode mode) {
  double root = sqrt(double(n));
  return mode == FDE_MEAN ? float(n) : float(root * sqrt(root));
}

// Values of blocks as they are returned, a warp for a block.
template <bool SKETCHED, bool LOCAL>
__device__ void finish(const FdeTask& t, const Share& share, const float* blocks, const int* counts, float* out) {
  int64_t width = t.shape.width;
  for (int64_t b = threadIdx.x / WARP; b < share.count * t.shape.parts(); b += blockDim.x / WARP) {
    int64_t r = b >> t.shape.k, n = LOCAL ? counts[b] : 0, column = (share.first + r) * width;
    const float* token = nullptr;
    if (!LOCAL || (n == 0 && t.fill)) {
      Looked looked(t, share, r, uint32_t(b & (t.shape.parts() - 1)));
      n = looked.equal;
      if (n == 0 && t.fill && share.tokens) token = t.x + (share.begin + looked.nearest) * t.dims;
    }
    float divisor = n > 1 && t.mode != FDE_SUM ? divisor_of(n, t.mode) : 1;
    for (int64_t c = threadIdx.x % WARP; c < width; c += WARP) {
      float value = blocks[b * width + c] / divisor;
      if (token)
        value = 0 + (SKETCHED ? sketched(t.ams, column + c, token, int64_t(1)) : token[(share.first + r) * t.step + c]);
      out[b * width + c] = value;
    }
  }
}

// One block a bag and group of repetitions. A lane owns a value of each block of its repetition, and adds tokens in
// order; where these are sketched, its warp does so for 32 tokens and 32 columns first, a token a lane.
template <bool SKETCHED, bool LOCAL>
__global__ void encode_kernel(FdeTask t, Layout l) {
  Share share(t.bags, t.shape, l.group);
  int64_t bag = blockIdx.x / ceil_div(t.shape.repetitions, l.group), width = t.shape.width, parts = t.shape.parts();
  float* out = t.out + (bag * t.shape.repetitions + share.first) * parts * width;
  float *shared = shared_memory<float>(), *blocks = LOCAL ? shared : out;
  int* counts = reinterpret_cast<int*>(shared + l.group * parts * width);
  float *tile = LOCAL ? shared + l.group * parts * (width + 1) : shared, *sketches = tile + l.staged * t.dims * ROW;
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  for (int64_t i = threadIdx.x; i < share.count * parts * width; i += blockDim.x) blocks[i] = 0;
  for (int64_t i = threadIdx.x; LOCAL && i < share.count * parts; i += blockDim.x) counts[i] = 0;
  __syncthreads();
  for (int64_t i = warp; LOCAL && i < share.tokens; i += l.warps)
    for (int r = lane; r < share.count; r += WARP)
      atomicAdd(&counts[r * parts + t.partitions[(share.begin + i) * t.shape.repetitions + share.first + r]], 1);
  for (int64_t first = 0; first < share.tokens; first += WARP) {
    int some = int(share.tokens - first < WARP ? share.tokens - first : WARP), mine = lane < some ? lane : some - 1;
    const float* x = t.x + (share.begin + first) * t.dims;
    const uint32_t* partitions = t.partitions + (share.begin + first) * t.shape.repetitions + share.first;
    if (SKETCHED && l.staged) {
      __syncthreads();  // others may still read the tokens before these
      for (int i = warp; i < some; i += l.warps)
        for (int64_t j = lane; j < t.dims; j += WARP) tile[j * ROW + i] = x[i * t.dims + j];
      __syncthreads();
    }
    for (int base = warp * WARP; base < share.columns; base += l.warps * WARP) {
      int column = base + lane, r = int(column / width);
      int64_t c = column % width;
      float* rows = sketches + warp * WARP * ROW;
      for (int i = 0; SKETCHED && i < WARP && base + i < share.columns; i++) {
        int64_t of = share.first * width + base + i;
        rows[i * ROW + lane] =
            l.staged ? sketched(t.ams, of, tile + mine, ROW) : sketched(t.ams, of, x + mine * t.dims, int64_t(1));
      }
      if (SKETCHED) __syncwarp();
      float* own = blocks + r * parts * width + c;
      const float* values = x + (share.first + r) * t.step + c;
#pragma unroll 4
      for (int i = 0; i < some && column < share.columns; i++) {
        uint32_t partition = __ldg(partitions + i * t.shape.repetitions + r);
        own[partition * width] += SKETCHED ? rows[lane * ROW + i] : __ldg(values + i * t.dims);
      }
      if (SKETCHED) __syncwarp();
    }
  }
  __syncthreads();
  if (LOCAL || t.mode != FDE_SUM || t.fill) finish<SKETCHED, LOCAL>(t, share, blocks, counts, out);
}

// As many repetitions a block as keep the device busy, and as their blocks fit into half of a multiprocessor's shared
// memory, or all of it.
Layout layout_of(const FdeTask& t, bool is_sketched, size_t shared) {
  const FdeShape& s = t.shape;
  auto warps_of = [&](int64_t group) {
    int64_t wanted = ceil_div<int64_t>(group * s.width, WARP), most = is_sketched ? 10 : 16;
    return wanted < 4 ? 4 : wanted < most ? wanted : most;
  };
  int64_t group = t.bags.n * s.repetitions / (4 * multiprocessors());
  group = group < 1 ? 1 : group < s.repetitions ? group : s.repetitions;
  size_t each = size_t(s.parts() * (s.width + 1)) * sizeof(float), tile = size_t(t.dims) * ROW * sizeof(float);
  size_t fixed = is_sketched ? size_t(warps_of(group)) * WARP * ROW * sizeof(float) : 0;
  bool staged = is_sketched && fixed + tile <= shared;
  fixed += staged ? tile : 0;
  size_t half = shared / 2 - 1024, budget = fixed + each <= half ? half : shared;
  bool local = fixed + each <= budget;
  if (local && int64_t((budget - fixed) / each) < group) group = int64_t((budget - fixed) / each);
  group = ceil_div(s.repetitions, ceil_div(s.repetitions, group));
  return {group, staged, local, int(warps_of(group)), fixed + (local ? size_t(group) * each : 0)};
}

__global__ void sketch_kernel(const float* rows, int64_t n, int64_t size, FdeSketch sketch, int64_t columns,
                              float* out) {
  int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n * columns) out[i] = sketched(sketch, i % columns, rows + i / columns * size, int64_t(1));
}

}  // namespace

void encode_bags(const FdeTask& t, size_t shared, Stream stream) {
  if (t.bags.n == 0) return;
  bool is_sketched = t.ams.entries != nullptr;
  Layout l = layout_of(t, is_sketched, shared);
  auto kernel = is_sketched ? l.local ? encode_kernel<true, true> : encode_kernel<true, false>
                : l.local   ? encode_kernel<false, true>
                            : encode_kernel<false, false>;
  launch(kernel, t.bags.n * ceil_div(t.shape.repetitions, l.group), l.warps * WARP, l.bytes, stream, t, l);
}

void sketch_rows(const float* rows, int64_t n, int64_t size, const FdeSketch& sketch, int64_t columns, float* out,
                 Stream stream) {
  launch(sketch_kernel, ceil_div<int64_t>(n * columns, 256), 256, 0, stream, rows, n, size, sketch, columns, out);
}

}  // namespace nestvec::cuda
