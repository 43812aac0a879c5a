// Memory, streams and errors of a device, without CUDA's headers: bindings see no more than this.
#pragma once
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace nestvec::cuda {

using Stream = void*;  // a cudaStream_t; null: the default one

struct OutOfMemory : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct DeviceFacts {
  std::string name;
  int major, minor, multiprocessors;
  size_t total, shared;  // bytes of memory, and of shared memory that a block may ask for
};

bool is_emulated();
int device_count();  // throws std::runtime_error that says why where there is no driver
int current_device();
void use_device(int device);
DeviceFacts facts(int device);
int multiprocessors();          // of the current device
size_t shared_limit();          // bytes that a block of the current device may ask for
size_t free_bytes(int device);  // for this process: what it has freed and keeps counts

// For a while the device of the calling thread: default streams are those of the thread's device.
class OnDevice {
 public:
  explicit OnDevice(int device) : before_(current_device()), changed_(before_ != device) {
    if (changed_) use_device(device);
  }
  OnDevice(const OnDevice&) = delete;
  ~OnDevice() {
    try {
      if (changed_) use_device(before_);
    } catch (const std::runtime_error&) {  // the driver is gone: the process ends
    }
  }

 private:
  int before_;
  bool changed_;
};

int device_of(const void* pointer);  // -1: memory of the host

void* allocate(size_t bytes, int device, Stream stream);  // throws OutOfMemory: needed and free, by name of the device
void release(void* pointer, size_t bytes, int device, Stream stream) noexcept;
void to_device(void* target, const void* source, size_t bytes, Stream stream);
void to_host(void* target, const void* source, size_t bytes, Stream stream);  // done when it returns
void clear(void* target, int byte, size_t bytes, Stream stream);
void wait(Stream stream);
void wait_for_all(int device) noexcept;
Stream make_stream(int device);
void drop_stream(Stream stream) noexcept;
void wait_for(Stream waiting, Stream other);  // what is put into `waiting` later runs after what `other` holds now

#ifdef __CUDACC__
void check(int status, const char* what);  // a cudaError_t
#endif

}  // namespace nestvec::cuda
