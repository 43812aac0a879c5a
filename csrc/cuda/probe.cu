#include "probe.h"

#include "mma.h"

namespace nestvec::cuda {

static __global__ void warps_kernel(const int32_t* values, int by, int width, int limit, int32_t* shuffled,
                                    int32_t* votes) {
  int i = threadIdx.x, value = values[i];
  shuffled[i] = __shfl_sync(EVERYBODY, value, by, width);
  shuffled[PROBED + i] = __shfl_xor_sync(EVERYBODY, value, by, width);
  shuffled[2 * PROBED + i] = __shfl_up_sync(EVERYBODY, value, by, width);
  shuffled[3 * PROBED + i] = __shfl_down_sync(EVERYBODY, value, by, width);
  bool wanted = value < limit;
  votes[i] = int32_t(__ballot_sync(EVERYBODY, wanted));
  votes[PROBED + i] = __any_sync(EVERYBODY, wanted);
  votes[2 * PROBED + i] = __all_sync(EVERYBODY, wanted);
  votes[3 * PROBED + i] = __syncthreads_count(wanted);
  votes[4 * PROBED + i] = __syncthreads_or(wanted) != 0;
  votes[5 * PROBED + i] = __syncthreads_and(wanted) != 0;
}

void probe_warps(const int32_t* values, int by, int width, int limit, int32_t* shuffled, int32_t* votes,
                 Stream stream) {
  launch(warps_kernel, 1, PROBED, 0, stream, values, by, width, limit, shuffled, votes);
}

static __global__ void barriers_kernel(int32_t* values, int rounds, bool both) {
  int32_t* held = shared_memory<int32_t>();
  int i = threadIdx.x, value = values[i];
  for (int round = 0; round < rounds; round++) {
    held[i] = value;
    __syncthreads();
    value = held[(i + 37 * (round + 1)) % PROBED] + 1;
    value += __shfl_sync(EVERYBODY, value, (i * 7 + round) % WARP);
    if (both) __syncthreads();
  }
  values[i] = value;
}

void probe_barriers(int32_t* values, int rounds, bool both, Stream stream) {
  launch(barriers_kernel, 1, PROBED, PROBED * sizeof(int32_t), stream, values, rounds, both);
}

static __global__ void atomics_kernel(uint32_t* cells, uint32_t* places) {
  uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  places[i] = atomicAdd(&cells[0], 1u);
  atomicMax(&cells[1], i);
  atomicMin(&cells[2], i + 5);
  atomicOr(&cells[3], 1u << i % 32);
}

void probe_atomics(int blocks, uint32_t* cells, uint32_t* places, Stream stream) {
  launch(atomics_kernel, blocks, PROBED, 0, stream, cells, places);
}

template <class C, class Multiply>
__device__ void multiply_tile(const uint32_t* a, const uint32_t* b, C* c, Multiply multiply) {
  int lane = threadIdx.x, g = lane / 4, t = lane % 4;
  uint32_t rows[4] = {a[g * 8 + t], a[(g + 8) * 8 + t], a[g * 8 + 4 + t], a[(g + 8) * 8 + 4 + t]};
  uint32_t columns[2] = {b[g * 8 + t], b[g * 8 + 4 + t]};
  C* at[4] = {&c[g * 8 + 2 * t], &c[g * 8 + 2 * t + 1], &c[(g + 8) * 8 + 2 * t], &c[(g + 8) * 8 + 2 * t + 1]};
  C sums[4] = {*at[0], *at[1], *at[2], *at[3]};
  multiply(sums, rows, columns);
  for (int i = 0; i < 4; i++) *at[i] = sums[i];
}

static __global__ void mma_kernel(Product product, const uint32_t* a, const uint32_t* b, void* c) {
  auto whole = static_cast<int*>(c);
  auto real = static_cast<float*>(c);
  if (product == Product::u8s8) multiply_tile(a, b, whole, [](auto& x, auto& y, auto& z) { mma_u8s8(x, y, z); });
  if (product == Product::s8s8) multiply_tile(a, b, whole, [](auto& x, auto& y, auto& z) { mma_s8s8(x, y, z); });
  if (product == Product::f16) multiply_tile(a, b, real, [](auto& x, auto& y, auto& z) { mma_f16(x, y, z); });
  if (product == Product::bf16) multiply_tile(a, b, real, [](auto& x, auto& y, auto& z) { mma_bf16(x, y, z); });
}

void probe_mma(Product product, const uint32_t* a, const uint32_t* b, void* c, Stream stream) {
  launch(mma_kernel, 1, WARP, 0, stream, product, a, b, c);
}

#ifdef NESTVEC_CUDA_EMULATED

static int32_t deeper(int32_t level, volatile int32_t* values) {
  volatile int32_t room[1024];
  room[level % 1024] = level;
  return level < 0 ? room[0] : deeper(level + 1, values) + room[level % 1024] + values[0];
}

static void mistake_kernel(Mistake mistake, int32_t* values) {
  int i = threadIdx.x;
  if (mistake == Mistake::block_barrier && i != 40) __syncthreads();
  if (mistake == Mistake::warp_barrier && i != 40) __syncwarp();
  if (mistake == Mistake::two_barriers) {
    if (i < 64)
      __syncthreads();
    else
      __syncthreads();
  }
  if (mistake == Mistake::part_of_warp) __shfl_sync(0xffffu, i, 0);
  if (mistake == Mistake::part_of_block) __syncwarp();
  if (mistake == Mistake::exception && i == 40) throw std::runtime_error("thrown by a thread");
  if (mistake == Mistake::memory) values[PROBED + i] = i;
  if (mistake == Mistake::stack) values[i] = deeper(i, values);
  __syncthreads();
  values[i] = i;
}

void probe_mistake(Mistake mistake, int32_t* values, Stream stream) {
  launch(mistake_kernel, 2, mistake == Mistake::part_of_block ? PROBED - 1 : PROBED, 0, stream, mistake, values);
}

#endif

}  // namespace nestvec::cuda
