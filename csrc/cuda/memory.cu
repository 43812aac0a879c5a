#include "memory.h"

#include "device.h"

#ifdef NESTVEC_CUDA_EMULATED
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#endif

namespace nestvec::cuda {

#ifndef NESTVEC_CUDA_EMULATED

void check(int status, const char* what) {
  auto error = cudaError_t(status);
  if (error == cudaSuccess) return;
  cudaGetLastError();  // an error that is not sticky must not be reported again
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

bool is_emulated() { return false; }

int device_count() {
  int count = 0, driver = 0;
  if (cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0)
    throw std::runtime_error("no CUDA driver is installed (libcuda.so.1)");
  check(cudaGetDeviceCount(&count), "no CUDA device");
  return count;
}

int current_device() {
  int device = 0;
  check(cudaGetDevice(&device), "no CUDA device");
  return device;
}

void use_device(int device) { check(cudaSetDevice(device), "choice of a CUDA device"); }

DeviceFacts facts(int device) {
  cudaDeviceProp found;
  check(cudaGetDeviceProperties(&found, device), "properties of a CUDA device");
  return {found.name,           found.major,
          found.minor,          found.multiProcessorCount,
          found.totalGlobalMem, found.sharedMemPerBlockOptin};
}

int multiprocessors() {
  int count = 0;
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, current_device()), "a CUDA device's size");
  return count;
}

size_t shared_limit() {
  int bytes = 0;
  check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, current_device()),
        "a CUDA device's shared memory");
  return size_t(bytes);
}

size_t free_bytes(int device) {
  int before = current_device();
  use_device(device);
  size_t free = 0, total = 0;
  int status = cudaMemGetInfo(&free, &total);
  use_device(before);
  check(status, "free memory of a CUDA device");
  cudaMemPool_t pool;
  uint64_t held = 0, used = 0;
  if (cudaDeviceGetDefaultMemPool(&pool, device) == cudaSuccess &&
      cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &held) == cudaSuccess &&
      cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used) == cudaSuccess)
    free += held - used;
  return free;
}

int device_of(const void* pointer) {
  cudaPointerAttributes found;
  if (cudaPointerGetAttributes(&found, pointer) != cudaSuccess) {
    cudaGetLastError();
    return -1;
  }
  return found.type == cudaMemoryTypeDevice || found.type == cudaMemoryTypeManaged ? found.device : -1;
}

// Freed memory stays with the process: the next search asks for as much again.
static void keep_freed_memory(int device) {
  static bool done[64] = {};
  if (device < 0 || device >= 64 || done[device]) return;
  cudaMemPool_t pool;
  uint64_t most = UINT64_MAX;
  if (cudaDeviceGetDefaultMemPool(&pool, device) == cudaSuccess)
    cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &most);
  done[device] = true;
}

void* allocate(size_t bytes, int device, Stream stream) {
  use_device(device);
  keep_freed_memory(device);
  void* pointer = nullptr;
  auto status = cudaMallocAsync(&pointer, bytes ? bytes : 1, cudaStream_t(stream));
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    auto mebibytes = [](size_t n) { return std::to_string((n + (1 << 20) - 1) >> 20) + " MiB"; };
    throw OutOfMemory("needed " + mebibytes(bytes) + ", free " + mebibytes(free_bytes(device)) +
                      " on cuda:" + std::to_string(device) + " (" + facts(device).name + ")");
  }
  check(status, "memory of a CUDA device");
  return pointer;
}

void release(void* pointer, size_t, int device, Stream stream) noexcept {
  int before = 0;
  if (cudaGetDevice(&before) != cudaSuccess) return;  // the driver is gone: the process ends
  cudaSetDevice(device);
  if (cudaFreeAsync(pointer, cudaStream_t(stream)) != cudaSuccess) cudaGetLastError();
  cudaSetDevice(before);
}

void to_device(void* target, const void* source, size_t bytes, Stream stream) {
  // from memory that is not pinned: the call returns when the source was read
  check(cudaMemcpyAsync(target, source, bytes, cudaMemcpyDefault, cudaStream_t(stream)), "copy to a CUDA device");
}

void to_host(void* target, const void* source, size_t bytes, Stream stream) {
  check(cudaMemcpyAsync(target, source, bytes, cudaMemcpyDefault, cudaStream_t(stream)), "copy from a CUDA device");
  wait(stream);
}

void clear(void* target, int byte, size_t bytes, Stream stream) {
  check(cudaMemsetAsync(target, byte, bytes, cudaStream_t(stream)), "clearing memory");
}

void wait(Stream stream) { check(cudaStreamSynchronize(cudaStream_t(stream)), "a kernel"); }

void wait_for_all(int device) noexcept {
  int before = 0;
  if (cudaGetDevice(&before) != cudaSuccess) return;
  cudaSetDevice(device);
  cudaDeviceSynchronize();
  cudaSetDevice(before);
}

Stream make_stream(int device) {
  use_device(device);
  cudaStream_t stream;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a CUDA stream");
  return stream;
}

void drop_stream(Stream stream) noexcept { cudaStreamDestroy(cudaStream_t(stream)); }

void wait_for(Stream waiting, Stream other) {
  cudaEvent_t event;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "a CUDA event");
  int status = cudaEventRecord(event, cudaStream_t(other));
  if (status == cudaSuccess) status = cudaStreamWaitEvent(cudaStream_t(waiting), event, 0);
  cudaEventDestroy(event);
  check(status, "waiting for a CUDA stream");
}

#else

bool is_emulated() { return true; }
int device_count() { return 1; }
int current_device() { return 0; }
void use_device(int) {}
DeviceFacts facts(int) { return {"emulated", 9, 0, 2, size_t(1) << 34, 227 * 1024}; }
int multiprocessors() { return 2; }
size_t shared_limit() { return 227 * 1024; }
size_t free_bytes(int) { return emulated::memory_left(); }
int device_of(const void*) { return 0; }

static size_t pages(size_t bytes) {
  size_t page = size_t(sysconf(_SC_PAGESIZE));
  return (bytes + page - 1) / page * page;
}

// Memory ends where a page ends that nobody may touch: what reads or writes behind it crashes, as under memcheck.
void* allocate(size_t bytes, int, Stream) {
  size_t room = pages(bytes), page = size_t(sysconf(_SC_PAGESIZE));
  if (bytes > emulated::memory_left())
    throw OutOfMemory("needed " + std::to_string(bytes) + " bytes, free " + std::to_string(emulated::memory_left()) +
                      " on the emulated device");
  void* memory = mmap(nullptr, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw OutOfMemory("needed " + std::to_string(bytes) + " bytes of the host's memory");
  mprotect(static_cast<char*>(memory) + room, page, PROT_NONE);
  size_t used = (bytes + 15) / 16 * 16;  // CUDA aligns to 256 bytes, kernels rely on 16
  memset(memory, 0xcd, room);            // nobody may rely on zeros
  return static_cast<char*>(memory) + room - used;
}

void release(void* pointer, size_t bytes, int, Stream) noexcept {
  size_t room = pages(bytes), page = size_t(sysconf(_SC_PAGESIZE)), used = (bytes + 15) / 16 * 16;
  munmap(static_cast<char*>(pointer) - (room - used), room + page);
}

void to_device(void* target, const void* source, size_t bytes, Stream) { memcpy(target, source, bytes); }
void to_host(void* target, const void* source, size_t bytes, Stream) { memcpy(target, source, bytes); }
void clear(void* target, int byte, size_t bytes, Stream) { memset(target, byte, bytes); }
void wait(Stream) {}
void wait_for_all(int) noexcept {}
Stream make_stream(int) { return nullptr; }
void drop_stream(Stream) noexcept {}
void wait_for(Stream, Stream) {}

#endif

}  // namespace nestvec::cuda
