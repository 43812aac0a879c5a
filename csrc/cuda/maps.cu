#include "maps.h"

namespace nestvec::cuda {

namespace {

constexpr int THREADS = 128, PANEL = 16;

__global__ void __launch_bounds__(THREADS)
    rotate_kernel(FloatQueries queries, int64_t dims, Rotation how, int64_t room, double* turned) {
  double* staged = shared_memory<double>();
  double* row = turned + blockIdx.x * queries.stride;
  for (int64_t j = threadIdx.x; j < queries.stride; j += THREADS)
    row[j] = queries.values[blockIdx.x * queries.stride + j];
  __syncthreads();
  for (int64_t number = 0; number < how.count; number++) {
    Span span = how.spans[number];
    if (span.end > dims) continue;
    double *some = row + span.begin, *x = span.size <= room ? staged : some;
    for (int64_t j = threadIdx.x; j < span.size; j += THREADS) x[j] = some[j] * double(how.signs[span.signs + j]);
    __syncthreads();
    for (int64_t step = 1; step < span.size; step *= 2) {
      for (int64_t pair = threadIdx.x; pair < span.size / 2; pair += THREADS) {
        int64_t low = pair / step * step * 2 + pair % step;
        double a = x[low], b = x[low + step];
        x[low] = a + b;
        x[low + step] = a - b;
      }
      __syncthreads();
    }
    for (int64_t j = threadIdx.x; j < span.size; j += THREADS) some[j] = x[j] * how.scales[number];
    __syncthreads();
  }
}

// A block makes ROWS x COLUMNS values, a thread four of one column; both sides are widened when they are staged.
constexpr int ROWS = 32, COLUMNS = 32, DEPTH = 32, EACH = 4;

__global__ void __launch_bounds__(256, 2)
    multiply_kernel(FloatQueries x, int64_t d, const float* panels, int64_t dims, float* target, Check check) {
  __shared__ double left[ROWS][DEPTH], right[DEPTH][COLUMNS];
  int64_t groups = ceil_div<int64_t>(dims, COLUMNS);
  int64_t row0 = blockIdx.x / groups * ROWS, column0 = blockIdx.x % groups * COLUMNS;
  int column = threadIdx.x % COLUMNS, row = threadIdx.x / COLUMNS;
  double sums[EACH] = {};
  for (int64_t first = 0; first < d; first += DEPTH) {
    for (int i = threadIdx.x; i < ROWS * DEPTH; i += 256) {
      int64_t r = row0 + i / DEPTH, j = first + i % DEPTH;
      left[i / DEPTH][i % DEPTH] = r < x.nq && j < d ? x.values[r * x.stride + j] : 0;
      int64_t c = column0 + i % COLUMNS;
      j = first + i / COLUMNS;
      right[i / COLUMNS][i % COLUMNS] = c < dims && j < d ? panels[(c / PANEL * d + j) * PANEL + c % PANEL] : 0;
    }
    __syncthreads();
    int depth = int(d - first < DEPTH ? d - first : DEPTH);
    for (int j = 0; j < depth; j++) {
      double factor = right[j][column];
      for (int i = 0; i < EACH; i++) sums[i] += left[row + i * (ROWS / EACH)][j] * factor;
    }
    __syncthreads();
  }
  for (int i = 0; i < EACH; i++) {
    int64_t r = row0 + row + i * (ROWS / EACH), c = column0 + column;
    if (r < x.nq && c < dims) target[r * dims + c] = checked(float(sums[i]), r, check);
  }
}

__global__ void take_kernel(FloatQueries x, const int32_t* order, int64_t dims, float* target) {
  int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < x.nq * dims) target[i] = x.values[i / dims * x.stride + order[i % dims]];
}

}  // namespace

void rotate(const FloatQueries& queries, int64_t dims, const Rotation& how, double* turned, Stream stream) {
  int64_t room = 1;
  while (room < 4096 && room * 2 <= dims) room *= 2;  // 32 KB; larger spans are turned where they are
  launch(rotate_kernel, queries.nq, THREADS, room * sizeof(double), stream, queries, dims, how, room, turned);
}

void multiply_rows(const FloatQueries& x, int64_t d, const float* panels, int64_t dims, float* target,
                   const Check& check, Stream stream) {
  launch(multiply_kernel, ceil_div<int64_t>(x.nq, ROWS) * ceil_div<int64_t>(dims, COLUMNS), 256, 0, stream, x, d,
         panels, dims, target, check);
}

void take_columns(const FloatQueries& x, const int32_t* order, int64_t dims, float* target, Stream stream) {
  launch(take_kernel, ceil_div<int64_t>(x.nq * dims, THREADS), THREADS, 0, stream, x, order, dims, target);
}

}  // namespace nestvec::cuda
