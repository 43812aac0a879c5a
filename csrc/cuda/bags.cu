// What scans of bags need: norms of documents, query tokens split into halves.
#include "maxsim.h"

namespace nestvec::cuda {

namespace {

constexpr int THREADS = 256, WARPS = THREADS / WARP;
constexpr double GROW = 1 + 0x1p-19, TINY = 1e-30;  // float64 sums and their rounding; what products lose below it
constexpr double LARGE = 1e30;                      // products with a query's parts stay finite

__device__ double summed(double value) {
  for (int width = WARP / 2; width > 0; width /= 2) value += __shfl_xor_sync(EVERYBODY, value, width);
  return value;
}

// A warp a document.
template <class Rows>
__global__ void measure_kernel(Bags bags, float* norms, long long* bad, int32_t* irregular) {
  int lane = threadIdx.x % WARP;
  auto tokens = static_cast<const typename Rows::Stored*>(bags.tokens);
  for (int64_t doc = blockIdx.x * WARPS + threadIdx.x / WARP; doc < bags.n; doc += int64_t(gridDim.x) * WARPS) {
    double largest = TINY;
    for (int64_t token = bags.offsets[doc]; token < bags.offsets[doc + 1]; token++) {
      double square = 0, scale = bags.scales ? fabs(double(bags.scales[token])) : 1;
      for (int64_t j = lane; j < bags.dims; j += WARP) {
        double value = Rows::widened(tokens[token * bags.stride + j]);
        square += value * value;
      }
      double norm = sqrt(summed(square));
      if (!(norm * scale < INFINITY) && lane == 0) atomicMin(bad, (long long)token);
      largest = fmax(largest, norm * scale * GROW + TINY * fmax(scale, 1.0));
      if (norm > LARGE || scale > LARGE || largest > LARGE) largest = INFINITY;
    }
    if (lane != 0) continue;
    norms[doc] = largest < INFINITY ? unordered(ordered(float(largest)) + 1) : INFINITY;
    if (!(largest < INFINITY)) *irregular = 1;
  }
}

template <class Rows>
void measure_as(const Bags& bags, float* norms, long long* bad, int32_t* irregular, Stream stream) {
  int64_t blocks = min(ceil_div<int64_t>(bags.n, WARPS), int64_t(16) * multiprocessors());
  launch(measure_kernel<Rows>, blocks, THREADS, 0, stream, bags, norms, bad, irregular);
}

// The nearest float16, to even, of what is below 65504.
__device__ uint32_t f16_of(float value) {
  uint32_t bits = __float_as_uint(value), sign = bits >> 16 & 0x8000u, rest = bits & 0x7fffffffu;
  if (rest < 0x38800000u)  // subnormal: a multiple of 2^-24, which float32 rounds to by itself when 2^23 is added
    return sign | (__float_as_uint(__uint_as_float(rest) * 0x1p24f + 0x1p23f) & 0x7fffffu);
  return sign | (((rest + 0xfffu + (rest >> 13 & 1)) >> 13) - (112u << 10));
}

__device__ uint32_t bf16_of(float value) {
  uint32_t bits = __float_as_uint(value);
  return (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
}

// A block a tile, a warp a token.
__global__ void split_kernel(QueryBags queries, int64_t dims, bool half, Tiles tiles) {
  __shared__ double errors[TILE];
  int lane = threadIdx.x % WARP, column = threadIdx.x / WARP;
  int64_t tile = blockIdx.x, query = tiles.queries[tile], chunks = ceil_div<int64_t>(dims, CHUNK);
  int64_t token = queries.offsets[query] + (tile - queries.tiles[query]) * TILE + column;
  bool there = token < queries.offsets[query + 1];
  const float* q = queries.tokens + token * dims;
  uint32_t largest = 0;
  for (int64_t j = lane; j < dims && there; j += WARP) largest = max(largest, __float_as_uint(q[j]) & 0x7fffffffu);
  for (int width = WARP / 2; width > 0; width /= 2) largest = max(largest, __shfl_xor_sync(EVERYBODY, largest, width));
  // its power of two, but for 14 bits: parts are below 2^15, and least of all subnormal
  long long exponent = __double_as_longlong(double(__uint_as_float(largest))) >> 52;
  double step = largest ? __longlong_as_double((exponent - 14) << 52) : 0;
  double inverse = largest ? __longlong_as_double((2046 - exponent + 14) << 52) : 0;
  auto words = reinterpret_cast<uint16_t*>(tiles.fragments + tile * chunks * tiles.parts * WARP);
  double square = 0, left = 0;
  for (int64_t j = lane; j < chunks * CHUNK; j += WARP) {
    double value = there && j < dims ? double(q[j]) * inverse : 0;
    square += value * value;
    for (int64_t part = 0; part < tiles.parts; part++) {
      uint32_t bits = half ? f16_of(float(value)) : bf16_of(float(value));
      value -= half ? widened_f16(uint16_t(bits)) : widened_bf16(uint16_t(bits));
      int64_t place = (j / CHUNK * tiles.parts + part) * WARP + column * 4 + j % CHUNK / 8;
      words[place * 8 + j % 8] = uint16_t(bits);
    }
    left += value * value;
  }
  square = summed(square);
  left = summed(left);
  if (lane == 0) {
    errors[column] = step * (sqrt(left) + 1.25 * 0x1p-22 * double(chunks * CHUNK) * sqrt(square)) * GROW;
    tiles.steps[tile * TILE + column] = step;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  double sum = 0;
  for (int i = 0; i < TILE; i++) sum += errors[i];
  tiles.errors[tile] = sum;
}

__global__ void pad_kernel(const uint8_t* rows, int64_t bytes, uint8_t* target, int64_t target_bytes, int64_t n) {
  int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n * target_bytes; i += step) {
    int64_t row = i / target_bytes, at = i % target_bytes;
    target[i] = at < bytes ? rows[row * bytes + at] : 0;
  }
}

}  // namespace

void pad_rows(const void* rows, int64_t bytes, void* target, int64_t target_bytes, int64_t n, Stream stream) {
  if (n == 0) return;
  int64_t blocks = min(ceil_div<int64_t>(n * target_bytes, THREADS), int64_t(32) * multiprocessors());
  launch(pad_kernel, blocks, THREADS, 0, stream, static_cast<const uint8_t*>(rows), bytes,
         static_cast<uint8_t*>(target), target_bytes, n);
}

void measure(const Bags& bags, float* norms, long long* bad, int32_t* irregular, Stream stream) {
  if (bags.n == 0) return;
  if (bags.type == FLOAT32) measure_as<F32>(bags, norms, bad, irregular, stream);
  if (bags.type == FLOAT16) measure_as<F16>(bags, norms, bad, irregular, stream);
  if (bags.type == BFLOAT16) measure_as<BF16>(bags, norms, bad, irregular, stream);
  if (bags.type == INT8) measure_as<I8>(bags, norms, bad, irregular, stream);
}

void split(const QueryBags& queries, int64_t dims, int type, const Tiles& tiles, Stream stream) {
  if (tiles.count == 0) return;
  launch(split_kernel, tiles.count, TILE * WARP, 0, stream, queries, dims, type == FLOAT16, tiles);
}

}  // namespace nestvec::cuda
