// Sums that must be added in the order of dims are added by one thread, from shared memory, to which the others bring
// the products: a float64 addition takes a few cycles, so a query of a thousand dims takes some microseconds, and all
// queries take them at the same time.
#include "queries.h"

namespace nestvec::cuda {

namespace {

constexpr int THREADS = 128, CHUNK = 1024, ALIGN = 64;
constexpr double CODE_MAX = 127, MARGIN = 0x1p-16;

template <class T, class Combine>
__device__ T reduce(T mine, Combine combine) {
  __shared__ T parts[THREADS / WARP];
  for (int width = WARP / 2; width > 0; width /= 2) mine = combine(mine, __shfl_xor_sync(EVERYBODY, mine, width));
  __syncthreads();  // the last call's parts have been read
  if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = mine;
  __syncthreads();
  mine = parts[0];
  for (int i = 1; i < THREADS / WARP; i++) mine = combine(mine, parts[i]);
  return mine;
}

template <class T>
__device__ T largest_of(T mine) {
  return reduce(mine, [](T a, T b) { return a < b ? b : a; });
}

template <class T>
__device__ T sum_of(T mine) {  // of integers
  return reduce(mine, [](T a, T b) { return a + b; });
}

// One block a query: values in units of the step, whose squares, and those of what rounding leaves, thread 0 adds up.
__global__ void __launch_bounds__(THREADS)
    pack_kernel(FloatQueries queries, const int64_t* bounds, int64_t levels, int metric, PackedQueries to) {
  __shared__ double squares[CHUNK], rests[CHUNK];
  int64_t query = blockIdx.x;
  const float* q = queries.values + query * queries.stride;
  float most = 0;
  for (int64_t j = threadIdx.x; j < bounds[levels - 1]; j += THREADS) most = fmaxf(most, fabsf(q[j]));
  double largest = largest_of(most), step = largest > 0 ? largest / CODE_MAX : 1.0;
  double square = 0, error = 0, behind = 0, norm = 0;  // of thread 0
  int total = 0;
  int64_t at = 0, below = 0;
  float* stats = to.stats + query;
  for (int64_t level = 0; level < levels; level++) {
    int64_t end = bounds[level];
    for (int64_t first = below; first < end; first += CHUNK) {
      int count = int(end - first < CHUNK ? end - first : CHUNK), sum = 0;
      for (int i = threadIdx.x; i < count; i += THREADS) {
        double value = double(q[first + i]) / step, code = rint(value);
        squares[i] = value * value;
        rests[i] = (value - code) * (value - code);
        to.codes[query * to.width + at + first - below + i] = int8_t(int(code));
        sum += int(code);
      }
      total += sum_of(sum);
      if (threadIdx.x == 0)
        for (int i = 0; i < count; i++) {
          square += squares[i];
          error += rests[i];
        }
      __syncthreads();
    }
    at += ceil_div<int64_t>(end - below, ALIGN) * ALIGN;
    below = end;
    if (threadIdx.x != 0) continue;
    norm = sqrt(square);
    double left = sqrt(error);
    to.sums[level * to.padded + query] = total;
    stats[level * to.padded] = float((norm + left) * (1.0 + MARGIN));
    stats[(levels + level) * to.padded] = float(left * (1.0 + MARGIN) + norm * MARGIN);
  }
  for (int64_t level = levels - 2; level >= 0; level--) {
    for (int64_t first = bounds[level]; first < bounds[level + 1]; first += CHUNK) {
      int count = int(bounds[level + 1] - first < CHUNK ? bounds[level + 1] - first : CHUNK);
      for (int i = threadIdx.x; i < count; i += THREADS) {
        double value = double(q[first + i]) / step;
        squares[i] = value * value;
      }
      __syncthreads();
      if (threadIdx.x == 0)
        for (int i = 0; i < count; i++) behind += squares[i];
      __syncthreads();
    }
    if (threadIdx.x == 0) stats[(2 * levels + level) * to.padded] = float(sqrt(behind) * (1.0 + MARGIN));
  }
  if (threadIdx.x != 0) return;
  double inverse = 1.0 / step;
  stats[3 * levels * to.padded] = float(inverse < 3e38 ? inverse : 3e38);
  to.multiply[query] = metric == COSINE ? norm : (metric == L2 ? 0.5 / step : inverse);
  to.offset[query] = metric == L2 ? 0.5 * norm * norm * step : 0.0;
}

struct Value {
  const float* plain;
  const double *turned, *center;
  __device__ double source(int64_t j) const { return turned ? turned[j] : double(plain[j]); }
  __device__ double shifted(int64_t j) const { return center ? source(j) - center[j] : source(j); }
};

__global__ void __launch_bounds__(THREADS) encode_kernel(FloatQueries queries, Encoding how, Encoded to) {
  __shared__ double squares[CHUNK], products[CHUNK];
  int64_t query = blockIdx.x;
  bool l2 = how.metric == L2;
  Value value = {queries.values + query * queries.stride, how.turned ? how.turned + query * queries.stride : nullptr,
                 l2 ? how.center : nullptr};
  double most = 0;
  for (int64_t j = threadIdx.x; j < how.widest; j += THREADS) {
    double size = fabs(value.shifted(j));
    most = most < size ? size : most;
  }
  double largest = largest_of(most), step = (largest == 0 ? 1.0 : largest) / how.largest;
  double square = 0, product = 0;  // of thread 0
  int64_t sum = 0, at = 0, below = 0;
  for (int64_t level = 0; level < how.levels; level++) {
    int64_t width = ceil_div<int64_t>(how.bounds[level] - below, ALIGN) * ALIGN;
    int64_t end = how.bounds[level] < how.dims ? how.bounds[level] : how.dims;
    for (int64_t first = below; first < below + width; first += CHUNK) {
      int room = int(below + width - first < CHUNK ? below + width - first : CHUNK);
      int count = int(end - first < room ? (end > first ? end - first : 0) : room);
      for (int i = threadIdx.x; i < room; i += THREADS) {
        int code = 0;
        if (i < count) {
          double used = value.shifted(first + i);
          code = int(rint(used / step));
          squares[i] = used * used;
          products[i] = how.center ? value.source(first + i) * how.center[first + i] : 0;
        }
        to.codes[query * to.width + at + first - below + i] = int8_t(code);
        sum += code;
      }
      __syncthreads();
      if (threadIdx.x == 0)
        for (int i = 0; i < count; i++) {
          square += squares[i];
          product += products[i];
        }
      __syncthreads();
    }
    at += width;
    below = how.bounds[level];
  }
  sum = sum_of(sum);
  if (threadIdx.x != 0) return;
  double lift = 0, unit = step, offset = product;
  if (l2) {
    lift = -1 / step;
    unit = 2 * step;
    offset = -square;
  } else if (how.metric == COSINE) {
    lift = product / step;
    unit = square > 0 ? step / sqrt(square) : 0.0;
    offset = 0;
  }
  constexpr double LIMIT = 0x1.fffffep127;
  to.lifts[query] = float(lift < -LIMIT ? -LIMIT : (lift > LIMIT ? LIMIT : lift));
  to.shifts[query] = int64_t(rint(how.shift * double(sum)));
  to.units[query] = unit;
  to.offsets[query] = offset;
}

__global__ void digits_kernel(const int8_t* codes, int64_t words, int digits, int64_t count, uint64_t* target) {
  int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  int64_t query = i / (words * digits);
  int digit = int(i / words % digits);
  const int8_t* some = codes + (query * words + i % words) * 64;
  uint64_t word = 0;
  for (int j = 0; j < 64; j++) word = word << 1 | (uint8_t(some[j]) >> digit & 1);
  target[i] = word;
}

}  // namespace

void pack_queries(const FloatQueries& queries, const int64_t* bounds, int64_t levels, int metric,
                  const PackedQueries& to, Stream stream) {
  launch(pack_kernel, queries.nq, THREADS, 0, stream, queries, bounds, levels, metric, to);
}

void encode_queries(const FloatQueries& queries, const Encoding& how, const Encoded& to, Stream stream) {
  launch(encode_kernel, queries.nq, THREADS, 0, stream, queries, how, to);
}

void split_digits(const int8_t* codes, int64_t nq, int64_t width, int digits, uint64_t* words, Stream stream) {
  int64_t count = nq * digits * (width / 64);
  launch(digits_kernel, ceil_div<int64_t>(count, THREADS), THREADS, 0, stream, codes, width / 64, digits, count, words);
}

}  // namespace nestvec::cuda
