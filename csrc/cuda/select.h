// The best of a query's list, by one block: radix select on keys of value and row, so that ties have one answer however
// the list was filled.
#pragma once
#include "numbers.h"

namespace nestvec::cuda {

constexpr int SELECTORS = 256;  // threads of a block that selects; a digit has as many values

// Sums of the values of this thread and all behind it in the block.
__device__ inline int sum_from_here(int value) {
  __shared__ int warps[SELECTORS / WARP];
  int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  for (int step = 1; step < WARP; step *= 2) {
    int other = __shfl_down_sync(EVERYBODY, value, step);
    if (lane + step < WARP) value += other;
  }
  if (lane == 0) warps[warp] = value;
  __syncthreads();
  for (int i = warp + 1; i < SELECTORS / WARP; i++) value += warps[i];
  __syncthreads();
  return value;
}

// A key that exactly `keep` of the keys reach: key(i), i < count, all different. keep is 1 to count.
// Up to eight passes of 8 bits, each counting the digit of keys that have the digits found so far; it ends as soon as
// all keys with these digits are wanted.
template <class Key>
__device__ uint64_t select_key(int count, int keep, Key key) {
  __shared__ int histogram[256];
  __shared__ int left, digit, same;
  uint64_t found = 0;
  if (threadIdx.x == 0) left = keep;
  for (int shift = 56; shift >= 0; shift -= 8) {
    histogram[threadIdx.x] = 0;
    __syncthreads();
    uint64_t above = shift == 56 ? 0 : ~uint64_t(0) << (shift + 8);
    for (int i = threadIdx.x; i < count; i += SELECTORS) {
      uint64_t mine = key(i);
      if ((mine & above) == (found & above)) atomicAdd(&histogram[mine >> shift & 255], 1);
    }
    __syncthreads();
    int mine = histogram[threadIdx.x], wanted = left, reached = sum_from_here(mine);
    if (reached >= wanted && reached - mine < wanted) {  // one thread's
      digit = threadIdx.x;
      left = wanted - (reached - mine);
      same = mine;
    }
    __syncthreads();
    found |= uint64_t(digit) << shift;
    bool all = same == left;
    __syncthreads();
    if (all) break;
  }
  return found;
}

// The place of each thread with `wanted` among those of the block, in their order, and how many there are.
__device__ inline int place_among(bool wanted, int& total) {
  __shared__ int before[SELECTORS / WARP + 1];
  unsigned votes = __ballot_sync(EVERYBODY, wanted);
  int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  if (lane == 0) before[warp + 1] = __popc(votes);
  __syncthreads();
  if (threadIdx.x == 0) {
    before[0] = 0;
    for (int i = 0; i < SELECTORS / WARP; i++) before[i + 1] += before[i];
  }
  __syncthreads();
  int place = before[warp] + __popc(votes & ((1u << lane) - 1));
  total = before[SELECTORS / WARP];
  __syncthreads();
  return place;
}

// Sorts n (a power of two) entries in shared memory, the best first; `before(a, b)`: a goes before b.
template <class Entry, class Before>
__device__ void sort_entries(Entry* entries, int n, Before before) {
  for (int size = 2; size <= n; size *= 2)
    for (int step = size / 2; step > 0; step /= 2) {
      __syncthreads();
      for (int i = threadIdx.x; i < n / 2; i += blockDim.x) {
        int low = i / step * step * 2 + i % step, high = low + step;
        bool descending = (low & size) == 0;
        if (before(entries[high], entries[low]) == descending) {
          Entry other = entries[low];
          entries[low] = entries[high];
          entries[high] = other;
        }
      }
    }
  __syncthreads();
}

}  // namespace nestvec::cuda
