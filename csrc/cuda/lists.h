// Lists of rows, one for each query, that scans append to in no order: what reached the query's threshold.
#pragma once
#include "select.h"

namespace nestvec::cuda {

struct Lists {
  int32_t* rows;      // (nq, room)
  float* values;      // (nq, room)
  int32_t* counts;    // (nq,)
  float* thresholds;  // (nq,)
  int32_t* lost;      // (nq,) not 0: rows found no room, and the list is of no use
  int64_t room;
};

// Rows that may be found: as `allowed` of python/nestvec/kernels/scan.py. null: all.
struct RowSets {
  const uint64_t* words;
  int64_t step;  // words from one query's set to the next one's; 0: one set for all

  __device__ bool has(int query, int64_t row) const { return allows(words ? words + query * step : nullptr, row); }
};

// The `place`-th entry; a list that is full loses the row, and says so.
__device__ inline void append(const Lists& lists, int query, int32_t row, float value) {
  int place = atomicAdd(&lists.counts[query], 1);
  if (place < lists.room) {
    lists.rows[query * lists.room + place] = row;
    lists.values[query * lists.room + place] = value;
  } else {
    lists.lost[query] = 1;
    atomicAdd(&lists.counts[query], -1);
  }
}

// Of `count` entries leaves those that are `wanted(i)`, in their order, by a block of SELECTORS threads; how many they
// are.
template <class Wanted>
__device__ int compact(const Lists& lists, int64_t query, int count, Wanted wanted) {
  int32_t* rows = lists.rows + query * lists.room;
  float* values = lists.values + query * lists.room;
  int kept = 0;  // an entry never moves up: each round writes only where earlier ones or itself have read
  for (int first = 0; first < count; first += SELECTORS) {
    int i = first + threadIdx.x;
    bool mine = i < count && wanted(i);
    int32_t row = mine ? rows[i] : 0;
    float value = mine ? values[i] : 0;
    int total, place = place_among(mine, total);
    if (mine) {
      rows[kept + place] = row;
      values[kept + place] = value;
    }
    kept += total;
    __syncthreads();
  }
  return kept;
}

// Leaves the `keep` best of `count` entries, 1 to `count`, by such a block; what they reach at least.
__device__ inline float keep_of_list(const Lists& lists, int64_t query, int count, int keep) {
  const int32_t* rows = lists.rows + query * lists.room;
  const float* values = lists.values + query * lists.room;
  auto key = [=](int i) { return key_of(values[i], rows[i]); };
  uint64_t least = select_key(count, keep, key);
  compact(lists, query, count, [=](int i) { return key(i) >= least; });
  uint32_t bits = uint32_t(least >> 32), lowest = ordered(-INFINITY);  // digits that were not looked at are 0
  return unordered(bits > lowest ? bits : lowest);
}

// Leaves the `keep` best of each list (of equal values the smallest rows), sets the threshold to the least of them.
void keep_best(const Lists&, int64_t nq, int64_t keep, Stream);
// Clears counts, sets `lost` to 0 and thresholds to `least`.
void begin_lists(const Lists&, int64_t nq, float least, Stream);
// The k best of each list in order, ties by smaller id: scores = offsets + units * value, ids as `Naming` says.
struct Naming {
  const int64_t* ids;  // null: row r has id base + r
  int64_t base;
};
void order_lists(const Lists&, int64_t nq, int64_t k, const double* units, const double* offsets, const Naming&,
                 double* scores, int64_t* ids, Stream);

}  // namespace nestvec::cuda
