// A warp takes a block of 64 rows, a lane two of them, and loads 512 consecutive bytes for 64 dims. For one query that
// is 20 popcounts of 32 bits for 128 dims of a row: at 16 a clock and multiprocessor they take about as long as reading
// the row's 18 to 20 bytes. Tensor cores take twice that for up to 8 queries, most of it to spread bits to bytes.
#include "signs.h"

namespace nestvec::cuda {

namespace {

template <int QUERIES>
__global__ void __launch_bounds__(256) scan_kernel(Scanned s, int64_t blocks) {
  int lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
  const int64_t words_of_query = s.queries.stride / 64;
  for (int64_t i = int64_t(blockIdx.x) * warps + threadIdx.x / WARP; i < blocks; i += int64_t(gridDim.x) * warps) {
    int64_t row0 = s.blocks.first_row(i), row = row0 + lane * 2, at = 0, below = 0;
    Estimated::Row terms[2];
    for (int r = 0; r < 2; r++) terms[r] = Estimated::row(s.plane, s.levels, s.metric, row + r);
    int sums[2][QUERIES] = {};
    for (int64_t level = 0; level < s.levels; level++) {
      int64_t words = ceil_div<int64_t>(s.plane.bounds[level] - below, 64);
      auto line = reinterpret_cast<const ulonglong2*>(s.plane.codes + s.plane.starts[level] + row0 * words * 8) + lane;
#pragma unroll 4
      for (int64_t word = 0; word < words; word++) {
        ulonglong2 bits = line[word * WARP];
        for (int query = 0; query < QUERIES; query++) {
          const uint64_t* digit = s.queries.digits + query * DIGITS * words_of_query + at + word;
          sums[0][query] = weighed(sums[0][query], bits.x, digit, words_of_query);
          sums[1][query] = weighed(sums[1][query], bits.y, digit, words_of_query);
        }
      }
      at += words;
      below = s.plane.bounds[level];
    }
    for (int query = 0; query < QUERIES; query++)
      for (int r = 0; r < 2; r++) {
        auto parameters = Estimated::query(s.queries, s.levels, query);
        float value = Estimated::value(sums[r][query], terms[r], parameters, s.lifted());
        if (row + r < s.blocks.rows && value >= s.lists.thresholds[query] && s.allowed.has(query, row + r))
          append(s.lists, query, int32_t(row + r), value);
      }
  }
}

}  // namespace

void scan_signs(const Scanned& s, Stream stream) {
  int64_t blocks = s.blocks.count(), grid = min(ceil_div<int64_t>(blocks, 8), int64_t(16 * multiprocessors()));
  if (s.queries.nq == 1)
    launch(scan_kernel<1>, grid, 256, 0, stream, s, blocks);
  else
    launch(scan_kernel<2>, grid, 256, 0, stream, s, blocks);
}

}  // namespace nestvec::cuda
