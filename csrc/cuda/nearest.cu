// What searches of binary codes do besides scanning: limits, shortlists, queries whose lists were too short, packing.
#include "bits.h"

namespace nestvec::cuda {

namespace {

struct Bits {
  BitPlane plane;
  BitQueries queries;

  // The distance by words `lane`, `lane + lanes`, ... in the bits from `begin` on.
  __device__ int part(int64_t query, int64_t row, int64_t begin, int lane, int lanes) const {
    int sum = 0;
    const uint64_t* own = queries.words + query * plane.count;
    for (int64_t i = lane; i < queries.width; i += lanes) {
      Word word = plane.table[i];
      uint64_t mask = word.mask(queries.bits) & ~Word::leading(int(begin - word.bit));
      if (mask == 0) continue;
      uint64_t mine = plane.words[word.begin + row / 64 * word.step + row % 64];
      sum += __popcll(queries.what == AND ? ~(mine & own[i]) & mask : (mine ^ own[i]) & mask);
    }
    return sum;
  }

  // For brute_kernel, by half a warp.
  __device__ double score(int64_t query, int64_t row) const {
    int sum = part(query, row, 0, threadIdx.x % LANES, LANES);
    for (int width = LANES / 2; width > 0; width /= 2) sum += __shfl_xor_sync(EVERYBODY, sum, width, LANES);
    return -double(sum);
  }
};

// The k best of more entries than that, by value and then `rank(row)`; the rank that they do not exceed.
template <class Rank>
__device__ int32_t leave_best(const Lists& lists, int64_t query, int count, int k, Rank rank) {
  const int32_t* rows = lists.rows + query * lists.room;
  const float* values = lists.values + query * lists.room;
  auto key = [=](int i) { return key_of(values[i], rank(rows[i])); };
  uint64_t last = select_key(count, k, key);
  compact(lists, query, count, [=](int i) { return key(i) >= last; });
  return int32_t(min(0xffffffffu - uint32_t(last), uint32_t(INT32_MAX)));
}

struct Rank {
  const int32_t* ranks;
  __device__ int32_t operator()(int32_t row) const { return ranks ? ranks[row] : row; }
};

__global__ void narrow_kernel(Near near, int k, bool all) {
  __shared__ int limit, within;
  int64_t query = blockIdx.x;
  const Lists& lists = near.lists;
  int count = lists.counts[query];
  if (lists.lost[query]) {
    if (threadIdx.x == 0) lists.thresholds[query] = 1;  // which nothing reaches
    return;
  }
  if (count < k) return;
  const int32_t* histogram = near.histogram + query * near.bins;
  int64_t step = ceil_div<int64_t>(near.bins, SELECTORS), first = threadIdx.x * step;
  int sum = 0;
  for (int64_t bin = first; bin < first + step && bin < near.bins; bin++) sum += histogram[bin];
  int reached = sum_from_here(sum);  // the nearest are behind
  if (reached >= k && reached - sum < k) {
    int64_t bin = min(first + step, near.bins);
    for (reached -= sum; reached < k;) reached += histogram[--bin];
    limit = int(near.bins - 1 - bin);
    within = reached;
  }
  __syncthreads();
  float least = float(-limit);
  int32_t end = least > lists.thresholds[query] ? INT32_MAX : near.ends[query];
  if (all || within > 2 * k || count > lists.room / 2) {
    const int32_t* rows = lists.rows + query * lists.room;
    const float* values = lists.values + query * lists.room;
    Rank rank = {near.ranks};
    count = compact(lists, query, count,
                    [=](int i) { return values[i] > least || (values[i] == least && rank(rows[i]) <= end); });
    if (count > k) end = leave_best(lists, query, count, k, rank);
    if (threadIdx.x == 0) lists.counts[query] = min(count, k);
  }
  if (threadIdx.x == 0) {
    lists.thresholds[query] = least;
    near.ends[query] = end;
  }
}

__global__ void keep_kernel(Lists lists, Rank rank, int k) {
  int64_t query = blockIdx.x;
  if (lists.counts[query] <= k) return;
  leave_best(lists, query, lists.counts[query], k, rank);
  if (threadIdx.x == 0) lists.counts[query] = k;
}

// Eight lanes a row: they read words that lie apart.
__global__ void list_kernel(Bits bits, int64_t begin, Lists lists) {
  constexpr int EACH = 8;
  int64_t query = blockIdx.x;
  int count = lists.counts[query], lane = threadIdx.x % EACH, step = gridDim.y * blockDim.x / EACH;
  const int32_t* rows = lists.rows + query * lists.room;
  for (int first = blockIdx.y * blockDim.x / EACH; first < count; first += step) {
    int i = first + threadIdx.x / EACH;
    int sum = i < count ? bits.part(query, rows[i], begin, lane, EACH) : 0;
    for (int width = EACH / 2; width > 0; width /= 2) sum += __shfl_xor_sync(EVERYBODY, sum, width, EACH);
    float* value = lists.values + query * lists.room + i;
    if (lane == 0 && i < count) *value = (begin ? *value : 0) - float(sum);
  }
}

// A block a query that reads all rows for each digit of the worst of the nearest: for lists of any length.
__global__ void lost_kernel(Bits bits, int rows, int keep, RowSets allowed, Lists lists) {
  int query = blockIdx.x;
  if (!lists.lost[query]) return;
  auto key = [=](int row) {
    if (!allowed.has(query, row)) return uint64_t(0xffffffffu - uint32_t(row));
    return key_of(float(-bits.part(query, row, 0, 0, 1)), row);
  };
  uint64_t least = select_key(rows, min(keep, rows), key);
  int kept = 0;
  for (int first = 0; first < rows; first += SELECTORS) {
    int row = first + threadIdx.x;
    uint64_t mine = row < rows ? key(row) : 0;
    bool found = row < rows && mine >= least && mine >> 32 != 0;
    int total, place = place_among(found, total);
    if (found) {
      lists.rows[query * lists.room + kept + place] = row;
      lists.values[query * lists.room + kept + place] = unordered(uint32_t(mine >> 32));
    }
    kept += total;
  }
  if (threadIdx.x == 0) {
    lists.counts[query] = kept;
    lists.lost[query] = 0;
  }
}

__global__ void distances_kernel(Best best, int64_t nq, int64_t k, const int32_t* bad, int32_t* distances,
                                 int64_t* ids) {
  int64_t at = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= nq * k) return;
  int64_t i = at % k, from = at / k * best.k + i;
  bool there = i < best.k && best.ids[from] >= 0 && !(bad && bad[at / k]);
  distances[at] = there ? int32_t(-best.scores[from]) : INT32_MAX;
  ids[at] = there ? best.ids[from] : -1;
}

// A thread a byte: whether values are above their thresholds, the first bit highest.
__global__ void signs_kernel(const float* x, int64_t n, int64_t d, int64_t bytes, const float* thresholds,
                             uint8_t* codes) {
  int64_t at = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= n * bytes) return;
  int64_t row = at / bytes, first = at % bytes * 8;
  int byte = 0;
  for (int64_t j = first; j < first + 8 && j < d; j++) byte |= int(x[row * d + j] > thresholds[j]) << (7 - j % 8);
  codes[at] = uint8_t(byte);
}

// The eight bytes from `byte` on, the first highest; zeros behind the end.
__device__ uint64_t bytes_from(const uint8_t* code, int64_t byte, int64_t size) {
  uint64_t value = 0;
  if (byte + 8 <= size && reinterpret_cast<uintptr_t>(code + byte) % 8 == 0) {
    uint64_t word = *reinterpret_cast<const uint64_t*>(code + byte);
    for (int j = 0; j < 64; j += 8) value |= (word >> j & 255) << (56 - j);
  } else {
    for (int j = 0; j < 8 && byte + j < size; j++) value |= uint64_t(code[byte + j]) << (56 - 8 * j);
  }
  return value;
}

// A thread a word of a code: 64 rows after each other, which are written side by side, then their next word.
__global__ void pack_kernel(const uint8_t* codes, int64_t n, int64_t stride, BitPlane plane, int64_t first,
                            uint64_t* queries) {
  int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, each = 64 * plane.count;
  int64_t row = i / each * 64 + i % 64, column = i % each / 64;
  if (row >= n) return;
  Word word = plane.table[column];
  const uint8_t* code = codes + row * stride;
  int64_t byte = word.bit / 8;
  int shift = word.bit % 8;
  uint64_t value = bytes_from(code, byte, stride) << shift;
  if (shift && byte + 8 < stride) value |= code[byte + 8] >> (8 - shift);
  value &= word.mask(word.end);
  int64_t at = first + row;
  (queries ? queries[row * plane.count + column] : plane.words[word.begin + at / 64 * word.step + at % 64]) = value;
}

void pack(const uint8_t* codes, int64_t n, int64_t stride, const BitPlane& plane, int64_t first, uint64_t* queries,
          Stream stream) {
  launch(pack_kernel, ceil_div<int64_t>(ceil_div<int64_t>(n, 64) * 64 * plane.count, 256), 256, 0, stream, codes, n,
         stride, plane, first, queries);
}

}  // namespace

void narrow_lists(const Near& near, int64_t nq, int64_t k, bool all, Stream stream) {
  launch(narrow_kernel, nq, SELECTORS, 0, stream, near, int(k), all);
}

void keep_nearest(const Lists& lists, const int32_t* ranks, int64_t nq, int64_t k, Stream stream) {
  launch(keep_kernel, nq, SELECTORS, 0, stream, lists, Rank{ranks}, int(k));
}

void list_bits(const BitPlane& plane, const BitQueries& queries, int64_t begin, const Lists& lists, Stream stream) {
  launch(list_kernel, dim3(queries.nq, 16), 256, 0, stream, Bits{plane, queries}, begin, lists);
}

void list_lost(const BitPlane& plane, const BitQueries& queries, int64_t rows, int64_t keep, const RowSets& allowed,
               const Lists& lists, Stream stream) {
  launch(lost_kernel, queries.nq, SELECTORS, 0, stream, Bits{plane, queries}, int(rows), int(keep), allowed, lists);
}

void top_k_of_bits(const BitPlane& plane, const BitQueries& queries, const Brute& brute, const Best& partial,
                   const Best& best, Stream stream) {
  brute_top_k(Bits{plane, queries}, brute, queries.nq, partial, best, stream);
}

void as_distances(const Best& best, int64_t nq, int64_t k, const int32_t* bad, int32_t* distances, int64_t* ids,
                  Stream stream) {
  launch(distances_kernel, ceil_div<int64_t>(nq * k, 256), 256, 0, stream, best, nq, k, bad, distances, ids);
}

void pack_signs(const float* x, int64_t n, int64_t d, const float* thresholds, uint8_t* codes, Stream stream) {
  int64_t bytes = ceil_div<int64_t>(d, 8);
  launch(signs_kernel, ceil_div<int64_t>(n * bytes, 256), 256, 0, stream, x, n, d, bytes, thresholds, codes);
}

void pack_codes(const uint8_t* codes, int64_t n, int64_t stride, const BitPlane& plane, int64_t first, Stream stream) {
  pack(codes, n, stride, plane, first, nullptr, stream);
}

void pack_query_codes(const uint8_t* codes, int64_t n, int64_t stride, const BitPlane& plane, uint64_t* words,
                      Stream stream) {
  pack(codes, n, stride, plane, 0, words, stream);
}

}  // namespace nestvec::cuda
