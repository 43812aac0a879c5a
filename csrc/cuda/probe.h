// Kernels that try what all others are made of, for tests: of the emulation, and of the layout of fragments on a GPU.
#pragma once
#include "memory.h"

namespace nestvec::cuda {

constexpr int PROBED = 96;  // threads of a block: three warps

// shuffled: (4, PROBED) of values by index, xor, up and down; votes: (6, PROBED): ballot, any, all, and the block's
// count, or, and of `value < limit`.
void probe_warps(const int32_t* values, int by, int width, int limit, int32_t* shuffled, int32_t* votes, Stream);

// Rounds in which each thread takes from one of another warp what it had; the second barrier of a round may be missing.
void probe_barriers(int32_t* values, int rounds, bool both, Stream);

// Each thread of many blocks adds, takes the largest, the smallest and the union: four cells; `places`: what adds gave.
void probe_atomics(int blocks, uint32_t* cells, uint32_t* places, Stream);

// c (16, 8) += a (16, depth) b (depth, 8), which lies by columns; words as elements lie in memory.
enum class Product { u8s8, s8s8, f16, bf16 };
void probe_mma(Product, const uint32_t* a, const uint32_t* b, void* c, Stream);

// What emulation must notice; a GPU would hang or give anything.
enum class Mistake { block_barrier, warp_barrier, two_barriers, part_of_warp, part_of_block, exception, memory, stack };
void probe_mistake(Mistake, int32_t* values, Stream);

}  // namespace nestvec::cuda
