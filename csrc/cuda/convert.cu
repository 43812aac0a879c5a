#include "convert.h"

namespace nestvec::cuda {

namespace {

constexpr int THREADS = 256;

__device__ int64_t thread_number() { return int64_t(blockIdx.x) * blockDim.x + threadIdx.x; }

template <class T>
__global__ void copy_kernel(Strided from, T* target, int64_t count) {
  int64_t i = thread_number();
  if (i >= count) return;
  int64_t left = i, offset = 0;
  for (int axis = from.axes - 1; axis >= 0; axis--) {
    offset += left % from.shape[axis] * from.strides[axis];
    left /= from.shape[axis];
  }
  target[i] = *reinterpret_cast<const T*>(static_cast<const char*>(from.data) + offset);
}

template <class T>
__device__ float as_float(T value) {
  return float(value);
}

struct Half {
  uint16_t bits;
};
struct Brain {
  uint16_t bits;
};
template <>
__device__ float as_float(Half value) {
  return widened_f16(value.bits);
}
template <>
__device__ float as_float(Brain value) {
  return widened_bf16(value.bits);
}

template <class T>
__global__ void float_kernel(const T* source, int64_t stride, int64_t dims, float* target, Check check) {
  int64_t i = thread_number();
  if (i >= check.n * dims) return;
  int64_t row = i / dims;
  target[i] = checked(as_float(source[row * stride + i % dims]), row, check);
}

__global__ void results_kernel(Best best, int64_t nq, bool distances, const int32_t* bad, Results to) {
  int64_t i = thread_number();
  if (i >= nq * to.k) return;
  int64_t query = i / to.k, rank = i % to.k;
  bool there = rank < best.k && !(bad && bad[query]);
  double score = there ? best.scores[query * best.k + rank] : -INFINITY;
  to.scores[i] = float(distances ? -score : score);
  to.ids[i] = there ? best.ids[query * best.k + rank] : -1;
}

}  // namespace

void copy_strided(const Strided& from, void* target, Stream stream) {
  int64_t count = 1;
  for (int axis = 0; axis < from.axes; axis++) count *= from.shape[axis];
  auto copy = [&](auto one) {
    launch(copy_kernel<decltype(one)>, ceil_div<int64_t>(count, THREADS), THREADS, 0, stream, from,
           static_cast<decltype(one)*>(target), count);
  };
  if (from.item == 1) copy(uint8_t());
  if (from.item == 2) copy(uint16_t());
  if (from.item == 4) copy(uint32_t());
  if (from.item == 8) copy(uint64_t());
}

void to_float32(const void* source, Source type, int64_t stride, int64_t dims, float* target, const Check& check,
                Stream stream) {
  auto convert = [&](auto one) {
    launch(float_kernel<decltype(one)>, ceil_div<int64_t>(check.n * dims, THREADS), THREADS, 0, stream,
           static_cast<const decltype(one)*>(source), stride, dims, target, check);
  };
  switch (type) {
    case Source::f32:
      return convert(float());
    case Source::f16:
      return convert(Half());
    case Source::bf16:
      return convert(Brain());
    case Source::f64:
      return convert(double());
    case Source::i8:
      return convert(int8_t());
    case Source::u8:
      return convert(uint8_t());
    case Source::i16:
      return convert(int16_t());
    case Source::u16:
      return convert(uint16_t());
    case Source::i32:
      return convert(int32_t());
    case Source::u32:
      return convert(uint32_t());
    case Source::i64:
      return convert(int64_t());
    case Source::u64:
      return convert(uint64_t());
  }
}

void to_results(const Best& best, int64_t nq, bool distances, const int32_t* bad, const Results& to, Stream stream) {
  launch(results_kernel, ceil_div<int64_t>(nq * to.k, THREADS), THREADS, 0, stream, best, nq, distances, bad, to);
}

}  // namespace nestvec::cuda
