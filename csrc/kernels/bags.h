// int8 codes of tokens, and bounds on the MaxSim of documents from them; specification:
// python/nestvec/kernels/maxsim.py. Cost of a scan: the codes, read once for all queries of a call; per token and 16
// query tokens one row of an integer product, a scale and a maximum. Query tokens are a tile of 16 x 4 dims a line, so
// tokens lie as they come.
#pragma once
#include "dots.h"
#include "exact.h"
#include "maxsim.h"

namespace nestvec {
namespace {

constexpr int64_t kBagRun = 512;  // tokens of the documents that are begun together: few are left over at their end

void pack_bags(const float* x, int64_t dims, const int64_t* offsets, int64_t n, int8_t* codes, int64_t width,
               float* scales, int32_t* sums, float* bounds) {
  constexpr double kRound = 0x1.8p52;
  for (int64_t bag = 0; bag < n; bag++) {
    double largest_error = 0, largest_norm = 0;
    for (int64_t t = offsets[bag]; t < offsets[bag + 1]; t++) {
      const float* row = x + t * dims;
      float scale = largest_magnitude(row, dims) / 127;
      double inverse = scale > 0 ? 1 / double(scale) : 0;
      F64x16 squares = {}, errors = {};
      int32_t total = 0;
      for (int64_t j = 0; j < dims; j += 16) {
        float padded[16] = {};
        double rounded[16];
        memcpy(padded, row + j, (dims - j < 16 ? dims - j : 16) * sizeof(float));
        F64x16 values = widen(padded);
        for (int i = 0; i < kDoubles; i++) {
          F64N code = (values.v[i] * inverse + kRound) - kRound, top = F64N{} + 127;
          code = code > top ? top : code < -top ? -top : code;
          store(rounded + i * kF64, code);
          F64N error = values.v[i] - code * double(scale);
          squares.v[i] = exact_fma(values.v[i], values.v[i], squares.v[i]);
          errors.v[i] += error * error;
        }
        for (int64_t i = 0; i < 16 && j + i < width; i++) {
          codes[t * width + j + i] = int8_t(rounded[i]);
          total += int32_t(rounded[i]);
        }
      }
      scales[t] = scale;
      sums[t] = total;
      double error = __builtin_sqrt(fold(errors)), norm = __builtin_sqrt(fold(squares));
      largest_error = error > largest_error ? error : largest_error;
      largest_norm = norm > largest_norm ? norm : largest_norm;
    }
    double error = largest_error * kGrow + kTiny, norm = largest_norm * kGrow + kTiny;
    bounds[bag] = error < 3e38 ? float(error) : __builtin_inff();
    bounds[n + bag] = norm < 3e38 ? float(norm) : __builtin_inff();
  }
}

#if defined(__AMX_INT8__)

// dots[t, p] = 16 sums of a token with each of P panels. Reads whole groups of 16 tokens, and 60 bytes more.
struct BagEngine : DotEngine {
  static constexpr int kPanels = 2;
  static constexpr int64_t kDots = 64;     // tokens whose products are kept
  static constexpr int64_t kAsked = 4096;  // bytes ahead
  template <int P>
  static constexpr int64_t kSome = 64 / P;  // tokens at a time

  template <int P>
  void multiply(const int8_t* codes, int64_t width, const uint8_t* panel, int64_t size, int64_t tokens, bool fresh,
                int32_t* dots) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    const int8_t* second = codes + (tokens > 16 ? 16 * width : 0);
    const int8_t* third = codes + (tokens > 32 ? 32 * width : 0);
    const int8_t* fourth = codes + (tokens > 48 ? 48 * width : 0);
    const int8_t* ahead = fresh ? codes + kAsked : nullptr;
    for (int64_t j = 0; j < width; j += 64, panel += 16 * kLine) {
      _tile_loadd(6, panel, kLine);
      if constexpr (P == 2) _tile_loadd(7, panel + size, kLine);
      ahead = ask_for(ahead);
      _tile_loadd(4, codes + j, width);
      _tile_dpbsud(0, 4, 6);
      if constexpr (P == 2) _tile_dpbsud(2, 4, 7);
      ahead = ask_for(ahead);
      _tile_loadd(5, second + j, width);
      _tile_dpbsud(1, 5, 6);
      if constexpr (P == 2) _tile_dpbsud(3, 5, 7);
      if constexpr (P == 1) {
        ahead = ask_for(ahead);
        _tile_loadd(4, third + j, width);
        _tile_dpbsud(2, 4, 6);
        ahead = ask_for(ahead);
        _tile_loadd(5, fourth + j, width);
        _tile_dpbsud(3, 5, 6);
      }
    }
    constexpr int64_t kGroup = 16 * P * kTile;
    _tile_stored(0, dots, P * kLine);
    _tile_stored(1, dots + kGroup, P * kLine);
    _tile_stored(2, P == 1 ? dots + 2 * kGroup : dots + kTile, P * kLine);
    _tile_stored(3, P == 1 ? dots + 3 * kGroup : dots + kGroup + kTile, P * kLine);
  }

  // As many lines as a tile has, in the order of memory: only then does the hardware fetch along.
  static const int8_t* ask_for(const int8_t* ahead) {
    for (int64_t i = 0; ahead && i < kTile; i++) __builtin_prefetch(ahead + i * kLine);
    return ahead ? ahead + kTile * kLine : nullptr;
  }
};

#else

struct BagEngine {
  static constexpr int kPanels = kNative == 64 ? 2 : 1;
  static constexpr int64_t kDots = 96, kAsked = 8192;
  template <int P>
  static constexpr int64_t kSome = kNative == 64   ? (P == 1 ? 12 : 8)
                                   : kNative == 32 ? 4
                                                   : 2;

  template <int P>
  void multiply(const int8_t* codes, int64_t width, const uint8_t* panel, int64_t size, int64_t, bool fresh,
                int32_t* dots) {
    constexpr int kTokens = kSome<P>;  // as many sums as the registers hold
    I32N acc[kTokens][P * kParts];
    for (int t = 0; t < kTokens; t++)
      for (int p = 0; p < P * kParts; p++) acc[t][p] = I32N{};
    constexpr int kFour = kTokens < 4 ? kTokens : 4;  // tokens that one pointer and two strides address
    const int8_t* rows[kTokens / kFour];
    for (int i = 0; i < kTokens / kFour; i++) rows[i] = codes + i * kFour * width;
    for (int64_t j = 0; j < width; j += 4, panel += kLine) {
      for (int t = 0; fresh && j % 64 == 0 && t < kTokens; t++)
        __builtin_prefetch(codes + j * kTokens + t * kLine + kAsked);
      for (int p = 0; p < P * kParts; p++) {
        auto line = prepare(panel + p / kParts * size + p % kParts * kNative);
        for (int t = 0; t < kTokens; t++)
          acc[t][p] = dot4(acc[t][p], line, four_codes(rows[t / kFour] + t % kFour * width));
      }
      for (auto& row : rows) row += 4;
    }
    for (int t = 0; t < kTokens; t++)
      for (int p = 0; p < P * kParts; p++) store(dots + t * P * kTile + p * kF32, acc[t][p]);
  }
};

#endif

// The largest products of a document with P panels of query tokens so far; two chains hide the latency of a maximum.
template <int P>
struct Most {
  F32N v[2][P * kParts];

  Most() { clear(); }

  void clear() {
    for (auto& chain : v)
      for (F32N& lanes : chain) lanes = splat(-__builtin_inff());
  }

  void raise(int chain, const int32_t* dots, int32_t sum, float scale) {
    I32N shift = I32N{} - (128 - kOffset) * sum;
    for (int p = 0; p < P * kParts; p++) {
      F32N product = to_float(load<I32N>(dots + p * kF32) + shift) * splat(scale);
      v[chain][p] = max(product, v[chain][p]);
    }
  }

  void raise(const CodedBags& bags, const int32_t* dots, int64_t first, int64_t last) {
    int64_t t = first;
    for (; t + 2 <= last; t += 2, dots += 2 * P * kTile) {
      raise(0, dots, bags.sums[t], bags.scales[t]);
      raise(1, dots + P * kTile, bags.sums[t + 1], bags.scales[t + 1]);
    }
    if (t < last) raise(0, dots, bags.sums[t], bags.scales[t]);
  }

  // lanes[b] += step * largest, panel by panel
  void close(const float* steps, float* lanes) {
    for (int p = 0; p < P * kParts; p++) {
      float* to = lanes + p % kParts * kF32;
      store(to, load<F32N>(to) + load<F32N>(steps + p * kF32) * max(v[0][p], v[1][p]));
    }
    clear();
  }
};

// P panels over the documents [bag, end); `fresh`: they are in no cache yet.
template <int P>
inline void scan_panels(BagEngine& engine, const CodedBags& bags, const uint8_t* panel, int64_t size,
                        const float* steps, int64_t bag, int64_t end, bool fresh, float* lanes) {
  constexpr int64_t kSome = BagEngine::kSome<P>, kDots = BagEngine::kDots;
  alignas(64) int32_t dots[(kDots + kSome) * P * kTile];
  Most<P> most;
  int64_t last = bags.offsets[end];
  for (int64_t run = bags.offsets[bag]; run < last; run += kDots) {
    int64_t stop = run + kDots < last ? run + kDots : last;
    for (int64_t t = run; t < stop; t += kSome)
      engine.template multiply<P>(bags.codes + t * bags.width, bags.width, panel, size, stop - t, fresh,
                                  dots + (t - run) * P * kTile);
    for (int64_t t = run; t < stop;) {
      int64_t next = bags.offsets[bag + 1], until = next < stop ? next : stop;
      most.raise(bags, dots + (t - run) * P * kTile, t, until);
      t = until;
      for (; bag < end && bags.offsets[bag + 1] == t; bag++, lanes += kTile) most.close(steps, lanes);
    }
  }
}

inline float document_bound(const CodedBags& bags, float of_error, float of_norm, int64_t bag, float* lanes) {
  for (int width = 8; width > 0; width /= 2)
    for (int i = 0; i < width; i++) lanes[i] += lanes[i + width];
  float slack = of_error * bags.bounds[bag] + of_norm * bags.bounds[bags.n + bag];
  float total = (lanes[0] + slack) + 1e-36f;
  return __builtin_fabsf(total) <= 1e37f ? total : __builtin_inff();
}

// One query and the documents [bag, end) of a run, all of which have tokens.
inline void bound_run(BagEngine& engine, const CodedBags& bags, const CodedBagQueries& q, int64_t query, int64_t bag,
                      int64_t end, float* out) {
  alignas(64) float lanes[kBagRun * kTile];
  memset(lanes, 0, (end - bag) * kTile * sizeof *lanes);
  for (int64_t p = q.panels[query]; p < q.panels[query + 1];) {
    const uint8_t* panel = q.codes + p * q.size;
    const float* steps = q.steps + p * kTile;
    if (BagEngine::kPanels == 2 && p + 2 <= q.panels[query + 1]) {
      scan_panels<BagEngine::kPanels>(engine, bags, panel, q.size, steps, bag, end, p == 0, lanes);
      p += 2;
    } else {
      scan_panels<1>(engine, bags, panel, q.size, steps, bag, end, p == 0, lanes);
      p++;
    }
  }
  for (int64_t b = bag; b < end; b++)
    out[b - bag] = document_bound(bags, q.bounds[query], q.bounds[q.n + query], b, lanes + (b - bag) * kTile);
}

void scan_bags(const CodedBags& bags, const CodedBagQueries& q, int64_t first, int64_t last, const DocumentSets& sets,
               float* out) {
  BagEngine engine;
  for (int64_t bag = first, end; bag < last; bag = end) {
    // whole documents that fit a run, or one longer than that
    for (end = bag + 1; end < last && end - bag < kBagRun && bags.offsets[end + 1] - bags.offsets[bag] <= kBagRun;)
      end++;
    for (int64_t i = 0; i < q.n; i++) {
      const uint8_t* allowed = sets.bytes ? sets.bytes + i * sets.step : nullptr;
      auto read = [&](int64_t b) { return bags.offsets[b] < bags.offsets[b + 1] && (!allowed || allowed[b]); };
      float* to = out + i * (last - first);
      for (int64_t some = bag, stop; some < end; some = stop) {
        for (stop = some; stop < end && read(stop);) stop++;
        if (stop > some) bound_run(engine, bags, q, i, some, stop, to + some - first);
        for (; stop < end && !read(stop); stop++) to[stop - first] = -__builtin_inff();
      }
    }
  }
}

}  // namespace
}  // namespace nestvec
