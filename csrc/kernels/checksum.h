// CRC32C; specification: python/nestvec/kernels/checksum.py. Instructions where there are some: each waits three cycles
// for the one before, so three runs of bytes go side by side, and tables say what a run makes of the sum before it.
#pragma once
#include "../simd.h"
#if defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

namespace nestvec {
namespace {

constexpr uint32_t kPolynomial = 0x82F63B78;

constexpr uint32_t after_zeros(uint32_t left, int bits) {
  for (; bits > 0; bits--) left = left >> 1 ^ (left & 1 ? kPolynomial : 0);
  return left;
}

#if defined(__SSE4_2__) || defined(__ARM_FEATURE_CRC32)
#if defined(__SSE4_2__)
inline uint64_t add_byte(uint64_t left, uint8_t byte) { return _mm_crc32_u8(uint32_t(left), byte); }
inline uint64_t add_8(uint64_t left, uint64_t bytes) { return _mm_crc32_u64(left, bytes); }
#else
inline uint64_t add_byte(uint64_t left, uint8_t byte) { return __crc32cb(uint32_t(left), byte); }
inline uint64_t add_8(uint64_t left, uint64_t bytes) { return __crc32cd(uint32_t(left), bytes); }
#endif

constexpr int64_t kStream = 2048;

struct Shift {
  uint32_t of[4][256];  // by byte of the sum
};

constexpr uint32_t times(const uint32_t (&columns)[32], uint32_t x) {
  uint32_t sum = 0;
  for (int bit = 0; bit < 32; bit++) sum ^= x >> bit & 1 ? columns[bit] : 0;
  return sum;
}

constexpr Shift shift_of_run() {
  uint32_t columns[32] = {};
  for (int bit = 0; bit < 32; bit++) columns[bit] = after_zeros(1u << bit, 8);
  for (int64_t bytes = 1; bytes < kStream; bytes *= 2) {
    uint32_t squared[32] = {};
    for (int bit = 0; bit < 32; bit++) squared[bit] = times(columns, columns[bit]);
    for (int bit = 0; bit < 32; bit++) columns[bit] = squared[bit];
  }
  Shift shift = {};
  for (int part = 0; part < 4; part++)
    for (uint32_t byte = 0; byte < 256; byte++) shift.of[part][byte] = times(columns, byte << 8 * part);
  return shift;
}

constexpr Shift kShift = shift_of_run();

inline uint64_t after_run(uint64_t left) {
  return kShift.of[0][left & 255] ^ kShift.of[1][left >> 8 & 255] ^ kShift.of[2][left >> 16 & 255] ^
         kShift.of[3][left >> 24 & 255];
}

inline uint64_t add_runs(uint64_t a, const uint8_t* p) {
  uint64_t b = 0, c = 0;
  for (int64_t i = 0; i < kStream; i += 8) {
    a = add_8(a, load<uint64_t>(p + i));
    b = add_8(b, load<uint64_t>(p + i + kStream));
    c = add_8(c, load<uint64_t>(p + i + 2 * kStream));
  }
  return after_run(after_run(a) ^ b) ^ c;
}
#else
constexpr int64_t kStream = 0;  // bytes go eight at a time, one table for each

struct Tables {
  uint32_t of[8][256];
};

constexpr Tables tables() {
  Tables t = {};
  for (uint32_t byte = 0; byte < 256; byte++) t.of[0][byte] = after_zeros(byte, 8);
  for (int i = 1; i < 8; i++)
    for (int byte = 0; byte < 256; byte++) t.of[i][byte] = t.of[i - 1][byte] >> 8 ^ t.of[0][t.of[i - 1][byte] & 255];
  return t;
}

constexpr Tables kTables = tables();

inline uint64_t add_byte(uint64_t left, uint8_t byte) { return left >> 8 ^ kTables.of[0][(left ^ byte) & 255]; }

inline uint64_t add_8(uint64_t left, uint64_t bytes) {
  left ^= bytes;
  uint32_t sum = 0;
  for (int i = 0; i < 8; i++) sum ^= kTables.of[7 - i][left >> 8 * i & 255];
  return sum;
}

inline uint64_t add_runs(uint64_t left, const uint8_t*) { return left; }
#endif

uint32_t crc32c(const uint8_t* data, int64_t n, uint32_t seed) {
  uint64_t left = ~seed;
  for (; kStream && n >= 3 * kStream; n -= 3 * kStream, data += 3 * kStream) left = add_runs(left, data);
  for (; n >= 8; n -= 8, data += 8) left = add_8(left, load<uint64_t>(data));
  for (; n > 0; n--, data++) left = add_byte(left, *data);
  return ~uint32_t(left);
}

}  // namespace
}  // namespace nestvec
