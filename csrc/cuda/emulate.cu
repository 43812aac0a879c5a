// Fibers for the threads of a block. Made by ucontext, switched by _setjmp and _longjmp, which make no system calls.
#ifdef NESTVEC_CUDA_EMULATED
#undef _FORTIFY_SOURCE  // its longjmp takes another stack for a mistake
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <vector>

#include "emulate.h"

namespace emulated {

Place place;

namespace {

constexpr size_t STACK = 256 * 1024;
enum class Waits { nobody, for_warp, for_block, done };

struct Fiber {
  ucontext_t context;
  jmp_buf at;
  std::unique_ptr<char[]> stack{new char[STACK]};
  bool begun = false;
  Waits waits = Waits::nobody;
  dim3 thread;
};

std::vector<Fiber> fibers;
std::vector<uint64_t> exchanged;
size_t running, count;
jmp_buf scheduler;
const std::function<void()>* body;
char* shared_end = nullptr;
size_t shared_used = 0, most_memory = size_t(1) << 34;
constexpr size_t SHARED = 256 * 1024;

void enter() {
  (*body)();
  fibers[running].waits = Waits::done;
  _longjmp(scheduler, 1);
}

void pause(Waits waits) {
  Fiber& fiber = fibers[running];
  fiber.waits = waits;
  if (_setjmp(fiber.at) == 0) _longjmp(scheduler, 1);
}

void resume(size_t number) {
  running = number;
  Fiber& fiber = fibers[number];
  fiber.waits = Waits::nobody;
  place.thread = fiber.thread;
  if (_setjmp(scheduler) == 0) {
    if (fiber.begun) _longjmp(fiber.at, 1);
    fiber.begun = true;
    setcontext(&fiber.context);
  }
}

bool backwards() {
  const char* order = getenv("NESTVEC_EMULATED_ORDER");
  return order && order[0] == 'b';
}

// Runs a warp until all its lanes are done or wait for the block.
void run_warp(size_t first, size_t last, bool reverse) {
  for (;;) {
    size_t ended = 0, blocked = 0;
    for (size_t i = first; i < last; i++) {
      size_t number = reverse ? last - 1 - (i - first) : i;
      if (fibers[number].waits == Waits::nobody || fibers[number].waits == Waits::for_warp) resume(number);
      ended += fibers[number].waits == Waits::done;
      blocked += fibers[number].waits == Waits::for_block;
    }
    if (ended + blocked == last - first) return;
    if (ended + blocked != 0) throw std::logic_error("some lanes of a warp wait for it, others have gone on");
  }
}

void run_block(bool reverse) {
  for (;;) {
    size_t warps = (count + 31) / 32, ended = 0;
    for (size_t i = 0; i < warps; i++) {
      size_t first = (reverse ? warps - 1 - i : i) * 32;
      run_warp(first, first + 32 < count ? first + 32 : count, reverse);
    }
    for (size_t i = 0; i < count; i++) ended += fibers[i].waits == Waits::done;
    if (ended == count) return;
    if (ended != 0) throw std::logic_error("some threads of a block wait for it, others have ended");
    for (size_t i = 0; i < count; i++) fibers[i].waits = Waits::nobody;
  }
}

void prepare(dim3 block) {
  count = size_t(block.x) * block.y * block.z;
  while (fibers.size() < count) fibers.emplace_back();
  exchanged.resize((count + 31) / 32 * 32);
  for (size_t i = 0; i < count; i++) {
    Fiber& fiber = fibers[i];
    fiber.begun = false;
    fiber.waits = Waits::nobody;
    fiber.thread = dim3(i % block.x, i / block.x % block.y, i / block.x / block.y);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, enter, 0);
  }
}

}  // namespace

void run(dim3 grid, dim3 block, size_t shared, const std::function<void()>& thread) {
  static std::mutex one;  // kernel at a time
  std::lock_guard<std::mutex> hold(one);
  if (block.x * block.y * block.z > 1024 || grid.y > 65535 || grid.z > 65535 || shared > 227 * 1024)
    throw std::logic_error("a launch beyond the limits of CUDA");
  if (!shared_end) {
    size_t page = size_t(sysconf(_SC_PAGESIZE));
    void* memory = mmap(nullptr, SHARED + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::runtime_error("no memory to emulate shared memory");
    shared_end = static_cast<char*>(memory) + SHARED;
    mprotect(shared_end, page, PROT_NONE);
  }
  shared_used = (shared + 15) / 16 * 16;
  body = &thread;
  place.block_size = block;
  place.grid = grid;
  bool reverse = backwards();
  for (unsigned z = 0; z < grid.z; z++)
    for (unsigned y = 0; y < grid.y; y++)
      for (unsigned x = 0; x < grid.x; x++) {
        place.block = dim3(x, y, z);
        memset(shared_end - shared_used, 0xcd, shared_used);
        prepare(block);
        run_block(reverse);
      }
}

void* dynamic_shared() { return shared_end - shared_used; }
size_t memory_left() { return most_memory; }
void limit_memory(size_t bytes) { most_memory = bytes; }
void block_barrier() { pause(Waits::for_block); }
void warp_barrier() { pause(Waits::for_warp); }
uint64_t* slots() { return &exchanged[running / 32 * 32]; }
int lane() { return int(running % 32); }

}  // namespace emulated
#endif
