// Fixed dimensional encodings of bags of tokens; specification: python/nestvec/kernels/fde.py and fitted.py. Bits are
// those of the CPU.
#pragma once
#include "device.h"

namespace nestvec::cuda {

enum FdeMode { FDE_SUM, FDE_MEAN, FDE_SHRUNK };

// Bag i holds tokens `offsets[i] - base` to `offsets[i + 1] - base` of the arrays that go with it.
struct FdeBags {
  const int64_t* offsets;
  int64_t n, base;
};

struct FdeShape {
  int64_t repetitions, width;
  int k;
  __host__ __device__ int64_t parts() const { return int64_t(1) << k; }
  __host__ __device__ int64_t size() const { return repetitions * parts() * width; }
};

// A sketch by its columns: `entries[starts[c]]` to `entries[starts[c + 1]]` are the coordinates that column c adds up,
// ascending, with a sign in the highest bit.
struct FdeSketch {
  const int32_t* entries;
  const int64_t* starts;
};

struct FdeTask {
  FdeBags bags;
  FdeShape shape;
  const float* x;  // (tokens, dims); repetition r adds values from r * step on, or sketches
  int64_t dims, step;
  const uint32_t* partitions;
  FdeSketch ams;  // column r * width + c; without entries: tokens are added as they are
  FdeMode mode;
  bool fill;
  float* out;  // (bags, size)
};

struct FdeProbes {
  FdeBags bags;
  FdeShape shape;
  const float* x;  // (tokens, dims)
  int64_t dims;
  const float* projected;  // (tokens, stride): from `wide` on products with planes
  int64_t stride, wide;
  const float* shift;
  float* out;  // (bags, size)
};

void simhash(const float* x, int64_t n, int64_t dims, const float* panels, double reach, int64_t repetitions, int k,
             uint32_t* partitions, Stream stream);
// `shared`: bytes of shared memory that a block may have.
void encode_bags(const FdeTask& task, size_t shared, Stream stream);
// Rows of `size` values into rows of `columns`.
void sketch_rows(const float* rows, int64_t n, int64_t size, const FdeSketch& sketch, int64_t columns, float* out,
                 Stream stream);

// x less the mean; `beyond` becomes 1 if a value is not finite.
void centre_tokens(const float* x, int64_t n, int64_t dims, const float* mean, float* out, int32_t* beyond,
                   Stream stream);
void project_tokens(const float* x, int64_t n, int64_t dims, const float* panels, int64_t count, float* out,
                    Stream stream);
void encode_probes(const FdeProbes& task, size_t shared, Stream stream);

}  // namespace nestvec::cuda
