// CUDA's words for an ordinary compiler. A block runs at a time, its threads as fibers that are switched at barriers,
// so a kernel needs its barriers here as it does there: between two of them threads run one after the other, warp by
// warp. NESTVEC_EMULATED_ORDER=backwards runs lanes and warps in the other order, which shows barriers that are
// missing.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(size_t x = 1, size_t y = 1, size_t z = 1) : x(unsigned(x)), y(unsigned(y)), z(unsigned(z)) {}
};

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};

namespace emulated {

struct Place {
  dim3 thread, block, block_size, grid;
};

extern Place place;  // of the fiber that runs

void run(dim3 grid, dim3 block, size_t shared, const std::function<void()>& thread);
void* dynamic_shared();
size_t memory_left();
void limit_memory(size_t bytes);

void block_barrier();
void warp_barrier();
uint64_t* slots();  // of the warp that runs, one for each lane
int lane();

// What lane `from` of each group of `width` lanes brought.
template <class T>
T exchange(T value, int from) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  T result;
  memcpy(&slots()[lane()], &value, sizeof(T));
  warp_barrier();
  memcpy(&result, &slots()[from], sizeof(T));
  warp_barrier();
  return result;
}

inline int within(int width, int to) { return lane() / width * width + to; }

}  // namespace emulated

#define threadIdx (::emulated::place.thread)
#define blockIdx (::emulated::place.block)
#define blockDim (::emulated::place.block_size)
#define gridDim (::emulated::place.grid)

inline void __syncthreads() { ::emulated::block_barrier(); }
inline void __syncwarp(unsigned = ~0u) { ::emulated::warp_barrier(); }

template <class T>
T __shfl_sync(unsigned, T value, int from, int width = 32) {
  return ::emulated::exchange(value, ::emulated::within(width, from & (width - 1)));
}

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask, int width = 32) {
  int to = (::emulated::lane() % width) ^ mask;
  return ::emulated::exchange(value, to < width ? ::emulated::within(width, to) : ::emulated::lane());
}

template <class T>
T __shfl_down_sync(unsigned, T value, int by, int width = 32) {
  int to = ::emulated::lane() % width + by;
  return ::emulated::exchange(value, to < width ? ::emulated::within(width, to) : ::emulated::lane());
}

template <class T>
T __shfl_up_sync(unsigned, T value, int by, int width = 32) {
  int to = ::emulated::lane() % width - by;
  return ::emulated::exchange(value, to >= 0 ? ::emulated::within(width, to) : ::emulated::lane());
}

inline unsigned __ballot_sync(unsigned, int predicate) {
  ::emulated::slots()[::emulated::lane()] = predicate != 0;
  ::emulated::warp_barrier();
  unsigned result = 0;
  for (int i = 0; i < 32; i++) result |= unsigned(::emulated::slots()[i]) << i;
  ::emulated::warp_barrier();
  return result;
}

inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, !predicate) == 0; }
inline int __syncthreads_or(int predicate) {
  static int result;
  ::emulated::block_barrier();
  result = 0;
  ::emulated::block_barrier();
  if (predicate) result = 1;
  ::emulated::block_barrier();
  return result;
}

template <class T>
T atomicAdd(T* target, T value) {
  T before = *target;
  *target = T(before + value);
  return before;
}

template <class T>
T atomicMax(T* target, T value) {
  T before = *target;
  if (value > before) *target = value;
  return before;
}

template <class T>
T atomicMin(T* target, T value) {
  T before = *target;
  if (value < before) *target = value;
  return before;
}

template <class T>
T atomicOr(T* target, T value) {
  T before = *target;
  *target = before | value;
  return before;
}

template <class T>
T atomicExch(T* target, T value) {
  T before = *target;
  *target = value;
  return before;
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
template <class T>
T __ldg(const T* source) {
  return *source;
}

template <class To, class From>
To emulated_cast(From value) {
  To result;
  static_assert(sizeof(To) == sizeof(From));
  memcpy(&result, &value, sizeof(To));
  return result;
}
inline unsigned __float_as_uint(float x) { return emulated_cast<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return emulated_cast<float>(x); }
inline long long __double_as_longlong(double x) { return emulated_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return emulated_cast<double>(x); }

using std::isfinite;
template <class A, class B>
auto min(A a, B b) {
  return b < a ? b : a;
}
template <class A, class B>
auto max(A a, B b) {
  return a < b ? b : a;
}
