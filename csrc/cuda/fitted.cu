// What fitted encoders add: tokens less their mean, their projections, and probes of queries, whose few tokens are in
// several partitions each.
// Cost: a product is a multiplication and an addition, never fused, so a dim costs a warp 121 instructions for 7
// panels: 128 tokens of 128 dims with 320 columns need 3 * 8 warps * 128 * 121 / 4 = 93,000 cycles of a multiprocessor,
// at most 2.4M such documents a second on an H100.
#include "columns.h"
#include "fde.h"
#include "numbers.h"

namespace nestvec::cuda {

namespace {

constexpr float SLOPE = 2, LARGEST = 1e9f, LEAST = 0.1f;  // kernels/fitted.py
constexpr int PROBES = 10;                                // of a token in a repetition, at most
constexpr int SEEN = 16;                                  // tokens at a time

__global__ void centre_kernel(const float* x, int64_t n, int64_t dims, const float* mean, float* out, int32_t* beyond) {
  int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n * dims) return;
  float value = x[i] - mean[i % dims];
  out[i] = value;
  if (!isfinite(value)) *beyond = 1;
}

template <int P>
__global__ void __launch_bounds__(MULTIPLIERS, 2)
    project_kernel(TokenRows rows, const float* packed, int64_t count, int64_t passes, float* out) {
  float *tile = shared_memory<float>(), *columns = tile + DIMS * TOKENS;
  int64_t first = blockIdx.x / passes * TOKENS, panel = blockIdx.x % passes * P;
  float sums[HELD][P];
  uint32_t most[ROUNDS] = {};
  products<P, false>(rows, first, packed + panel * rows.dims * PANEL, count - panel, tile, columns, sums, most);
  int64_t token = first + threadIdx.x / PANEL * HELD;
#pragma unroll
  for (int i = 0; i < HELD; i++)
#pragma unroll
    for (int p = 0; p < P; p++)
      if (token + i < rows.n && panel + p < count)
        out[((token + i) * count + panel + p) * PANEL + threadIdx.x % PANEL] = sums[i][p];
}

// Partitions that a token is in with a weight above LEAST, in one repetition.
struct Probed {
  int count;
  uint32_t partitions[PROBES];
  float weights[PROBES];
  __device__ void add(uint32_t partition, float weight) {
    if (!(weight > LEAST)) return;
    partitions[count] = partition;
    weights[count++] = weight;
  }
};

// Partitions grow by a bit, of a Gray code, for each plane. `step`: from plane to plane.
__device__ inline Probed find_probes(const float* products, int64_t step, int k) {
  Probed now = {1, {0}, {1}};
  for (int j = 0; j < k; j++) {
    float u = SLOPE * products[j * step];
    if (fabsf(u) > LARGEST) u = u > 0 ? LARGEST : -LARGEST;
    float above = 0.5f + 0.5f * u / sqrtf(1.0f + u * u), below = 1.0f - above;
    Probed then = {0, {}, {}};
    for (int i = 0; i < now.count; i++) {
      uint32_t last = now.partitions[i] & 1;
      then.add(2 * now.partitions[i] + last, now.weights[i] * below);
      then.add(2 * now.partitions[i] + 1 - last, now.weights[i] * above);
    }
    now = then;
  }
  return now;
}

__device__ inline void squared_lengths(const float* x, int some, int64_t dims, float* squares) {
  int half = threadIdx.x / LANES, lane = threadIdx.x % LANES, halves = blockDim.x / LANES;
  for (int first = 0; first < some; first += halves) {
    int token = first + half;
    double sum = 0;
    for (int64_t j = lane; token < some && j < dims; j += LANES) {
      double value = x[token * dims + j];
      sum += value * value;
    }
    sum = fold(sum);
    if (token < some && lane == 0) squares[token] = float(sum);
  }
}

// One block a bag and group of repetitions; a thread owns a value of each block of its repetition.
template <bool LOCAL>
__global__ void probe_kernel(FdeProbes t, int64_t group) {
  __shared__ float squares[SEEN];
  const FdeShape& s = t.shape;
  int64_t groups = ceil_div(s.repetitions, group), bag = blockIdx.x / groups, first = blockIdx.x % groups * group;
  int64_t begin = t.bags.offsets[bag] - t.bags.base, end = t.bags.offsets[bag + 1] - t.bags.base;
  int count = int(s.repetitions - first < group ? s.repetitions - first : group);
  int64_t columns = count * s.width, size = columns << s.k;
  float* out = t.out + (bag * s.repetitions + first) * s.width * s.parts();
  Probed* found = shared_memory<Probed>();
  float* blocks = LOCAL ? reinterpret_cast<float*>(found + SEEN * group) : out;
  for (int64_t i = threadIdx.x; i < size; i += blockDim.x) blocks[i] = 0;
  for (int64_t token = begin; token < end; token += SEEN) {
    int some = int(end - token < SEEN ? end - token : SEEN);
    const float* projected = t.projected + token * t.stride;
    __syncthreads();  // others may still read what was found for the tokens before
    squared_lengths(t.x + token * t.dims, some, t.dims, squares);
    for (int i = threadIdx.x; i < some * count; i += blockDim.x) {
      const float* products = projected + i / count * t.stride + t.wide + first + i % count;
      found[i] = find_probes(products, s.repetitions, s.k);
    }
    __syncthreads();
    for (int64_t column = threadIdx.x; column < columns; column += blockDim.x) {
      int64_t r = column / s.width, at = first * s.width + column;
      float shift = t.shift[at], *own = blocks + r * s.parts() * s.width + column % s.width;
      for (int i = 0; i < some; i++) {
        const Probed& probes = found[i * count + r];
        float value = projected[i * t.stride + at] + shift;
        for (int j = 0; j < probes.count; j++)
          own[probes.partitions[j] * s.width] += probes.weights[j] * squares[i] * value;
      }
    }
  }
  __syncthreads();
  for (int64_t i = threadIdx.x; LOCAL && i < size; i += blockDim.x) out[i] = blocks[i];
}

}  // namespace

void centre_tokens(const float* x, int64_t n, int64_t dims, const float* mean, float* out, int32_t* beyond,
                   Stream stream) {
  launch(centre_kernel, ceil_div<int64_t>(n * dims, 256), 256, 0, stream, x, n, dims, mean, out, beyond);
}

void project_tokens(const float* x, int64_t n, int64_t dims, const float* panels, int64_t count, float* out,
                    Stream stream) {
  if (n == 0 || count == 0) return;
  with_panels(panels_of_pass(count), [&](auto some) {
    int64_t passes = ceil_div<int64_t>(count, some.value);
    launch(project_kernel<some.value>, ceil_div<int64_t>(n, TOKENS) * passes, MULTIPLIERS,
           (DIMS * TOKENS + some.value * DIMS * PANEL) * sizeof(float), stream, token_rows(x, n, dims), panels, count,
           passes, out);
  });
}

void encode_probes(const FdeProbes& t, size_t shared, Stream stream) {
  if (t.bags.n == 0) return;
  const FdeShape& s = t.shape;
  size_t each = SEEN * sizeof(Probed), blocks = size_t(s.parts() * s.width) * sizeof(float);
  size_t budget = each + blocks <= shared / 2 - 1024 ? shared / 2 - 1024 : shared - 1024;
  bool local = each + blocks <= budget;
  each += local ? blocks : 0;
  int64_t group = t.bags.n * s.repetitions / (4 * multiprocessors()), most = int64_t(budget / each);
  group = group < 1 ? 1 : group < s.repetitions ? group : s.repetitions;
  group = group < most ? group : most;
  group = ceil_div(s.repetitions, ceil_div(s.repetitions, group));
  launch(local ? probe_kernel<true> : probe_kernel<false>, t.bags.n * ceil_div(s.repetitions, group), 256,
         size_t(group) * each, stream, t, group);
}

}  // namespace nestvec::cuda
