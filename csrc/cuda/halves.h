// Scans of rows as they are stored by tensor cores: products of halves, summed in float32, and how far they can be off.
#pragma once
#include "blocks.h"
#include "exact.h"

namespace nestvec::cuda {

// Queries times a power of two, rounded to float16 for rows of that type, else to bfloat16.
struct HalfQueries {
  uint16_t* halves;  // (nq, stride), zero from dims on
  int64_t nq, stride;
  float* errors;  // (nq,) products are off by no more than this times the norm of the row
  float* steps;   // (nq,) the power of two
};

// Fills HalfQueries, and multiply and offset (nq,), which are not constant in `Units`: scores in the units of bounds.
void pack_halves(const Vectors&, const HalfQueries&, double* multiply, double* offset, Stream);
// Appends rows whose upper bound reaches the threshold. Bounds are of <q, x>, of <q, x> - |x|^2 / 2 (l2), or of
// <q, x> / |x| (cosine), for q times its power of two.
void scan_halves(const Vectors&, const HalfQueries&, const Blocks&, const RowSets&, const Lists&, Stream);

}  // namespace nestvec::cuda
