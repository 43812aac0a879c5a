// Exact integer dot products of query codes with a plane's lines: one query with one tile, and a group of queries with
// half a block of rows, over bytes as stored. AMX-INT8 multiplies 16 x 64 by 64 x 16 codes an instruction; the stored
// lines are its B operand.
#pragma once
#include "../kernels.h"
#include "pack.h"

namespace nestvec {
namespace {

constexpr int64_t kRows = 32;
constexpr int64_t kAhead = 2048;  // bytes; twice as far is a quarter slower

inline int32_t four_codes(const int8_t* p) {
  int32_t v;
  memcpy(&v, p, 4);
  return v;
}

// dots[0..16) += one tile times one query, and `shift`. Several sums a lane hide the multiplier's latency; integers add
// in any order.
inline void tile_dots(const uint8_t* tile, int64_t lines, const int8_t* query, int32_t shift, bool prefetch,
                      int32_t* dots) {
  constexpr int kUnroll = kParts >= 4 ? 1 : 4 / kParts;
  I32N acc[kUnroll][kParts] = {};
  int64_t line = 0;
  for (; line + kUnroll <= lines; line += kUnroll)
    for (int u = 0; u < kUnroll; u++) {
      const uint8_t* at = tile + (line + u) * kLine;
      if (prefetch) __builtin_prefetch(at + kAhead);
      for (int p = 0; p < kParts; p++)
        acc[u][p] = dot4(acc[u][p], prepare(at + p * kNative), four_codes(query + (line + u) * 4));
    }
  for (; line < lines; line++)
    for (int p = 0; p < kParts; p++)
      acc[0][p] = dot4(acc[0][p], prepare(tile + line * kLine + p * kNative), four_codes(query + line * 4));
  for (int p = 0; p < kParts; p++) {
    I32N sum = load<I32N>(dots + p * kF32) + shift;
    for (int u = 0; u < kUnroll; u++) sum += acc[u][p];
    store(dots + p * kF32, sum);
  }
}

#if defined(__AMX_INT8__)

constexpr int64_t kQueries = 32;

// Owns this thread's tile registers for the length of a call; releasing them keeps context switches cheap.
struct DotEngine {
  DotEngine() {
    // constant: of a variable, GCC believes that only the first 8 bytes are read, and leaves out the others
    static constexpr struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    _tile_loadconfig(&config);
  }
  ~DotEngine() { _tile_release(); }

  // Widths that are no multiple of 64 read on into the next lines: the query's codes are zero there.
  void multiply(const Plane& plane, const QueryBatch& q, int64_t levels, int64_t row, int64_t group, int32_t* dots) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    const int8_t* a = q.codes + group * q.stride;
    bool fresh = group == 0;  // later groups find the rows in cache
    for (int64_t level = 0; level < levels; level++) {
      int64_t width = level_width(q.bounds, level);
      const uint8_t* b = plane.codes + plane.starts[level] + row * width;
      for (int64_t step = 0; step < width; step += 64, a += 64) {
        for (int64_t line = 0; fresh && line < kTile; line++) {
          __builtin_prefetch(b + step * kTile + line * kLine + kAhead);
          __builtin_prefetch(b + (step + width) * kTile + line * kLine + kAhead);
        }
        _tile_loadd(4, a, q.stride);
        _tile_loadd(6, b + step * kTile, kLine);
        _tile_dpbsud(0, 4, 6);
        _tile_loadd(7, b + (step + width) * kTile, kLine);
        _tile_dpbsud(1, 4, 7);
        _tile_loadd(5, a + kTile * q.stride, q.stride);
        _tile_dpbsud(2, 5, 6);
        _tile_dpbsud(3, 5, 7);
      }
    }
    _tile_stored(0, dots, kRows * 4);
    _tile_stored(1, dots + kTile, kRows * 4);
    _tile_stored(2, dots + kTile * kRows, kRows * 4);
    _tile_stored(3, dots + kTile * kRows + kTile, kRows * 4);
  }
};

#else

constexpr int64_t kQueries = 8;

struct DotEngine {
  // kGroup queries x kTiles tiles: as many sums as the registers hold, every loaded line used kGroup times
  static constexpr int kGroup = kNative == 64 ? 8 : kNative == 32 ? 4 : 2;
  static constexpr int kTiles = kNative == 64 ? 2 : 1;

  void multiply(const Plane& plane, const QueryBatch& q, int64_t levels, int64_t row, int64_t group, int32_t* dots) {
    for (int64_t j = 0; j < kQueries; j += kGroup)
      for (int64_t tile = 0; tile < kRows; tile += kTiles * kTile)
        multiply_some(plane, q, levels, row + tile, group + j, dots + j * kRows + tile);
  }

  static void multiply_some(const Plane& plane, const QueryBatch& q, int64_t levels, int64_t row, int64_t first,
                            int32_t* dots) {
    I32N acc[kGroup][kTiles][kParts];
    for (int j = 0; j < kGroup; j++)
      for (int t = 0; t < kTiles; t++)
        for (int p = 0; p < kParts; p++) acc[j][t][p] = I32N{};
    const int8_t* codes = q.codes + first * q.stride;
    for (int64_t level = 0; level < levels; level++) {
      int64_t width = level_width(q.bounds, level);
      const uint8_t* lines = plane.codes + plane.starts[level] + row * width;
      for (int64_t dim = 0; dim < width; dim += 4)
        for (int t = 0; t < kTiles; t++)
          for (int p = 0; p < kParts; p++) {
            auto rows = prepare(lines + (t * width + dim) * kTile + p * kNative);
            if (first == 0) __builtin_prefetch(lines + (t * width + dim) * kTile + p * kNative + kAhead);
            for (int j = 0; j < kGroup; j++)
              acc[j][t][p] = dot4(acc[j][t][p], rows, four_codes(codes + j * q.stride + dim));
          }
      codes += query_width(q.bounds, level);
    }
    for (int j = 0; j < kGroup; j++)
      for (int t = 0; t < kTiles; t++)
        for (int p = 0; p < kParts; p++) store(dots + j * kRows + t * kTile + p * kF32, acc[j][t][p]);
  }
};

#endif

}  // namespace
}  // namespace nestvec
