// Exact MaxSim, bit for bit that of python/nestvec/kernels/maxsim.py, and the lists of documents that may be the best.
#include "maxsim.h"

namespace nestvec::cuda {

namespace {

constexpr int FOUR = 4;                                  // query tokens whose products half a warp sums at a time
constexpr int TURN = 16;                                 // query tokens of a block at a time
constexpr int SHARES = SELECTORS / LANES * FOUR / TURN;  // into which a block cuts a document's tokens

// The sums `fold` makes of four numbers a lane, with a third of its exchanges: lane l gets sum l / 4.
__device__ double fold_four(const double (&sums)[FOUR]) {
  bool upper = threadIdx.x & 8, odd = threadIdx.x & 4;
  double first = upper ? sums[2] : sums[0], second = upper ? sums[3] : sums[1];
  first += __shfl_xor_sync(EVERYBODY, upper ? sums[0] : sums[2], 8, LANES);
  second += __shfl_xor_sync(EVERYBODY, upper ? sums[1] : sums[3], 8, LANES);
  double sum = odd ? second : first;
  sum += __shfl_xor_sync(EVERYBODY, odd ? first : second, 4, LANES);
  sum += __shfl_xor_sync(EVERYBODY, sum, 2, LANES);
  return sum + __shfl_xor_sync(EVERYBODY, sum, 1, LANES);
}

template <class Rows>
struct Scorer {
  Bags bags;
  QueryBags queries;

  // The largest inner product of query token `token` + l / 4, at most `last_token`, for lane l of half a warp, with
  // `count` document tokens first, first + step, ..., the last of them again where they reach beyond.
  __device__ double largest(int64_t token, int64_t last_token, int64_t first, int64_t last, int64_t step,
                            int64_t count) const {
    int lane = threadIdx.x % LANES;
    const float* q[FOUR];
    for (int i = 0; i < FOUR; i++) q[i] = queries.tokens + min(token + i, last_token) * bags.dims;
    double best = -INFINITY;
    for (int64_t i = 0; i < count; i++) {
      int64_t at = max(min(first + i * step, last - 1), int64_t(0));
      auto x = static_cast<const typename Rows::Stored*>(bags.tokens) + at * bags.stride;
      double sums[FOUR] = {};
      for (int64_t j = lane; j < bags.dims; j += LANES) {
        double b = Rows::widened(x[j]);
        for (int part = 0; part < FOUR; part++) sums[part] += double(q[part][j]) * b;
      }
      double sum = fold_four(sums) * (bags.scales ? double(bags.scales[at]) : 1.0);
      best = sum > best ? sum : best;
    }
    return best;
  }

  // By half a warp; the other half may have another document.
  __device__ double score(int64_t query, int64_t doc) const {
    int64_t first = bags.offsets[doc], last = bags.offsets[doc + 1], token = queries.offsets[query];
    int64_t end = queries.offsets[query + 1];
    int64_t most = max(last - first, int64_t(__shfl_xor_sync(EVERYBODY, (long long)(last - first), LANES)));
    double total = 0;
    for (; token < end; token += FOUR) {
      double mine = largest(token, end - 1, first, last, 1, most);
      for (int i = 0; i < FOUR; i++) {
        double one = __shfl_sync(EVERYBODY, mine, i * (LANES / FOUR), LANES);
        if (token + i < end) total += one;
      }
    }
    return first < last ? total : -INFINITY;
  }

  // By a block of SELECTORS threads; thread 0 has it.
  __device__ double score_together(int64_t query, int64_t doc) const {
    __shared__ double held[SHARES][TURN];
    int half = threadIdx.x / LANES, four = half % (TURN / FOUR) * FOUR, share = half / (TURN / FOUR);
    int64_t first = bags.offsets[doc], last = bags.offsets[doc + 1], end = queries.offsets[query + 1];
    double total = 0;
    if (first == last) return -INFINITY;
    for (int64_t token = queries.offsets[query]; token < end; token += TURN) {
      double mine =
          largest(token + four, end - 1, first + share, last, SHARES, ceil_div<int64_t>(last - first, SHARES));
      if (threadIdx.x % FOUR == 0) held[share][four + threadIdx.x % LANES / FOUR] = mine;
      __syncthreads();
      for (int i = 0; i < TURN && threadIdx.x == 0 && token + i < end; i++) {
        double best = held[0][i];
        for (int other = 1; other < SHARES; other++) best = held[other][i] > best ? held[other][i] : best;
        total += best;
      }
      __syncthreads();
    }
    return total;
  }
};

template <class Do>
void with_type(const Bags& bags, const QueryBags& queries, Do act) {
  if (bags.type == FLOAT32) act(Scorer<F32>{bags, queries});
  if (bags.type == FLOAT16) act(Scorer<F16>{bags, queries});
  if (bags.type == BFLOAT16) act(Scorer<BF16>{bags, queries});
  if (bags.type == INT8) act(Scorer<I8>{bags, queries});
}

// A block for some entries of a list.
template <class Scorer>
__global__ void score_lists_kernel(Scorer scorer, Lists lists, Naming naming, Best scored) {
  int64_t query = blockIdx.x;
  int count = lists.lost[query] ? 0 : lists.counts[query];
  for (int64_t i = blockIdx.y; i < lists.room; i += gridDim.y) {
    int64_t place = query * scored.k + i, row = i < count ? lists.rows[query * lists.room + i] : 0;
    double score = i < count ? scorer.score_together(query, row) : 0;
    if (threadIdx.x != 0) continue;
    scored.scores[place] = score;
    scored.ids[place] = i < count ? naming.ids ? naming.ids[row] : naming.base + row : -1;
  }
}

template <class Scorer>
__global__ void score_items_kernel(Scorer scorer, Items items, bool irregular, float* out) {
  int64_t query = blockIdx.x, count = items.last - items.first;
  for (int64_t i = blockIdx.y; i < count; i += gridDim.y) {
    int64_t doc = items.docs ? items.docs[query * items.step + items.first + i] : items.first + i;
    bool there = doc >= 0 && doc < scorer.bags.n;
    if (irregular && (!there || scorer.bags.norms[doc] < INFINITY)) continue;
    double score = there ? scorer.score_together(query, doc) : -INFINITY;
    if (threadIdx.x == 0) out[query * count + i] = float(score);
  }
}

__device__ float rounded_down(double value) {
  if (!(value > -HUGE_ESTIMATE)) return -INFINITY;
  if (value > HUGE_ESTIMATE) return HUGE_ESTIMATE;
  float rounded = float(value);
  return double(rounded) > value ? unordered(ordered(rounded) - 1) : rounded;
}

// A block a query. An upper bound is sum + error rounded up, a lower one sum - error.
__global__ void tighten_kernel(Lists lists, Bags bags, QueryBags queries, Tiles tiles, int64_t k) {
  __shared__ float raised;
  int64_t query = blockIdx.x;
  int count = lists.counts[query];
  if (count < k || lists.lost[query]) return;
  int32_t* rows = lists.rows + query * lists.room;
  float* values = lists.values + query * lists.room;
  double error = 0;
  for (int64_t tile = queries.tiles[query]; tile < queries.tiles[query + 1]; tile++) error += tiles.errors[tile];
  auto lower = [=](int i) {
    double upper = values[i], norm = bags.norms[rows[i]];
    return norm < INFINITY ? rounded_down(upper - 2 * error * norm * (1 + 0x1p-40) - fabs(upper) * 0x1p-22 - 1e-44)
                           : -INFINITY;
  };
  uint64_t least = select_key(count, int(k), [=](int i) { return key_of(lower(i), rows[i]); });
  if (threadIdx.x == 0) {
    float found = unordered(uint32_t(least >> 32)), before = lists.thresholds[query];
    raised = found > before ? found : before;  // of bits cut off from -inf come NaNs
  }
  __syncthreads();
  int kept = compact(lists, query, count, [=](int i) { return values[i] >= raised; });
  if (threadIdx.x != 0) return;
  lists.counts[query] = kept;
  lists.thresholds[query] = raised;
}

}  // namespace

void tighten(const Lists& lists, const Bags& bags, const QueryBags& queries, const Tiles& tiles, int64_t k,
             Stream stream) {
  launch(tighten_kernel, queries.nq, SELECTORS, 0, stream, lists, bags, queries, tiles, k);
}

void score_lists(const Lists& lists, const Bags& bags, const QueryBags& queries, const Naming& naming,
                 const Best& scored, Stream stream) {
  int64_t blocks = min(lists.room, max(int64_t(1), ceil_div<int64_t>(int64_t(16) * multiprocessors(), queries.nq)));
  with_type(bags, queries, [&](auto scorer) {
    launch(score_lists_kernel<decltype(scorer)>, dim3(queries.nq, blocks), SELECTORS, 0, stream, scorer, lists, naming,
           scored);
  });
}

void score_items(const Bags& bags, const QueryBags& queries, const Items& items, bool irregular, float* out,
                 Stream stream) {
  if (queries.nq == 0 || items.first >= items.last) return;
  int64_t blocks = min(items.last - items.first, max(int64_t(1), 16 * multiprocessors() / queries.nq));
  with_type(bags, queries, [&](auto scorer) {
    launch(score_items_kernel<decltype(scorer)>, dim3(queries.nq, blocks), SELECTORS, 0, stream, scorer, items,
           irregular, out);
  });
}

void top_k_of_bags(const Bags& bags, const QueryBags& queries, const Brute& brute, const Best& partial,
                   const Best& best, Stream stream) {
  with_type(bags, queries, [&](auto scorer) { brute_top_k(scorer, brute, queries.nq, partial, best, stream); });
}

}  // namespace nestvec::cuda
