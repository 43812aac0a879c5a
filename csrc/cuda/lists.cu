#include "best.h"

namespace nestvec::cuda {

static __global__ void begin_kernel(Lists lists, int64_t nq, float least) {
  int64_t query = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (query >= nq) return;
  lists.counts[query] = 0;
  lists.lost[query] = 0;
  lists.thresholds[query] = least;
}

void begin_lists(const Lists& lists, int64_t nq, float least, Stream stream) {
  launch(begin_kernel, ceil_div<int64_t>(nq, 256), 256, 0, stream, lists, nq, least);
}

static __global__ void keep_kernel(Lists lists, int64_t keep) {
  int64_t query = blockIdx.x;
  int count = lists.counts[query];
  if (count < keep) return;  // the threshold stays: fewer than wanted reached it
  float least = keep_of_list(lists, query, count, int(keep));
  if (threadIdx.x == 0) {
    lists.counts[query] = int(keep);
    lists.thresholds[query] = least;
  }
}

void keep_best(const Lists& lists, int64_t nq, int64_t keep, Stream stream) {
  launch(keep_kernel, nq, SELECTORS, 0, stream, lists, keep);
}

static __global__ void order_kernel(Lists lists, int64_t k, int size, const double* units, const double* offsets,
                                    Naming naming, double* scores, int64_t* ids) {
  int64_t query = blockIdx.x;
  Found* found = shared_memory<Found>();
  int count = lists.counts[query];
  for (int i = threadIdx.x; i < size; i += blockDim.x) {
    found[i] = NOTHING_FOUND;
    if (i >= count) continue;
    int64_t row = lists.rows[query * lists.room + i];
    double value = lists.values[query * lists.room + i];
    found[i].score = offsets ? offsets[query] + units[query] * value : value;
    found[i].id = naming.ids ? naming.ids[row] : naming.base + row;
  }
  sort_entries(found, size, ByScore());
  for (int i = threadIdx.x; i < k; i += blockDim.x) {
    bool there = i < count && i < size;
    scores[query * k + i] = there ? found[i].score : -INFINITY;
    ids[query * k + i] = there ? found[i].id : -1;
  }
}

// Lists must hold no more than `k` entries rounded up to a power of two: call keep_best first.
void order_lists(const Lists& lists, int64_t nq, int64_t k, const double* units, const double* offsets,
                 const Naming& naming, double* scores, int64_t* ids, Stream stream) {
  int size = 2;
  while (size < k) size *= 2;
  launch(order_kernel, nq, SELECTORS, size * sizeof(Found), stream, lists, k, size, units, offsets, naming, scores,
         ids);
}

}  // namespace nestvec::cuda
