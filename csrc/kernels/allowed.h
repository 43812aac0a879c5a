// Sets of rows that may be found: bit r % 64 of word r / 64 is row r; null is the set of all.
#pragma once
#include "../kernels.h"
#include "../simd.h"

namespace nestvec {
namespace {

// The rows of a block below `last` that a set has, one bit each.
inline uint64_t allowed_rows(const uint64_t* allowed, int64_t block, int64_t last) {
  uint64_t rows = allowed ? allowed[block / kBlock] : ~uint64_t(0);
  return last - block < kBlock ? rows & ~uint64_t(0) >> (kBlock - (last - block)) : rows;
}

inline uint64_t allowed_rows(const Allowed& allowed, int64_t query, int64_t block, int64_t last) {
  return allowed_rows(allowed.words + query * allowed.stride, block, last);
}

// Whether some of the queries [first, end) may find some of these rows of a block.
inline bool some_allowed(const Allowed& allowed, int64_t first, int64_t end, int64_t block, uint64_t rows) {
  if (!allowed.words) return true;
  if (!allowed.stride) return allowed.words[block / kBlock] & rows;
  for (; first < end; first++)
    if (allowed.words[first * allowed.stride + block / kBlock] & rows) return true;
  return false;
}

}  // namespace
}  // namespace nestvec
