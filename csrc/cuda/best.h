// The k best results of a query, in order, in shared memory of one block; and the search that leaves nothing out, for
// rows without planes and for queries whose lists were too short.
#pragma once
#include "lists.h"

namespace nestvec::cuda {

struct Best {
  double* scores;  // (nq, k), best first; -inf where there is none
  int64_t* ids;    // (nq, k); -1 where there is none
  int64_t k;
};

struct Found {
  double score;
  int64_t id;
};

constexpr Found NOTHING_FOUND = {-INFINITY, INT64_MAX};
constexpr int64_t MOST_RESULTS = 2048;  // k, at most: twice as many are sorted in shared memory

struct ByScore {
  __device__ bool operator()(const Found& a, const Found& b) const { return better(a.score, a.id, b.score, b.id); }
};

// Entries to sort for k results and at least as many new ones at a time: a power of two.
inline int sorted_size(int64_t k) {
  int size = 512;
  while (size < 2 * k) size *= 2;
  return size;
}

__device__ inline void load_best(Found* found, int size, const Best& best, int64_t query) {
  for (int i = threadIdx.x; i < size; i += blockDim.x) {
    found[i] = NOTHING_FOUND;
    if (i < best.k && best.ids[query * best.k + i] >= 0)
      found[i] = {best.scores[query * best.k + i], best.ids[query * best.k + i]};
  }
  __syncthreads();
}

__device__ inline void store_best(const Found* found, const Best& best, int64_t query) {
  for (int i = threadIdx.x; i < best.k; i += blockDim.x) {
    bool there = found[i].id != INT64_MAX;
    best.scores[query * best.k + i] = there ? found[i].score : -INFINITY;
    best.ids[query * best.k + i] = there ? found[i].id : -1;
  }
}

void begin_best(const Best&, int64_t nq, Stream);
// Lists of the rows found, where ids are their numbers.
void list_best(const Best&, const Lists&, int64_t nq, Stream);

// Which queries, of how many rows, into how many shares the rows are cut.
struct Brute {
  const int32_t* only;  // (nq,) not 0: search for this query; null: for all
  int64_t n;            // rows
  int64_t shares;
  RowSets allowed;
  Naming naming;
};

// scorer.score(query, row), by half a warp: every lane has the sum.
template <class Scorer>
__global__ void brute_kernel(Scorer scorer, Brute brute, int size, Best partial) {
  int64_t share = blockIdx.x % brute.shares, query = blockIdx.x / brute.shares;
  if (brute.only && !brute.only[query]) return;
  __shared__ int added;
  Found* found = shared_memory<Found>();
  int k = int(partial.k), room = size - k;
  for (int i = threadIdx.x; i < size; i += blockDim.x) found[i] = NOTHING_FOUND;
  int64_t first = brute.n * share / brute.shares, last = brute.n * (share + 1) / brute.shares;
  int halves = blockDim.x / LANES, half = threadIdx.x / LANES;
  room = room / halves * halves;
  for (; first < last; first += room) {
    if (threadIdx.x == 0) added = 0;
    __syncthreads();
    Found worst = found[k - 1];
    for (int i = half; i < room; i += halves) {  // as often for all: lanes exchange their sums
      int64_t row = first + i;
      bool there = row < last && brute.allowed.has(int(query), row);
      if (!__any_sync(EVERYBODY, there)) continue;
      double score = scorer.score(query, row < last ? row : last - 1);
      if (!there || threadIdx.x % LANES != 0) continue;
      int64_t id = brute.naming.ids ? brute.naming.ids[row] : brute.naming.base + row;
      if (score > -INFINITY && better(score, id, worst.score, worst.id)) found[k + atomicAdd(&added, 1)] = {score, id};
    }
    __syncthreads();
    if (added > 0) {
      sort_entries(found, size, ByScore());
      for (int i = k + threadIdx.x; i < size; i += blockDim.x) found[i] = NOTHING_FOUND;
    }
    __syncthreads();
  }
  store_best(found, partial, query * brute.shares + share);
}

// The best of the shares of each query, (nq, shares, k) to (nq, k).
void merge_best(const Best& partial, int64_t shares, const int32_t* only, const Best& best, int64_t nq, Stream);

// Shares that give the device work enough; `partial` needs room for as many lists a query.
template <class Scorer>
void brute_top_k(const Scorer& scorer, const Brute& brute, int64_t nq, const Best& partial, const Best& best,
                 Stream stream) {
  int size = sorted_size(best.k);
  launch(brute_kernel<Scorer>, nq * brute.shares, 256, size * sizeof(Found), stream, scorer, brute, size, partial);
  merge_best(partial, brute.shares, brute.only, best, nq, stream);
}

}  // namespace nestvec::cuda
