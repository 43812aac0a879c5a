// Fixed dimensional encodings of bags of tokens; specification: python/nestvec/kernels/fde.py.
// Cost: simhash is bound by the float32 product (R k d multiply-adds a token; one sign in 2,700 is decided in
// float64); encoding by one addition a token, repetition and coordinate, 32 tokens at a time where there is a sketch.
#pragma once
#include "../kernels.h"
#include "columns.h"
#include "exact.h"

namespace nestvec {
namespace {

constexpr int64_t kMostBits = 30;
constexpr int64_t kRepetitions = 16;  // repetitions, whose columns fill whole panels

// The magnitude from which on a coarse product has the right sign for certain; NaN, which no product reaches, where
// sums could overflow on the way.
inline float least_certain(const float* x, int64_t d, double reach) {
  uint32_t most = 0;
  for (int64_t j = 0; j < d; j++) {
    uint32_t magnitude = bits_of(x[j]) & 0x7FFFFFFF;
    most = magnitude > most ? magnitude : most;
  }
  double size = float_of(most) * reach;
  return size < 1e37 ? float(size * product_error(d) * 1.001) + float(d) * 0x1p-147f : __builtin_nanf("");
}

// Sign bits of one panel's sums, and which of them are not certain.
inline uint32_t coarse_signs(const float* sums, float least, uint32_t& unsure) {
  uint32_t positive = 0, negative = 0;
  for (int p = 0; p < kParts; p++) {
    F32N v = load<F32N>(sums + p * kF32);
    positive |= at_least(v, splat(least)) << p * kF32;
    negative |= at_least(splat(-least), v) << p * kF32;
  }
  unsure = ~(positive | negative) & 0xFFFF;
  return positive;
}

// Bits of a group of repetitions, one after the other, each the last sign first, as panels are packed.
inline void group_bits(const float* x, int64_t d, const double* gaussians, const float* sums, float least,
                       int64_t columns, int64_t k, uint8_t* bits) {
  for (int64_t first = 0; first < columns; first += kPanel) {
    uint32_t unsure, signs = coarse_signs(sums + first, least, unsure);
    if (columns - first < kPanel) unsure &= (1u << (columns - first)) - 1;
    for (; unsure; unsure &= unsure - 1) {
      int bit = __builtin_ctz(unsure);
      int64_t column = first + bit, row = column / k * k + (k - 1 - column % k);
      double sum;
      reduce<Dot, F32Rows, 1>(gaussians + row * d, &x, d, &sum);
      signs = (signs & ~(1u << bit)) | uint32_t(sum > 0) << bit;
    }
    uint16_t word = uint16_t(signs);
    memcpy(bits + first / 8, &word, 2);
  }
}

// Gray codes of `count` bit strings of k bits to partitions: every bit with those above it.
inline void decode(const uint8_t* bits, int64_t count, int64_t k, uint32_t* partitions) {
  uint32_t codes[kRepetitions] = {};
  for (int64_t r = 0; r < count; r++) {
    uint64_t word;
    memcpy(&word, bits + (r * k >> 3), 8);
    codes[r] = uint32_t(word >> (r * k & 7)) & ((1u << k) - 1);
  }
  for (int64_t r = 0; r < kRepetitions; r++)
    for (int shift = 1; shift < 32; shift *= 2) codes[r] ^= codes[r] >> shift;
  memcpy(partitions, codes, count * sizeof codes[0]);
}

void simhash(const float* x, int64_t n, int64_t d, const double* gaussians, const float* panels, double reach,
             int64_t repetitions, int64_t k, uint32_t* partitions) {
  if (k == 0) {
    memset(partitions, 0, n * repetitions * sizeof partitions[0]);
    return;
  }
  float sums[kTokens * kMostBits * kRepetitions], least[kTokens];
  for (int64_t t = 0, blocks = (n + kTokens - 1) / kTokens, some; blocks > 0; t += some, blocks--) {
    some = (n - t + blocks - 1) / blocks;
    for (int64_t i = 0; i < some; i++) least[i] = least_certain(x + (t + i) * d, d, reach);
    for (int64_t r = 0; r < repetitions; r += kRepetitions) {
      int64_t count = repetitions - r < kRepetitions ? repetitions - r : kRepetitions, columns = count * k;
      int64_t wide = (columns + kPanel - 1) / kPanel;
      products(x + t * d, d, some, panels + r * k * d, wide, d, sums, wide * kPanel);
      for (int64_t i = 0; i < some; i++) {
        uint8_t bits[kMostBits * kRepetitions / 8 + 8] = {};
        group_bits(x + (t + i) * d, d, gaussians + r * k * d, sums + i * wide * kPanel, least[i], columns, k, bits);
        decode(bits, count, k, partitions + (t + i) * repetitions + r);
      }
    }
  }
}

constexpr int64_t kLanes = 32;  // tokens sketched at a time, or half of them

inline int64_t whole_tiles(int64_t n) { return (n + kTile - 1) / kTile * kTile; }

struct FdeScratch {
  uint64_t* keys;
  float *blocks, *heads, *tile;  // heads: what each block began with
  int32_t* counts;
  FdeScratch(const Fde& e, int64_t d, float* at) {
    int64_t size = e.repetitions * e.parts * e.width;
    keys = reinterpret_cast<uint64_t*>(at);
    blocks = at += e.fill ? 2 * e.parts : 0;
    heads = at += e.final ? size : 0;
    tile = at += e.fill && e.ams ? size : 0;
    counts = reinterpret_cast<int32_t*>(e.ams ? at + kLanes * (d + e.width + whole_tiles(e.width)) : at);
  }
};

// What a network of swaps between vectors is made of: lanes whose number has a bit move to the other vector.
template <int N, int... L>
struct Lanes : Lanes<N - 1, N - 1, L...> {};
template <int... L>
struct Lanes<0, L...> {
  template <int Step>
  static void swap(F32N* v) {
    for (int i = 0; i < kF32; i++) {
      if (i & Step) continue;
      F32N a = v[i], b = v[i + Step];
      v[i] = __builtin_shufflevector(a, b, (L & Step ? kF32 + L - Step : L)...);
      v[i + Step] = __builtin_shufflevector(a, b, (L & Step ? kF32 + L : L + Step)...);
    }
  }
};

// to[c, r] = from[r, c]; rows of `to` are whole vectors, and hold copies of the last row of `from` behind it.
inline void transpose(const float* from, int64_t stride, int64_t rows, int64_t columns, float* to, int64_t to_stride) {
  int64_t whole = columns / kF32 * kF32;
  for (int64_t r = 0; r < rows; r += kF32) {
    for (int64_t c = 0; c < whole; c += kF32) {
      F32N v[kF32];
      for (int i = 0; i < kF32; i++) v[i] = load<F32N>(from + (r + i < rows ? r + i : rows - 1) * stride + c);
      Lanes<kF32>::swap<1>(v);
      Lanes<kF32>::swap<2>(v);
      if constexpr (kF32 > 4) Lanes<kF32>::swap<4>(v);
      if constexpr (kF32 > 8) Lanes<kF32>::swap<8>(v);
      for (int i = 0; i < kF32; i++) store(to + (c + i) * to_stride + r, v[i]);
    }
    for (int64_t c = whole; c < columns; c++)
      for (int64_t i = r; i < r + kF32; i++) to[c * to_stride + i] = from[(i < rows ? i : rows - 1) * stride + c];
  }
}

// The sketches of L tokens, given as lanes, as rows of whole tiles.
template <int64_t L>
void project(const float* lanes, const int32_t* entries, int64_t d, int64_t width, float* sums, float* rows) {
  memset(sums, 0, width * L * sizeof *sums);
  for (int64_t i = 0; i < d; i++, lanes += L) {
    float* to = sums + (entries[i] & INT32_MAX) * L;
    U32N sign = U32N{} + (uint32_t(entries[i]) & 0x80000000);
    for (int64_t p = 0; p < L; p += kF32) store(to + p, load<F32N>(to + p) + (F32N)(load<U32N>(lanes + p) ^ sign));
  }
  transpose(sums, L, width, L, rows, whole_tiles(width));
}

// block += row, or 0 + row for the first one: a mask instead of a branch, which would be a guess. W: width if known.
template <int64_t W = 0>
void add_row(const float* row, int64_t width, bool first, float* block) {
  uint32_t keep = first ? 0 : ~0u;
  int64_t whole = W ? W : width / kF32 * kF32;
  for (int64_t c = 0; c < whole; c += kF32)
    store(block + c, (F32N)(load<U32N>(block + c) & keep) + load<F32N>(row + c));
  for (int64_t c = whole; c < width && !W; c++) block[c] = (first ? 0.0f : block[c]) + row[c];
}

// Adds n tokens to the blocks of one repetition; `step` is from token to token.
template <int64_t W = 0>
void add_rows(const float* rows, int64_t stride, int64_t n, int64_t width, const uint32_t* partitions, int64_t step,
              int32_t* counts, float* blocks) {
  for (int64_t t = 0; t < n; t++, rows += stride, partitions += step)
    add_row<W>(rows, width, counts[*partitions]++ == 0, blocks + *partitions * (W ? W : width));
}

// Adds up to L tokens to the blocks of all repetitions, by their sketches.
template <int64_t L>
void add_sketches(const float* x, int64_t n, int64_t d, const uint32_t* partitions, const Fde& e, const FdeScratch& s,
                  float* blocks) {
  float *lanes = s.tile, *sums = lanes + L * d, *rows = sums + L * e.width;
  int64_t stride = whole_tiles(e.width);
  transpose(x, d, n, d, lanes, L);
  for (int64_t r = 0; r < e.repetitions; r++, blocks += e.parts * e.width, partitions++) {
    int32_t* counts = s.counts + r * e.parts;
    float* heads = s.heads + r * e.parts * e.width;
    project<L>(lanes, e.ams + r * d, d, e.width, sums, rows);
    for (int64_t t = n - 1; e.fill && t >= 0; t--) {
      int64_t p = partitions[t * e.repetitions];
      if (counts[p] == 0) add_row(rows + t * stride, e.width, true, heads + p * e.width);
    }
    if (e.width == kTile)
      add_rows<kTile>(rows, stride, n, e.width, partitions, e.repetitions, counts, blocks);
    else
      add_rows(rows, stride, n, e.width, partitions, e.repetitions, counts, blocks);
  }
}

// Keys (distance, token) of every code of sign bits: distances spread along one axis of the hypercube after the other.
inline void nearest_tokens(const uint32_t* partitions, int64_t n, const Fde& e, uint64_t* keys) {
  constexpr uint64_t kFar = uint64_t(1) << 62, kStep = uint64_t(1) << 32;
  for (int64_t code = 0; code < e.parts; code++) keys[code] = kFar;
  for (int64_t t = n - 1; t >= 0; t--) {
    uint32_t p = partitions[t * e.repetitions];
    keys[p ^ (p >> 1)] = t;
  }
  for (int64_t axis = 1; axis < e.parts; axis *= 2)
    for (int64_t base = 0; base < e.parts; base += 2 * axis)
      for (int64_t code = base; code < base + axis; code++) {
        uint64_t a = keys[code], b = keys[code + axis];
        keys[code] = a < b + kStep ? a : b + kStep;
        keys[code + axis] = b < a + kStep ? b : a + kStep;
      }
}

enum Mode { kSum, kMean, kShrunk };

// n or n^0.75, by operations that round correctly everywhere.
inline float divisor_of(int32_t n, int mode) {
  double root = __builtin_sqrt(double(n));
  return mode == kMean ? float(n) : float(root * __builtin_sqrt(root));
}

// Means, and what blocks without tokens hold.
inline void finish(const float* x, int64_t n, int64_t d, const uint32_t* partitions, const Fde& e, const FdeScratch& s,
                   int64_t r, float* blocks) {
  const int32_t* counts = s.counts + r * e.parts;
  if (e.fill) nearest_tokens(partitions + r, n, e, s.keys);
  for (int64_t p = 0; p < e.parts; p++) {
    float* block = blocks + (r * e.parts + p) * e.width;
    if (counts[p] > 1 && e.mode != kSum) {
      float divisor = divisor_of(counts[p], e.mode);
      for (int64_t c = 0; c < e.width; c++) block[c] /= divisor;
    } else if (counts[p] == 0 && e.fill) {
      int64_t t = int64_t(s.keys[p ^ (p >> 1)] & 0xFFFFFFFF);
      const float* head = s.heads + (r * e.parts + partitions[t * e.repetitions + r]) * e.width;
      add_row(e.ams ? head : x + t * d + r * e.step, e.width, true, block);
    } else if (counts[p] == 0 && !e.final) {
      memset(block, 0, e.width * sizeof *block);
    }
  }
}

// Sketches the blocks that hold anything.
inline void sketch(const float* blocks, const Fde& e, const int32_t* counts, float* out) {
  memset(out, 0, e.size * sizeof *out);
  for (int64_t block = 0; block < e.repetitions * e.parts; block++) {
    if (counts && counts[block] == 0 && !e.fill) continue;
    for (int64_t i = block * e.width; i < (block + 1) * e.width; i++)
      out[e.final[i] & INT32_MAX] += float_of(bits_of(blocks[i]) ^ (uint32_t(e.final[i]) & 0x80000000));
  }
}

inline void add_tokens(const float* x, int64_t n, int64_t d, const uint32_t* partitions, const Fde& e,
                       const FdeScratch& s, float* blocks) {
  for (int64_t r = 0; r < e.repetitions && !e.ams; r++)
    add_rows(x + r * e.step, d, n, e.width, partitions + r, e.repetitions, s.counts + r * e.parts,
             blocks + r * e.parts * e.width);
  for (int64_t t = 0, some; t < n && e.ams; t += some) {
    some = n - t < kLanes ? n - t : kLanes;
    auto add = some > kTile ? add_sketches<kLanes> : add_sketches<kTile>;
    add(x + t * d, some, d, partitions + t * e.repetitions, e, s, blocks);
  }
}

void encode_bags(const Bags& bags, const Fde& e, float* scratch, float* out) {
  FdeScratch s(e, bags.dims, scratch);
  for (int64_t i = 0; i < bags.n; i++) {
    int64_t begin = bags.offsets[i], n = bags.offsets[i + 1] - begin;
    const float* x = bags.x + begin * bags.dims;
    const uint32_t* partitions = bags.partitions + begin * e.repetitions;
    float *row = out + i * e.size, *blocks = e.final ? s.blocks : row;
    memset(s.counts, 0, e.repetitions * e.parts * sizeof *s.counts);
    add_tokens(x, n, bags.dims, partitions, e, s, blocks);
    for (int64_t r = 0; r < e.repetitions; r++) finish(x, n, bags.dims, partitions, e, s, r, blocks);
    if (e.final) sketch(blocks, e, s.counts, row);
  }
}

}  // namespace
}  // namespace nestvec
