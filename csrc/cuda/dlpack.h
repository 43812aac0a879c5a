// The structs of DLPack, by which libraries hand each other arrays: https://dmlc.github.io/dlpack
#pragma once
#include <cstdint>

namespace nestvec::cuda::dlpack {

constexpr int32_t CPU = 1, CUDA = 2, CUDA_MANAGED = 13;
constexpr uint32_t MAJOR = 1, MINOR = 0;

struct Device {
  int32_t type, number;
};

struct Type {
  uint8_t code, bits;  // 0 signed, 1 unsigned, 2 float, 4 bfloat
  uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  int32_t axes;
  Type type;
  int64_t* shape;
  int64_t* strides;  // in elements; null: C-contiguous
  uint64_t offset;   // bytes
};

// In a capsule "dltensor", or "used_dltensor" once somebody has taken it over.
struct Managed {
  Tensor tensor;
  void* context;
  void (*deleter)(Managed*);
};

// In a capsule "dltensor_versioned", or "used_dltensor_versioned".
struct Versioned {
  uint32_t major, minor;
  void* context;
  void (*deleter)(Versioned*);
  uint64_t flags;  // 1: read-only
  Tensor tensor;
};

}  // namespace nestvec::cuda::dlpack
