// Exact MaxSim; specification: python/nestvec/kernels/maxsim.py. Float32 products of all pairs say which tokens can be
// a query token's maximum; those, one or two of a document's as a rule, are computed in float64. Cost: m d / 16
// multiply-adds of 16 lanes a token, at most the reading of it; a tenth of that for what is certified.
#pragma once
#include "columns.h"
#include "exact.h"
#include "pack.h"

namespace nestvec {
namespace {

constexpr int64_t kRun = 128;  // tokens whose products are kept, 16 KB
constexpr int64_t kGroupColumns = 2 * kPanel;

// Token types: the bits of a magnitude, which order as magnitudes do, and the first that is not finite.
struct F32Tokens : F32Rows {
  typedef uint32_t Bits;
  static constexpr Bits kMagnitude = 0x7FFFFFFF, kInfinite = 0x7F800000;
  static float widen_one(float x) { return x; }
  static float magnitude(Bits bits) { return float_of(bits); }
};
template <float Widen(uint16_t), uint16_t kInf>
struct HalfTokens : HalfRows<Widen> {
  typedef uint16_t Bits;
  static constexpr Bits kMagnitude = 0x7FFF, kInfinite = kInf;
  static float widen_one(uint16_t x) { return Widen(x); }
  static float magnitude(Bits bits) { return Widen(bits); }
};
typedef HalfTokens<widen_one_f16, 0x7C00> F16Tokens;
typedef HalfTokens<widen_one_bf16, 0x7F80> BF16Tokens;
struct I8Tokens {
  typedef int8_t Element;
  typedef uint8_t Bits;
  static constexpr Bits kMagnitude = 0, kInfinite = 1;
  static float widen_one(int8_t x) { return x; }
  static float magnitude(Bits) { return 128; }
  static F64x16 load16(const int8_t* p) {
    double values[16];
    for (int i = 0; i < 16; i++) values[i] = p[i];
    return nestvec::load16(values);
  }
};

// Room that the caller lends: per query token the best exact product, the best coarse one, |q|_1 and what a coarse
// product may be off by; the query tokens as columns; a run of widened tokens.
struct MaxSimRoom {
  double* best;
  float *most, *norms, *slack, *columns, *widened;

  MaxSimRoom(uint8_t* scratch, int64_t m, int64_t dims) {
    int64_t padded = (m + kPanel - 1) / kPanel * kPanel;
    best = reinterpret_cast<double*>(scratch);
    most = reinterpret_cast<float*>(best + padded);
    norms = most + padded;
    slack = norms + padded;
    columns = slack + padded;
    widened = columns + padded * dims;
  }
};

template <class Type>
inline typename Type::Bits largest_bits(const Documents& bags, int64_t first, int64_t last) {
  typedef typename Type::Bits Bits;
  bool joined = bags.stride == bags.dims;
  int64_t rows = joined ? 1 : last - first, dims = joined ? (last - first) * bags.dims : bags.dims;
  Bits most = 0;
  for (int64_t r = 0; r < rows; r++) {
    const char* row = static_cast<const char*>(bags.tokens) + (first + r) * bags.stride * int64_t(sizeof(Bits));
    for (int64_t j = 0; j < dims; j++) {
      Bits bits;
      memcpy(&bits, row + j * sizeof bits, sizeof bits);
      bits &= Type::kMagnitude;
      most = bits > most ? bits : most;
    }
  }
  return most;
}

// Exact products of one query token with the tokens of a run that may be its largest.
template <class Type>
inline void raise_best(const BagQueries& q, int64_t column, const typename Type::Element* token, float scale,
                       int64_t dims, double* best) {
  double product;
  reduce<Dot, Type, 1>(q.data + column * dims, &token, dims, &product);
  product *= double(scale);
  if (product > best[column]) best[column] = product;
}

// Tokens [first, first + n) of a document, at most a run.
template <class Type>
void raise_maxima(const BagQueries& q, const Documents& bags, int64_t first, int64_t n, const MaxSimRoom& room,
                  const Ahead& ahead) {
  typedef typename Type::Element Element;
  const Element* tokens = static_cast<const Element*>(bags.tokens) + first * bags.stride;
  const float* scales = bags.scales ? bags.scales + first : nullptr;
  const float* x = room.widened;
  int64_t stride = bags.dims;
  if constexpr (sizeof(Element) == sizeof(float)) {
    if (!scales) {
      x = reinterpret_cast<const float*>(tokens);
      stride = bags.stride;
    }
  }
  for (int64_t t = 0; x == room.widened && t < n; t++)
    for (int64_t j = 0; j < bags.dims; j++) {
      float value = Type::widen_one(tokens[t * bags.stride + j]);
      room.widened[t * bags.dims + j] = scales ? value * scales[t] : value;
    }
  float coarse[kRun * kGroupColumns];
  for (int64_t column = 0; column < q.m; column += kGroupColumns) {
    int64_t panels = q.m - column > kPanel ? 2 : 1;
    products(x, stride, n, room.columns + column * bags.dims, panels, bags.dims, coarse, kGroupColumns,
             column ? Ahead() : ahead);
    for (int64_t v = 0; v < panels * kPanel && column + v < q.m; v += kF32) {
      F32N most = load<F32N>(room.most + column + v);
      for (int64_t t = 0; t < n; t++) most = max(load<F32N>(coarse + t * kGroupColumns + v), most);
      store(room.most + column + v, most);
      F32N least = most - load<F32N>(room.slack + column + v);
      uint32_t all = (uint64_t(1) << (q.m - column - v < kF32 ? q.m - column - v : kF32)) - 1;
      for (int64_t t = 0; t < n; t++) {
        // whatever is not below, a NaN of infinite slack among it
        uint32_t some = all & ~below(load<F32N>(coarse + t * kGroupColumns + v), least);
        for (; some; some &= some - 1)
          raise_best<Type>(q, column + v + __builtin_ctz(some), tokens + t * bags.stride, scales ? scales[t] : 1,
                           bags.dims, room.best);
      }
    }
  }
}

template <class Type>
inline Ahead reading(const Documents& bags, int64_t doc) {
  int64_t row = bags.stride * int64_t(sizeof(typename Type::Element));
  return {static_cast<const char*>(bags.tokens) + bags.offsets[doc] * row, row};
}

// False if the document holds NaN or Inf.
template <class Type>
bool begin_document(const BagQueries& q, const Documents& bags, int64_t first, int64_t last, const MaxSimRoom& room) {
  auto bits = largest_bits<Type>(bags, first, last);
  if (bits >= Type::kInfinite) return false;
  float largest = Type::magnitude(bits), scale = bags.scales ? largest_magnitude(bags.scales + first, last - first) : 1;
  largest *= scale;
  float relative = 2 * product_error(bags.dims);
  for (int64_t i = 0; i < q.m; i++) {
    float sum = room.norms[i] * largest;                       // what no partial sum exceeds
    float tiny = bags.scales ? room.norms[i] * 0x1p-148f : 0;  // of scaled tokens, which may be denormal
    room.slack[i] = sum < 1e37f ? sum * relative + tiny + 1e-38f : __builtin_inff();
    room.most[i] = -__builtin_inff();
    room.best[i] = -__builtin_inf();
  }
  return true;
}

template <class Type>
int64_t maxsim(const BagQueries& q, const Documents& bags, const int64_t* docs, int64_t n, uint8_t* scratch,
               double* out) {
  MaxSimRoom room(scratch, q.m, bags.dims);
  pack_columns(q.data, q.m, bags.dims, room.columns);
  for (int64_t i = 0; i < q.m; i++) {
    double norm = 0;
    for (int64_t j = 0; j < bags.dims; j++) norm += __builtin_fabs(q.data[i * bags.dims + j]);
    room.norms[i] = norm < 1e37 ? float(norm) * 1.00001f : __builtin_inff();
  }
  for (int64_t c = 0; c < n; c++) {
    int64_t first = bags.offsets[docs[c]], last = bags.offsets[docs[c] + 1];
    if (first < last && !begin_document<Type>(q, bags, first, last, room)) return c;
    Ahead ahead = c + 1 < n ? reading<Type>(bags, docs[c + 1]) : Ahead();
    for (int64_t t = first; t < last; t += kRun, ahead = ahead.rest(kRun))
      raise_maxima<Type>(q, bags, t, last - t < kRun ? last - t : kRun, room, ahead);
    for (int64_t query = 0; query < q.n; query++) {
      double total = 0;
      for (int64_t i = q.offsets[query]; i < q.offsets[query + 1]; i++) total += room.best[i];
      out[query * n + c] = first < last ? total : -__builtin_inf();
    }
  }
  return -1;
}

}  // namespace
}  // namespace nestvec
