// What kernels in this folder are written against: CUDA, or its emulation on the CPU, where the same source is compiled
// by an ordinary compiler and every thread of a block is a fiber. Tests run the emulation, so that index arithmetic,
// barriers and fragment layouts are checked on machines without a GPU.
#pragma once
#include <cstddef>
#include <cstdint>

#ifdef __CUDACC__
#include <cuda_runtime.h>
#else  // also for bindings of a build for GPUs, which include kernels' headers and call no kernel
#include "emulate.h"
#endif

#include "memory.h"

namespace nestvec::cuda {

constexpr int WARP = 32;
constexpr unsigned EVERYBODY = 0xffffffffu;  // lanes of a warp
constexpr int64_t GRID = 65535;              // blocks along y, at most

#ifndef __CUDACC__
template <class T>
T* shared_memory() {  // NOLINT: of the block that runs
  return static_cast<T*>(emulated::dynamic_shared());
}

template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, Stream, A... arguments) {
  emulated::run(grid, block, shared, [=] { kernel(P(arguments)...); });
}
#else
template <class T>
__device__ T* shared_memory() {
  extern __shared__ __align__(16) unsigned char nestvec_shared[];
  return reinterpret_cast<T*>(nestvec_shared);
}

template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, Stream stream, A... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  if (shared > 32 * 1024)  // 48 KB are free to use, with those that a kernel declares
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared)), "shared memory");
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = cudaStream_t(stream);
  check(cudaLaunchKernelEx(&config, kernel, P(arguments)...), "launch of a kernel");
}
#endif

template <class T>
__host__ __device__ constexpr T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}

}  // namespace nestvec::cuda
