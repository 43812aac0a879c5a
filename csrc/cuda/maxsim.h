// MaxSim of bags of query tokens with documents: python/nestvec/kernels/maxsim.py. Approximately by tensor cores, with
// a bound on the error, and exactly.
//
// A query token q is t (h + f) with t a power of two: h is the sum of `parts` of 11 bits (float16) or 8 (bfloat16), f
// what they leave. Products of parts are exact in float32; a chunk of 32 dims takes 32 additions, each of which may
// truncate: at most 2^-22 of the sum of magnitudes, which |h| |x| is not below. So, for each token x of a document,
//
//     | t <h, x> as computed - <q, x> |  <=  t (|f| + 1.25 2^-22 dims |h|) X,      X >= |x|,
//
// and the sum over query tokens is off by no more than the sum of these. 1.25 covers parts behind the first, which are
// summed apart (their magnitudes are 2^-6 of the first one's), what products of the least parts of float32 tokens would
// add (2^-21), and the rounding of a token's scale. X is never below 1e-30, which covers products that underflow;
// documents whose products might overflow have X = inf.
#pragma once
#include "best.h"

namespace nestvec::cuda {

constexpr int TILE = 8;    // query tokens side by side
constexpr int CHUNK = 32;  // dims
constexpr int TILES = 8;   // that a warp multiplies tokens with at a time; a query of more takes several turns
enum TokenType { FLOAT32, FLOAT16, BFLOAT16, INT8 };

struct Bags {
  const void* tokens;  // (offsets[n], stride) of `type`
  int type;
  int64_t stride, dims, n;
  const float* scales;     // of tokens; null: 1
  const int64_t* offsets;  // (n + 1,)
  const float* norms;      // (n,) X of each document
};

// Tokens of queries in tiles; a query begins with a tile.
struct QueryBags {
  const float* tokens;     // (m, dims)
  const int64_t* offsets;  // (nq + 1,) tokens
  const int64_t* tiles;    // (nq + 1,) tiles
  int64_t nq;
};

struct Tiles {
  uint4* fragments;  // (count, ceil(dims / 32), parts, 32): dims 8 t ... + 7 of column g for lane 4 g + t
  double* steps;     // (count, 8) t, 0 where there is no token
  double* errors;    // (count,) what X is multiplied by
  int32_t* queries;  // (count,)
  int64_t count, parts;
};

// Which documents are scored: `docs[query * step + i]` or i, for i from `first` to `last`.
struct Items {
  const int64_t* docs;
  int64_t step, first, last;
};

// Queries that are scored together: tiles from bundles[i] to bundles[i + 1], at most TILES or those of one query.
struct Bundles {
  const int64_t* tiles;  // (count + 1,)
  int64_t count, widest;
};

// Where scores go: appended to lists as upper bounds, or, without lists, written.
struct Scores {
  Lists lists;
  float* out;  // (nq, items)
  int64_t items;
};

// Rows with zeros behind them.
void pad_rows(const void* rows, int64_t bytes, void* target, int64_t target_bytes, int64_t n, Stream);
// X of each document; `bad` becomes the first token that holds NaN or Inf, `irregular` 1 if an X is inf.
void measure(const Bags&, float* norms, long long* bad, int32_t* irregular, Stream);
void split(const QueryBags&, int64_t dims, int type, const Tiles&, Stream);
void scan(const Bags&, const Tiles&, const Bundles&, const Items&, const RowSets&, const Scores&, Stream);

// Raises thresholds to the k-th best lower bound of each list and drops what does not reach it.
void tighten(const Lists&, const Bags&, const QueryBags&, const Tiles&, int64_t k, Stream);
// Exact scores and ids of listed documents, (nq, room), -1 behind them and for queries whose lists are lost.
void score_lists(const Lists&, const Bags&, const QueryBags&, const Naming&, const Best& scored, Stream);
// Exact scores; `irregular`: only those of documents whose X is inf.
void score_items(const Bags&, const QueryBags&, const Items&, bool irregular, float* out, Stream);
void top_k_of_bags(const Bags&, const QueryBags&, const Brute&, const Best& partial, const Best&, Stream);

}  // namespace nestvec::cuda
