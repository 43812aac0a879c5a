// Exact scores in float64 lanes, and heaps of the best; specification: python/nestvec/kernels/exact.py.
// Cost: bound by reading rows (4 d bytes in float32); queries stay in L1. A rescored row is a random read, so
// candidates are taken four at a time and their rows prefetched.
#pragma once
#include "allowed.h"
#include "convert.h"
#include "heap.h"

namespace nestvec {
namespace {

// Row types: how 16 elements widen to float64, exactly.
struct F32Rows {
  typedef float Element;
  static F64x16 load16(const float* p) { return widen(p); }
};
struct F64Rows {  // a query, as its own row
  typedef double Element;
  static F64x16 load16(const double* p) { return nestvec::load16(p); }
};
template <float Widen(uint16_t)>
struct HalfRows {
  typedef uint16_t Element;
  static F64x16 load16(const uint16_t* p) {
    float values[16];
    for (int i = 0; i < 16; i++) values[i] = Widen(p[i]);
    return widen(values);
  }
};
typedef HalfRows<widen_one_f16> F16Rows;
typedef HalfRows<widen_one_bf16> BF16Rows;

struct Dot {
  static void step(F64x16& acc, const F64x16& a, const F64x16& b) {
    for (int i = 0; i < kDoubles; i++) acc.v[i] = exact_fma(a.v[i], b.v[i], acc.v[i]);
  }
};
struct SquaredDistance {
  static void step(F64x16& acc, const F64x16& a, const F64x16& b) {
    for (int i = 0; i < kDoubles; i++) {
      F64N difference = a.v[i] - b.v[i];
      acc.v[i] += difference * difference;
    }
  }
};
struct SquaredNorm {  // of the row
  static void step(F64x16& acc, const F64x16&, const F64x16& b) { Dot::step(acc, b, b); }
};

// N rows against one query: N independent sums hide the latency of the adds.
template <class Op, class Type, int N>
void reduce(const double* query, const typename Type::Element* const* rows, int64_t dims, double* out) {
  F64x16 acc[N] = {};
  int64_t j = 0;
  for (; j + 16 <= dims; j += 16) {
    F64x16 q = load16(query + j);
    for (int r = 0; r < N; r++) Op::step(acc[r], q, Type::load16(rows[r] + j));
  }
  if (j < dims) {
    double q_tail[16] = {};
    memcpy(q_tail, query + j, (dims - j) * sizeof(double));
    for (int r = 0; r < N; r++) {
      typename Type::Element tail[16] = {};
      memcpy(tail, rows[r] + j, (dims - j) * sizeof tail[0]);
      Op::step(acc[r], load16(q_tail), Type::load16(tail));
    }
  }
  for (int r = 0; r < N; r++) out[r] = fold(acc[r]);
}

// Squared norms, which only cosine needs.
template <class Type, int N>
void row_squares(const Queries& q, const typename Type::Element* const* rows, int64_t dims, double* out) {
  if (q.metric == kCosine) reduce<SquaredNorm, Type, N>(q.data, rows, dims, out);
}

inline double query_square(const Queries& q, int64_t i, int64_t dims) {
  double square = 0;
  const double* query = q.data + i * q.stride;
  if (q.metric == kCosine) reduce<SquaredNorm, F64Rows, 1>(query, &query, dims, &square);
  return square;
}

template <class Type, int N>
void score(const Queries& q, int64_t i, double query_square, const typename Type::Element* const* rows,
           const double* row_squares, int64_t dims, double* out) {
  const double* query = q.data + i * q.stride;
  if (q.metric == kL2) {
    reduce<SquaredDistance, Type, N>(query, rows, dims, out);
    for (int r = 0; r < N; r++) out[r] = -out[r];
    return;
  }
  reduce<Dot, Type, N>(query, rows, dims, out);
  for (int r = 0; r < N && q.metric == kCosine; r++) {
    double square = query_square * row_squares[r];
    out[r] = square > 0 ? out[r] / __builtin_sqrt(square) : 0;
  }
}

// The rows of N numbers against queries [first, last); `emit(query, row, score)`.
template <class Type, int N, class Emit>
void score_rows(const Queries& q, int64_t first, int64_t last, const double* query_squares, const Rows& rows,
                const int64_t* numbers, Emit emit) {
  typedef typename Type::Element Element;
  const Element* at[N];
  for (int j = 0; j < N; j++) at[j] = static_cast<const Element*>(rows.data) + numbers[j] * rows.stride;
  double squares[N];
  row_squares<Type, N>(q, at, rows.dims, squares);
  for (int64_t i = first; i < last; i++) {
    double out[N];
    score<Type, N>(q, i, query_squares[i - first], at, squares, rows.dims, out);
    for (int j = 0; j < N; j++) emit(i, numbers[j], out[j]);
  }
}

// The rows [begin, end) that a set has against queries [first, last), four at a time, others asked for meanwhile.
template <class Type, class Emit>
void score_set(const Queries& q, int64_t first, int64_t last, const double* query_squares, const Rows& rows,
               const uint64_t* allowed, int64_t begin, int64_t end, Emit emit) {
  typedef typename Type::Element Element;
  constexpr int kTogether = 4, kListed = 8;
  int64_t listed[kListed];
  int n = 0;
  auto score_four = [&] {
    score_rows<Type, kTogether>(q, first, last, query_squares, rows, listed, emit);
    n -= kTogether;
    for (int j = 0; j < n; j++) listed[j] = listed[j + kTogether];
  };
  for (int64_t block = begin; block < end; block += kBlock)
    for (uint64_t some = allowed_rows(allowed, block, end); some; some &= some - 1) {
      int64_t r = listed[n++] = block + __builtin_ctzll(some);
      const Element* row = static_cast<const Element*>(rows.data) + r * rows.stride;
      for (int64_t j = 0; j < rows.dims; j += 64 / sizeof(Element)) __builtin_prefetch(row + j);
      if (n == kListed) score_four();
    }
  while (n >= kTogether) score_four();
  for (int j = 0; j < n; j++) score_rows<Type, 1>(q, first, last, query_squares, rows, listed + j, emit);
}

template <class Type, class Emit>
void score_all(const Queries& q, const Rows& rows, const Allowed& allowed, Emit emit) {
  constexpr int64_t kGroup = 64, kShared = 4096;  // queries; rows that those with sets of their own take turns at
  for (int64_t first = 0; first < q.n; first += kGroup) {
    int64_t last = first + kGroup < q.n ? first + kGroup : q.n, step = allowed.stride ? kShared : rows.n;
    double squares[kGroup];
    for (int64_t i = first; i < last; i++) squares[i - first] = query_square(q, i, rows.dims);
    for (int64_t begin = 0; begin < rows.n; begin += step) {
      int64_t end = begin + step < rows.n ? begin + step : rows.n;
      if (!allowed.stride) score_set<Type>(q, first, last, squares, rows, allowed.words, begin, end, emit);
      for (int64_t i = first; allowed.stride && i < last; i++)
        score_set<Type>(q, i, i + 1, squares + i - first, rows, allowed.words + i * allowed.stride, begin, end, emit);
    }
  }
}

inline int64_t id_of(const Rows& rows, int64_t r) { return rows.ids ? rows.ids[r] : rows.base + r; }

template <class Type>
void scores(const Queries& q, const Rows& rows, float* out) {
  score_all<Type>(q, rows, {}, [&](int64_t i, int64_t r, double s) { out[i * rows.n + r] = float(s); });
}

template <class Type>
void topk(const Queries& q, const Rows& rows, const Allowed& allowed, const Best& best) {
  score_all<Type>(q, rows, allowed, [&](int64_t i, int64_t r, double s) { offer(best, i, s, id_of(rows, r)); });
}

template <class Type>
void list_rows(const Queries& q, const Rows& rows, const int32_t* numbers, int64_t n, const Best& best) {
  typedef typename Type::Element Element;
  constexpr int64_t kTogether = 4, kAhead = 8;
  double square = query_square(q, 0, rows.dims);
  auto emit = [&](int64_t i, int64_t r, double s) { offer(best, i, s, id_of(rows, r)); };
  auto ask = [&](int64_t c) {
    const Element* row = static_cast<const Element*>(rows.data) + numbers[c] * rows.stride;
    for (int64_t j = 0; j < rows.dims; j += 64 / sizeof(Element)) __builtin_prefetch(row + j);
  };
  for (int64_t c = 0; c < n && c < kAhead; c++) ask(c);
  for (int64_t c = 0; c < n; c += kTogether) {
    int64_t some[kTogether], count = n - c < kTogether ? n - c : kTogether;
    for (int64_t i = 0; i < count; i++) {
      some[i] = numbers[c + i];
      if (c + i + kAhead < n) ask(c + i + kAhead);
    }
    if (count == kTogether)
      score_rows<Type, kTogether>(q, 0, 1, &square, rows, some, emit);
    else
      for (int64_t i = 0; i < count; i++) score_rows<Type, 1>(q, 0, 1, &square, rows, some + i, emit);
  }
}

template <class Type>
int64_t rescore(const Queries& q, const Rows& rows, int64_t take, const Thresholds& thresholds,
                const Candidates& candidates, const Best& best) {
  typedef typename Type::Element Element;
  constexpr int kAhead = 4;
  const Element* data = static_cast<const Element*>(rows.data);
  int64_t scored = 0;
  for (int64_t i = 0; i < q.n; i++) {
    float* upper = candidates.upper + i * candidates.room;
    int32_t* listed = candidates.rows + i * candidates.room;
    float& least = thresholds.values[i];
    int64_t size = candidates.counts[i], taken = 0;
    double square = query_square(q, i, rows.dims);
    for (int64_t hole = size / 2 - 1; hole >= 0; hole--) sift(upper, listed, hole, size);
    while (taken < take && size > 0 && upper[0] >= least) {
      int32_t ahead[kAhead];
      int n = 0;
      while (n < kAhead && size > 0 && upper[0] >= least) {
        int32_t r = ahead[n++] = listed[0];
        for (int64_t j = 0; j < rows.dims; j += 64 / sizeof(Element)) __builtin_prefetch(data + r * rows.stride + j);
        upper[0] = upper[--size];
        listed[0] = listed[size];
        if (size) sift(upper, listed, 0, size);
      }
      taken += n;
      for (int j = 0; j < n; j++) {
        const Element* row = data + ahead[j] * rows.stride;
        double row_square, s;
        row_squares<Type, 1>(q, &row, rows.dims, &row_square);
        score<Type, 1>(q, i, square, &row, &row_square, rows.dims, &s);
        offer(best, i, s, id_of(rows, ahead[j]));
      }
      least = threshold(best.scores[i * best.k], thresholds.multiply[i], thresholds.offset[i]);
    }
    scored += taken;
    int64_t kept = 0;
    for (int64_t c = 0; c < size; c++) {
      if (upper[c] < least) continue;
      upper[kept] = upper[c];
      listed[kept++] = listed[c];
    }
    candidates.counts[i] = kept;
  }
  return scored;
}

}  // namespace
}  // namespace nestvec
