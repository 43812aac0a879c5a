// Which instruction sets this CPU *and* operating system support.
#pragma once
#if defined(__x86_64__)
#include <cpuid.h>
#include <cstdint>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif
#if defined(__linux__) && defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace nestvec {

#if defined(__x86_64__)
struct CpuId {
  uint32_t a = 0, b = 0, c = 0, d = 0;
  CpuId(uint32_t leaf, uint32_t subleaf) { __get_cpuid_count(leaf, subleaf, &a, &b, &c, &d); }
};

inline bool os_saves(uint64_t state) {  // the OS must save the wider registers on a context switch
  if (!(CpuId(1, 0).c & bit_OSXSAVE)) return false;
  uint32_t low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return ((uint64_t(high) << 32 | low) & state) == state;
}

inline bool has(uint32_t value, uint32_t bits) { return (value & bits) == bits; }

inline bool supports_avx2() {  // all of x86-64-v3, since the compiler may use any of it
  return os_saves(0x6) && has(CpuId(1, 0).c, bit_AVX | bit_FMA | bit_F16C | bit_MOVBE | bit_SSE4_2 | bit_POPCNT) &&
         has(CpuId(7, 0).b, bit_AVX2 | bit_BMI | bit_BMI2) && has(CpuId(0x80000001, 0).c, bit_LZCNT);
}

inline bool supports_avx512() {  // x86-64-v4, VNNI, VBMI and VPOPCNTDQ
  constexpr uint32_t kV4 = bit_AVX512F | bit_AVX512BW | bit_AVX512CD | bit_AVX512DQ | bit_AVX512VL;
  return supports_avx2() && os_saves(0xE6) && has(CpuId(7, 0).b, kV4) &&
         has(CpuId(7, 0).c, bit_AVX512VNNI | bit_AVX512VBMI | bit_AVX512VPOPCNTDQ);
}

inline bool supports_amx() {
  constexpr uint32_t kTiles = 1u << 24 | 1u << 25;  // AMX-TILE, AMX-INT8
  if (!supports_avx512() || !os_saves(0x60000) || !has(CpuId(7, 0).d, kTiles)) return false;
#if defined(__linux__)
  constexpr long kGetPermission = 0x1022, kRequestPermission = 0x1023, kTileData = 18;
  uint64_t granted = 0;  // Linux gives a process the 8 KB of tile state only when asked
  syscall(SYS_arch_prctl, kRequestPermission, kTileData);
  return syscall(SYS_arch_prctl, kGetPermission, &granted) == 0 && (granted >> kTileData & 1);
#else
  return false;
#endif
}
#elif defined(__aarch64__)
inline bool supports_dotprod() {
#if defined(__linux__)
  constexpr unsigned long kUsed = HWCAP_ASIMDDP | HWCAP_CRC32;  // the latter is part of armv8.1
  return (getauxval(AT_HWCAP) & kUsed) == kUsed;
#elif defined(__APPLE__)
  return true;  // every arm64 CPU that macOS runs on
#else
  return false;
#endif
}
#endif

}  // namespace nestvec
