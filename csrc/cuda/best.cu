#include "best.h"

namespace nestvec::cuda {

static __global__ void begin_best_kernel(Best best, int64_t count) {
  int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  best.scores[i] = -INFINITY;
  best.ids[i] = -1;
}

void begin_best(const Best& best, int64_t nq, Stream stream) {
  launch(begin_best_kernel, ceil_div<int64_t>(nq * best.k, 256), 256, 0, stream, best, nq * best.k);
}

static __global__ void list_kernel(Best best, Lists lists) {
  int64_t query = blockIdx.x;
  if (threadIdx.x == 0 && best.ids[query * best.k] < 0) lists.counts[query] = 0;
  for (int64_t i = threadIdx.x; i < best.k; i += blockDim.x) {
    int64_t row = best.ids[query * best.k + i];
    lists.rows[query * lists.room + i] = int32_t(row);
    lists.values[query * lists.room + i] = 0;
    bool last = i + 1 == best.k || best.ids[query * best.k + i + 1] < 0;
    if (row >= 0 && last) lists.counts[query] = int32_t(i + 1);
  }
}

void list_best(const Best& best, const Lists& lists, int64_t nq, Stream stream) {
  launch(list_kernel, nq, 256, 0, stream, best, lists);
}

static __global__ void merge_kernel(Best partial, int64_t shares, const int32_t* only, int size, Best best) {
  int64_t query = blockIdx.x;
  if (only && !only[query]) return;
  Found* found = shared_memory<Found>();
  int64_t k = best.k;
  for (int i = threadIdx.x; i < size; i += blockDim.x) found[i] = NOTHING_FOUND;
  __syncthreads();
  int room = int((size - k) / k);  // shares at a time
  for (int64_t share = 0; share < shares; share += room) {
    int64_t count = (shares - share < room ? shares - share : room) * k;
    for (int64_t i = threadIdx.x; i < size - k; i += blockDim.x) {
      int64_t from = (query * shares + share) * k + i;
      found[k + i] = NOTHING_FOUND;
      if (i < count && partial.ids[from] >= 0) found[k + i] = {partial.scores[from], partial.ids[from]};
    }
    sort_entries(found, size, ByScore());
  }
  store_best(found, best, query);
}

void merge_best(const Best& partial, int64_t shares, const int32_t* only, const Best& best, int64_t nq, Stream stream) {
  int size = sorted_size(best.k);
  launch(merge_kernel, nq, 256, size * sizeof(Found), stream, partial, shares, only, size, best);
}

}  // namespace nestvec::cuda
