#include "exact.h"

namespace nestvec::cuda {

namespace {

// Scores by half a warp. A product of float32 values is exact in float64, so contraction would change nothing; the
// squared difference of l2 is not, and contraction is off for all.
template <class Rows>
struct Scorer {
  Vectors v;

  __device__ double score(int64_t query, int64_t row) const {
    const float* q = v.queries + query * v.query_stride;
    auto x = static_cast<const typename Rows::Stored*>(v.rows) + row * v.row_stride;
    int lane = threadIdx.x % LANES;
    double sum = 0, row_square = 0, query_square = 0;
    for (int64_t j = lane; j < v.dims; j += LANES) {
      double a = q[j], b = Rows::widened(x[j]);
      if (v.metric == L2) {
        double difference = a - b;
        sum += difference * difference;
      } else {
        sum += a * b;
        row_square += b * b;
        query_square += a * a;
      }
    }
    sum = fold(sum);
    if (v.metric == L2) return -sum;
    if (v.metric == IP) return sum;
    double square = fold(query_square) * fold(row_square);
    return square > 0 ? sum / sqrt(square) : 0;
  }
};

template <class Do>
void with_type(int type, const Vectors& v, Do act) {
  if (type == 0) act(Scorer<F32>{v});
  if (type == 1) act(Scorer<F16>{v});
  if (type == 2) act(Scorer<BF16>{v});
}

}  // namespace

constexpr int TODO = 2 * SELECTORS;  // rows scored before the best are sorted again

// Scores `count` listed rows and sorts them in among the k best. A power of two of entries is sorted.
template <class Scorer>
__device__ void score_and_sort(const Scorer& scorer, int64_t query, const int* todo, int count, int k,
                               const Naming& naming, Found* found) {
  int halves = SELECTORS / LANES, half = threadIdx.x / LANES, size = 2;
  while (size < k + count) size *= 2;
  for (int c = half; c < ceil_div(count, halves) * halves; c += halves) {
    int64_t row = todo[c < count ? c : 0];
    double score = scorer.score(query, row);
    if (c < count && threadIdx.x % LANES == 0) found[k + c] = {score, naming.ids ? naming.ids[row] : naming.base + row};
  }
  for (int i = k + count + threadIdx.x; i < size; i += SELECTORS) found[i] = NOTHING_FOUND;
  sort_entries(found, size, ByScore());
}

// One block a query. Two passes over the list, first those with the best bounds, so that the threshold drops most of
// the others unread.
template <class Scorer>
__global__ void rescore_kernel(Scorer scorer, Lists lists, Units units, Naming naming, Best best) {
  __shared__ int todo[TODO];
  __shared__ float least;
  int64_t query = blockIdx.x;
  Found* found = shared_memory<Found>();
  int k = int(best.k), count = lists.counts[query];
  if (count == 0) return;
  const int32_t* rows = lists.rows + query * lists.room;
  const float* values = lists.values + query * lists.room;
  auto key = [=](int i) { return key_of(values[i], rows[i]); };
  int first_ones = 2 * k > 64 ? 2 * k : 64;
  uint64_t cut = count > 2 * first_ones ? select_key(count, first_ones, key) : 0;
  load_best(found, k, best, query);
  if (threadIdx.x == 0) least = lists.thresholds[query];
  __syncthreads();
  for (int pass = 0; pass < (cut ? 2 : 1); pass++)
    for (int first = 0, held = 0; first < count; first += SELECTORS) {
      int i = first + threadIdx.x;
      bool mine = i < count && (key(i) >= cut) == (pass == 0) && values[i] >= least;
      int total, place = place_among(mine, total);
      if (mine) todo[held + place] = rows[i];
      held += total;
      __syncthreads();
      if (held == 0 || (held <= TODO - SELECTORS && first + SELECTORS < count)) continue;
      score_and_sort(scorer, query, todo, held, k, naming, found);
      held = 0;
      if (threadIdx.x == 0 && units.multiply)
        least = fmaxf(least, threshold(found[k - 1].score, units.multiply[query], units.offset[query]));
      __syncthreads();
    }
  store_best(found, best, query);
  if (threadIdx.x == 0) {
    lists.counts[query] = 0;
    lists.thresholds[query] = least;
  }
}

void rescore(const Lists& lists, const Vectors& v, const Units& units, const Naming& naming, const Best& best,
             int64_t nq, Stream stream) {
  int size = 2;
  while (size < best.k + TODO) size *= 2;
  with_type(v.type, v, [&](auto scorer) {
    launch(rescore_kernel<decltype(scorer)>, nq, SELECTORS, size * sizeof(Found), stream, scorer, lists, units, naming,
           best);
  });
}

// One block a share of a query's list.
template <class Scorer>
__global__ void rank_kernel(Scorer scorer, Lists lists, Naming naming, int64_t shares, Best best) {
  int64_t query = blockIdx.x / shares, share = blockIdx.x % shares, count = lists.counts[query];
  Found* found = shared_memory<Found>();
  int k = int(best.k);
  for (int i = threadIdx.x; i < k; i += SELECTORS) found[i] = NOTHING_FOUND;
  int64_t first = count * share / shares, last = count * (share + 1) / shares;
  for (; first < last; first += TODO)
    score_and_sort(scorer, query, lists.rows + query * lists.room + first, int(min(last - first, int64_t(TODO))), k,
                   naming, found);
  __syncthreads();
  store_best(found, best, blockIdx.x);
}

void rank_lists(const Lists& lists, const Vectors& v, const Naming& naming, int64_t shares, const Best& partial,
                const Best& best, int64_t nq, Stream stream) {
  int size = 2;
  while (size < best.k + TODO) size *= 2;
  with_type(v.type, v, [&](auto scorer) {
    launch(rank_kernel<decltype(scorer)>, nq * shares, SELECTORS, size * sizeof(Found), stream, scorer, lists, naming,
           shares, shares > 1 ? partial : best);
  });
  if (shares > 1) merge_best(partial, shares, nullptr, best, nq, stream);
}

void top_k_of_rows(const Vectors& v, const Brute& brute, const Best& partial, const Best& best, int64_t nq,
                   Stream stream) {
  with_type(v.type, v, [&](auto scorer) { brute_top_k(scorer, brute, nq, partial, best, stream); });
}

// Half a warp has a row for some queries in turn: it is read from memory once.
template <class Scorer>
__global__ void scores_kernel(Scorer scorer, int64_t queries_each, float* out) {
  const Vectors& v = scorer.v;
  int halves = blockDim.x / LANES;
  int64_t first = blockIdx.y * queries_each, last = min(first + queries_each, v.nq);
  int64_t row = int64_t(blockIdx.x) * halves + threadIdx.x / LANES;
  for (int64_t query = first; query < last; query++) {
    double score = scorer.score(query, min(row, v.n - 1));
    if (row < v.n && threadIdx.x % LANES == 0) out[query * v.n + row] = float(v.metric == L2 ? -score : score);
  }
}

void scores_of_rows(const Vectors& v, float* out, Stream stream) {
  if (v.n == 0 || v.nq == 0) return;
  int64_t blocks = ceil_div<int64_t>(v.n, SELECTORS / LANES);
  int64_t shares = min(v.nq, max(ceil_div<int64_t>(16 * multiprocessors(), blocks), ceil_div<int64_t>(v.nq, 256)));
  shares = min(shares, GRID);
  with_type(v.type, v, [&](auto scorer) {
    launch(scores_kernel<decltype(scorer)>, dim3(blocks, shares), SELECTORS, 0, stream, scorer,
           ceil_div<int64_t>(v.nq, shares), out);
  });
}

}  // namespace nestvec::cuda
