// CUDA's words for an ordinary compiler. A block runs at a time, its threads as fibers that are switched at barriers:
// between two of them threads run one after the other. NESTVEC_EMULATED_ORDER=backwards runs lanes, warps and blocks in
// the other order, shuffled (or shuffled:SEED) in any order, warps taking turns at their own barriers too; a kernel
// whose results depend on it lacks a barrier. What all lanes or threads must reach together but do not is an error that
// says where.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <source_location>

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
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};

struct alignas(16) ulonglong2 {
  unsigned long long x, y;
};

namespace emulated {

using Where = std::source_location;

struct Place {
  dim3 thread, block, block_size, grid;
};

extern Place place;  // of the fiber that runs

void run(dim3 grid, dim3 block, size_t shared, const std::function<void()>& thread);
void* dynamic_shared();
size_t memory_left();
void limit_memory(size_t bytes);

// Threads wait until all of the block, or of the warp, have come to the same place of the source.
void block_barrier(const Where& where);
void warp_barrier(unsigned mask, const Where& where);
int lane();

// Memory to exchange values by: written before a barrier, read behind it, and left alone until one barrier later.
constexpr size_t EXCHANGED = 8192;
void* of_warp();
void* of_block();

// What lane `from` brought.
template <class T>
T exchange(unsigned mask, T value, int from, const Where& where) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  auto slots = static_cast<T*>(of_warp());
  slots[lane()] = value;
  warp_barrier(mask, where);
  return slots[from];
}

inline int within(int width, int to) { return lane() / width * width + to; }

// How many threads of the block say yes.
inline int count_votes(int predicate, const Where& where) {
  auto votes = static_cast<char*>(of_block());
  int number = int((place.thread.z * place.block_size.y + place.thread.y) * place.block_size.x + place.thread.x);
  int threads = int(place.block_size.x * place.block_size.y * place.block_size.z), result = 0;
  votes[number] = predicate != 0;
  block_barrier(where);
  for (int i = 0; i < threads; i++) result += votes[i];
  return result;
}

}  // namespace emulated

#define NESTVEC_HERE const ::emulated::Where& where = ::emulated::Where::current()
#define threadIdx (::emulated::place.thread)
#define blockIdx (::emulated::place.block)
#define blockDim (::emulated::place.block_size)
#define gridDim (::emulated::place.grid)

inline void __syncthreads(NESTVEC_HERE) { ::emulated::block_barrier(where); }
inline void __syncwarp(unsigned mask = ~0u, NESTVEC_HERE) { ::emulated::warp_barrier(mask, where); }
inline int __syncthreads_count(int predicate, NESTVEC_HERE) { return ::emulated::count_votes(predicate, where); }
inline int __syncthreads_or(int predicate, NESTVEC_HERE) { return ::emulated::count_votes(predicate, where) != 0; }
inline int __syncthreads_and(int predicate, NESTVEC_HERE) { return ::emulated::count_votes(!predicate, where) == 0; }

template <class T>
T __shfl_sync(unsigned mask, T value, int from, int width = 32, NESTVEC_HERE) {
  return ::emulated::exchange(mask, value, ::emulated::within(width, from & (width - 1)), where);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int by, int width = 32, NESTVEC_HERE) {
  int to = (::emulated::lane() % width) ^ by;
  return ::emulated::exchange(mask, value, to < width ? ::emulated::within(width, to) : ::emulated::lane(), where);
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, int by, int width = 32, NESTVEC_HERE) {
  int to = ::emulated::lane() % width + by;
  return ::emulated::exchange(mask, value, to < width ? ::emulated::within(width, to) : ::emulated::lane(), where);
}

template <class T>
T __shfl_up_sync(unsigned mask, T value, int by, int width = 32, NESTVEC_HERE) {
  int to = ::emulated::lane() % width - by;
  return ::emulated::exchange(mask, value, to >= 0 ? ::emulated::within(width, to) : ::emulated::lane(), where);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, NESTVEC_HERE) {
  auto votes = static_cast<unsigned char*>(::emulated::of_warp());
  votes[::emulated::lane()] = predicate != 0;
  ::emulated::warp_barrier(mask, where);
  unsigned result = 0;
  for (int i = 0; i < 32; i++) result |= unsigned(votes[i]) << i;
  return result;
}

inline int __any_sync(unsigned mask, int predicate, NESTVEC_HERE) { return __ballot_sync(mask, predicate, where) != 0; }
inline int __all_sync(unsigned mask, int predicate, NESTVEC_HERE) {
  return __ballot_sync(mask, !predicate, where) == 0;
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
inline unsigned __brev(unsigned x) {
  unsigned result = 0;
  for (int i = 0; i < 32; i++) result |= (x >> i & 1) << (31 - i);
  return result;
}
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
