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

constexpr int64_t kBagRun = 256;  // tokens whose products are kept, 16 KB, and documents begun at a time

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

// dots[t] = 16 sums of a token with a panel. Reads up to 64 tokens from `first`, and 60 bytes more.
struct BagEngine : DotEngine {
  static constexpr int kSome = 4 * kTile;

  void multiply(const int8_t* codes, int64_t width, const uint8_t* panel, int64_t tokens, int32_t* dots) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    const int8_t *second = codes + (tokens > 16 ? 16 * width : 0), *third = codes + (tokens > 32 ? 32 * width : 0),
                 *fourth = codes + (tokens > 48 ? 48 * width : 0);
    for (int64_t j = 0; j < width; j += 64, panel += 16 * kLine) {
      _tile_loadd(6, panel, kLine);
      _tile_loadd(4, codes + j, width);
      _tile_dpbsud(0, 4, 6);
      _tile_loadd(5, second + j, width);
      _tile_dpbsud(1, 5, 6);
      _tile_loadd(4, third + j, width);
      _tile_dpbsud(2, 4, 6);
      _tile_loadd(5, fourth + j, width);
      _tile_dpbsud(3, 5, 6);
    }
    _tile_stored(0, dots, kLine);
    _tile_stored(1, dots + 16 * kTile, kLine);
    _tile_stored(2, dots + 32 * kTile, kLine);
    _tile_stored(3, dots + 48 * kTile, kLine);
  }
};

#else

struct BagEngine {
  static constexpr int kSome = kNative == 64 ? 16 : kNative == 32 ? 4 : 2;  // tokens whose sums the registers hold

  void multiply(const int8_t* codes, int64_t width, const uint8_t* panel, int64_t, int32_t* dots) {
    I32N acc[kSome][kParts];
    for (int t = 0; t < kSome; t++)
      for (int p = 0; p < kParts; p++) acc[t][p] = I32N{};
    for (int64_t j = 0; j < width; j += 4, panel += kLine)
      for (int p = 0; p < kParts; p++) {
        auto line = prepare(panel + p * kNative);
        for (int t = 0; t < kSome; t++) acc[t][p] = dot4(acc[t][p], line, four_codes(codes + t * width + j));
      }
    for (int t = 0; t < kSome; t++)
      for (int p = 0; p < kParts; p++) store(dots + t * kTile + p * kF32, acc[t][p]);
  }
};

#endif

struct Most {
  F32N v[kParts];
};

// One panel over the documents [bag, end): at the end of each, `lanes` += step * its largest products.
inline void scan_panel(BagEngine& engine, const CodedBags& bags, const uint8_t* panel, const float* steps, int64_t bag,
                       int64_t end, float* lanes) {
  alignas(64) int32_t dots[kBagRun * kTile];
  Most most, none;
  for (F32N& v : none.v) v = splat(-__builtin_inff());
  most = none;
  int64_t last = bags.offsets[end], next = bags.offsets[bag + 1];
  for (int64_t run = bags.offsets[bag]; run < last; run += kBagRun) {
    int64_t stop = run + kBagRun < last ? run + kBagRun : last;
    for (int64_t t = run; t < stop; t += BagEngine::kSome)
      engine.multiply(bags.codes + t * bags.width, bags.width, panel, stop - t, dots + (t - run) * kTile);
    for (int64_t t = run; t < stop; t++) {
      int32_t shift = -(128 - kOffset) * bags.sums[t];
      F32N scale = splat(bags.scales[t]);
      for (int p = 0; p < kParts; p++) {
        F32N product = to_float(load<I32N>(dots + (t - run) * kTile + p * kF32) + shift) * scale;
        most.v[p] = max(product, most.v[p]);
      }
      while (t + 1 == next) {  // documents without tokens end here too
        for (int p = 0; p < kParts; p++) {
          float* to = lanes + p * kF32;
          store(to, load<F32N>(to) + load<F32N>(steps + p * kF32) * most.v[p]);
        }
        most = none;
        lanes += kTile;
        if (++bag == end) return;
        next = bags.offsets[bag + 1];
      }
    }
  }
}

inline float document_bound(const CodedBags& bags, float of_error, float of_norm, int64_t bag, float* lanes) {
  for (int width = 8; width > 0; width /= 2)
    for (int i = 0; i < width; i++) lanes[i] += lanes[i + width];
  float slack = of_error * bags.bounds[bag] + of_norm * bags.bounds[bags.n + bag];
  float total = (lanes[0] + slack) + 1e-36f;
  if (bags.offsets[bag] == bags.offsets[bag + 1]) return -__builtin_inff();
  return __builtin_fabsf(total) <= 1e37f ? total : __builtin_inff();
}

void scan_bags(const CodedBags& bags, const CodedBagQueries& q, int64_t first, int64_t last, float* out) {
  BagEngine engine;
  for (int64_t bag = first, end; bag < last; bag = end) {
    // whole documents that fit a run, or one longer than that
    for (end = bag + 1; end < last && end - bag < kBagRun && bags.offsets[end + 1] - bags.offsets[bag] <= kBagRun;)
      end++;
    while (bag < end && bags.offsets[bag] == bags.offsets[bag + 1]) {  // the first has tokens
      for (int64_t i = 0; i < q.n; i++) out[i * (last - first) + bag - first] = -__builtin_inff();
      bag++;
    }
    for (int64_t i = 0; i < q.n && bag < end; i++) {
      alignas(64) float lanes[kBagRun * kTile];
      memset(lanes, 0, (end - bag) * kTile * sizeof *lanes);
      for (int64_t p = q.panels[i]; p < q.panels[i + 1]; p++)
        scan_panel(engine, bags, q.codes + p * q.size, q.steps + p * kTile, bag, end, lanes);
      for (int64_t b = bag; b < end; b++)
        out[i * (last - first) + b - first] =
            document_bound(bags, q.bounds[i], q.bounds[q.n + i], b, lanes + (b - bag) * kTile);
    }
  }
}

}  // namespace
}  // namespace nestvec
