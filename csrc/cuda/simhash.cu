// Partitions of tokens. Signs are decided in float32 where the error of a product leaves no doubt, else, one in some
// thousand, by half a warp in float64.
#include "columns.h"
#include "fde.h"
#include "numbers.h"

namespace nestvec::cuda {

namespace {

constexpr int TOGETHER = 32;  // repetitions, whose columns fill whole panels

struct Hash {
  TokenRows rows;
  const float* packed;
  double reach;
  int64_t repetitions;
  int k;
  uint32_t* partitions;
};

// The magnitude from which on a product has the right sign for certain; NaN where sums could overflow on the way. Of a
// token of zeros all products are exact.
__device__ inline float least_certain(uint32_t most, int64_t dims, double reach) {
  if (most == 0) return 0;
  double size = __uint_as_float(most) * reach;
  double error = double(dims + 8) * 0x1p-23 * 1.001;
  return size < 1e37 ? float(size * error) + float(dims) * 0x1p-147f : NAN;
}

// Words of 16 signs for each token and panel of a block, and which of them are in doubt.
struct Signs {
  uint16_t *up, *unsure;
  int panels, columns;
  __device__ uint32_t doubt(int word) const {
    int left = columns - word % panels * PANEL;
    return unsure[word] & (left < PANEL ? (1u << left) - 1 : 0xffffu);
  }
};

template <int P>
__device__ void coarse_signs(const Signs& signs, const float (&sums)[HELD][P], const float* least, int first_panel) {
  int token = threadIdx.x / PANEL * HELD, shift = threadIdx.x % WARP / PANEL * PANEL;
#pragma unroll
  for (int i = 0; i < HELD; i++) {
    float certain = least[token + i];
#pragma unroll
    for (int p = 0; p < P; p++) {
      bool down = sums[i][p] <= -certain, up = !down && sums[i][p] >= certain;
      unsigned positive = __ballot_sync(EVERYBODY, up), unsure = __ballot_sync(EVERYBODY, !down && !up);
      if (threadIdx.x % PANEL == 0 && first_panel + p < signs.panels) {
        int word = (token + i) * signs.panels + first_panel + p;
        signs.up[word] = uint16_t(positive >> shift);
        signs.unsure[word] = uint16_t(unsure >> shift);
      }
    }
  }
}

// Whether the float64 product of a token with a column is positive; all lanes of a warp ask for the same.
__device__ inline bool exact_sign(const float* token, const float* column, int64_t dims) {
  double lane = 0;
  for (int64_t j = threadIdx.x % LANES; j < dims; j += LANES) lane += double(token[j]) * double(column[j * PANEL]);
  return fold(lane) > 0;
}

__device__ inline void decide(const Hash& h, const Signs& signs, int64_t first_token, const float* packed) {
  int lane = threadIdx.x % WARP;
  for (int base = threadIdx.x - lane; base < TOKENS * signs.panels; base += MULTIPLIERS) {
    uint32_t mine = signs.doubt(base + lane);
    for (unsigned some = __ballot_sync(EVERYBODY, mine != 0); some; some &= some - 1) {
      int from = __ffs(int(some)) - 1, word = base + from;
      uint32_t up = 0;
      const float* token = h.rows.x + (first_token + word / signs.panels) * h.rows.dims;
      const float* panel = packed + word % signs.panels * h.rows.dims * PANEL;
      for (uint32_t left = __shfl_sync(EVERYBODY, mine, from); left; left &= left - 1) {
        int bit = __ffs(int(left)) - 1;
        up |= uint32_t(exact_sign(token, panel + bit, h.rows.dims)) << bit;
      }
      if (lane == 0) signs.up[word] |= uint16_t(up);
    }
  }
}

// Sign bits of one repetition, which are a Gray code.
__device__ inline uint32_t partition_of(const uint16_t* words, int count, int first_bit, int k) {
  uint64_t bits = 0;
  for (int i = 0, word = first_bit / 16; i < 3 && word + i < count; i++) bits |= uint64_t(words[word + i]) << 16 * i;
  uint32_t code = uint32_t(bits >> first_bit % 16) & ((1u << k) - 1);
  for (int shift = 1; shift < 32; shift *= 2) code ^= code >> shift;
  return code;
}

template <int P>
__global__ void __launch_bounds__(MULTIPLIERS, 2) simhash_kernel(Hash h, int64_t groups) {
  int64_t first_token = blockIdx.x / groups * TOKENS, first = blockIdx.x % groups * TOGETHER;
  int count = int(h.repetitions - first < TOGETHER ? h.repetitions - first : TOGETHER);
  float *tile = shared_memory<float>(), *columns = tile + DIMS * TOKENS, *least = columns + P * DIMS * PANEL;
  Signs signs = {reinterpret_cast<uint16_t*>(least + TOKENS), nullptr, ceil_div(count * h.k, PANEL), count * h.k};
  signs.unsure = signs.up + TOKENS * signs.panels;
  const float* packed = h.packed + first * h.k * h.rows.dims;
  for (int panel = 0; panel < signs.panels; panel += P) {
    float sums[HELD][P];
    uint32_t most[ROUNDS] = {};
    products<P, true>(h.rows, first_token, packed + panel * h.rows.dims * PANEL, signs.panels - panel, tile, columns,
                      sums, most);
    for (int round = 0; round < ROUNDS; round++) {
      for (int lanes = 4; lanes > 0; lanes /= 2) {
        uint32_t other = __shfl_xor_sync(EVERYBODY, most[round], lanes);
        if (other > most[round]) most[round] = other;
      }
      if (threadIdx.x % 8 == 0)
        least[threadIdx.x / 8 + round * (MULTIPLIERS / 8)] = least_certain(most[round], h.rows.dims, h.reach);
    }
    __syncthreads();
    coarse_signs<P>(signs, sums, least, panel);
  }
  __syncthreads();
  decide(h, signs, first_token, packed);
  __syncthreads();
  for (int i = threadIdx.x; i < TOKENS * count; i += MULTIPLIERS) {
    int token = i / count, r = i % count;
    if (first_token + token < h.rows.n)
      h.partitions[(first_token + token) * h.repetitions + first + r] =
          partition_of(signs.up + token * signs.panels, signs.panels, r * h.k, h.k);
  }
}

}  // namespace

void simhash(const float* x, int64_t n, int64_t dims, const float* panels, double reach, int64_t repetitions, int k,
             uint32_t* partitions, Stream stream) {
  if (n == 0 || repetitions == 0) return;
  if (k == 0) return clear(partitions, 0, size_t(n * repetitions) * sizeof *partitions, stream);
  Hash h = {token_rows(x, n, dims), panels, reach, repetitions, k, partitions};
  int64_t together = repetitions < TOGETHER ? repetitions : TOGETHER, most = ceil_div<int64_t>(together * k, PANEL);
  int64_t groups = ceil_div<int64_t>(repetitions, TOGETHER);
  with_panels(panels_of_pass(most), [&](auto count) {
    size_t floats = DIMS * TOKENS + count.value * DIMS * PANEL + TOKENS;
    launch(simhash_kernel<count.value>, ceil_div<int64_t>(n, TOKENS) * groups, MULTIPLIERS,
           floats * sizeof(float) + 2 * TOKENS * most * sizeof(uint16_t), stream, h, groups);
  });
}

}  // namespace nestvec::cuda
