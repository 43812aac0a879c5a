// Fibers for the threads of a block. Made by ucontext, switched by _setjmp and _longjmp, which make no system calls.
#ifdef NESTVEC_CUDA_EMULATED
#undef _FORTIFY_SOURCE  // its longjmp takes another stack for a mistake
#include "emulate.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulated {

Place place;

namespace {

constexpr size_t STACK = 256 * 1024, SHARED = 256 * 1024, WARP = 32, MOST_THREADS = 1024;
enum class Waits { nobody, for_warp, for_block, done };

// Memory between pages that nobody may touch; kept until the process ends.
char* guarded(size_t bytes) {
  size_t page = size_t(sysconf(_SC_PAGESIZE));
  void* memory = mmap(nullptr, bytes + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  char* inner = static_cast<char*>(memory) + page;
  if (memory == MAP_FAILED || mprotect(inner, bytes, PROT_READ | PROT_WRITE) != 0)
    throw std::runtime_error("no memory to emulate a block of threads");
  return inner;
}

struct Stack {
  const void* bottom;
  size_t size;
  void* fake;
};

struct Fiber {
  ucontext_t context;
  jmp_buf at;
  Stack stack;
  bool begun = false;  // stays so between blocks: the fiber of a thread that has ended waits for the next one
  Waits waits = Waits::done;
  Where where;
  unsigned met_warp = 0, met_block = 0;  // how often
  dim3 thread;
};

struct Room {
  alignas(16) char bytes[2][EXCHANGED];  // of even and of odd meetings
};

std::vector<Fiber> fibers;
std::vector<Room> warp_rooms(MOST_THREADS / WARP);
Room block_room;
std::vector<size_t> turns;  // fibers to run, one after the other
size_t running, turn, count;
jmp_buf scheduler;
Stack main_stack;
const std::function<void()>* body;
std::exception_ptr failure;
char* shared_end = nullptr;
size_t shared_used = 0, most_memory = size_t(1) << 34;

// What AddressSanitizer must know of stacks.
#ifdef __SANITIZE_ADDRESS__
void leave(Stack& from, const Stack& to) { __sanitizer_start_switch_fiber(&from.fake, to.bottom, to.size); }
void arrive(Stack& here, Stack* from) {
  Stack ignored, *before = from ? from : &ignored;
  __sanitizer_finish_switch_fiber(here.fake, &before->bottom, &before->size);
}
void forget(const Stack& stack) { ASAN_UNPOISON_MEMORY_REGION(stack.bottom, stack.size); }
#else
void leave(Stack&, const Stack&) {}
void arrive(Stack&, Stack*) {}
void forget(const Stack&) {}
#endif

[[noreturn]] void run_next(Stack& from) {
  running = turns[turn];
  Fiber& next = fibers[running];
  place.thread = next.thread;
  next.waits = Waits::nobody;
  leave(from, next.stack);
  if (next.begun) _longjmp(next.at, 1);
  next.begun = true;
  setcontext(&next.context);
  abort();
}

void arrive_in_fiber() { arrive(fibers[running].stack, turn == 0 ? &main_stack : nullptr); }

void pause(Waits waits, const Where& where) {
  Fiber& fiber = fibers[running];
  fiber.waits = waits;
  fiber.where = where;
  if (_setjmp(fiber.at) == 0) {
    if (++turn < turns.size() && !failure) run_next(fiber.stack);
    leave(fiber.stack, main_stack);
    _longjmp(scheduler, 1);
  }
  arrive_in_fiber();
}

void enter() {
  arrive_in_fiber();
  for (;;) {
    try {
      (*body)();
    } catch (...) {
      failure = std::current_exception();
    }
    pause(Waits::done, Where::current());
  }
}

void take_turns() {
  turn = 0;
  if (_setjmp(scheduler) == 0) run_next(main_stack);
  arrive(main_stack, nullptr);
  if (failure) std::rethrow_exception(std::exchange(failure, nullptr));
}

std::string state_of(size_t number) {
  const Fiber& fiber = fibers[number];
  const char* name = fiber.waits == Waits::for_warp ? "waits for its warp" : "waits for its block";
  std::string text = "thread " + std::to_string(number) + " ";
  if (fiber.waits == Waits::done) return text + "has ended";
  return text + name + " at " + fiber.where.file_name() + ":" + std::to_string(fiber.where.line()) + " in " +
         fiber.where.function_name();
}

// All threads from `first` on must wait for the same, at the same place.
void agree(size_t first, size_t last, const char* whose) {
  const Fiber& one = fibers[first];
  for (size_t i = first + 1; i < last; i++) {
    const Fiber& other = fibers[i];
    if (one.waits != other.waits || (one.waits != Waits::done && (one.where.line() != other.where.line() ||
                                                                  one.where.file_name() != other.where.file_name())))
      throw std::logic_error(std::string("threads of a ") + whose + " diverge: " + state_of(first) + ", " +
                             state_of(i));
  }
}

struct Order {
  enum { forwards, backwards, shuffled } kind = forwards;
  std::minstd_rand random;

  Order() {
    const char* name = getenv("NESTVEC_EMULATED_ORDER");
    std::string text = name ? name : "";
    if (text == "backwards") kind = backwards;
    if (text.rfind("shuffled", 0) == 0) kind = shuffled;
    if (kind == forwards && !text.empty() && text != "forwards")
      throw std::runtime_error("NESTVEC_EMULATED_ORDER is forwards, backwards, shuffled or shuffled:SEED, got " + text);
    random.seed(text.size() > 9 ? unsigned(atoi(text.c_str() + 9)) : 1);
  }
  size_t pick(size_t size) {
    if (kind == shuffled) return random() % size;
    return kind == forwards ? 0 : size - 1;
  }
  void arrange(std::vector<size_t>& all) {
    if (kind == backwards) std::reverse(all.begin(), all.end());
    if (kind == shuffled) std::shuffle(all.begin(), all.end(), random);
  }
};

void run_block(Order& order) {
  std::vector<size_t> warps;
  for (;;) {
    warps.resize((count + WARP - 1) / WARP);
    std::iota(warps.begin(), warps.end(), 0);
    while (!warps.empty()) {
      size_t which = order.pick(warps.size()), first = warps[which] * WARP, last = std::min(first + WARP, count);
      turns.resize(last - first);
      std::iota(turns.begin(), turns.end(), first);
      order.arrange(turns);
      take_turns();
      agree(first, last, "warp");
      if (fibers[first].waits != Waits::for_warp) warps.erase(warps.begin() + long(which));
    }
    agree(0, count, "block");
    if (fibers[0].waits == Waits::done) return;
  }
}

void prepare(dim3 block) {
  count = size_t(block.x) * block.y * block.z;
  fibers.reserve(MOST_THREADS);  // they do not move
  while (fibers.size() < count) {
    fibers.emplace_back();
    fibers.back().stack = {guarded(STACK), STACK, nullptr};
  }
  for (size_t i = 0; i < count; i++) {
    Fiber& fiber = fibers[i];
    fiber.thread = dim3(i % block.x, i / block.x % block.y, i / block.x / block.y);
    fiber.met_warp = fiber.met_block = 0;
    if (fiber.begun && fiber.waits == Waits::done) continue;
    fiber.begun = false;
    forget(fiber.stack);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = const_cast<void*>(fiber.stack.bottom);
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, enter, 0);
  }
}

// Says which thread touched memory that is not the kernel's, then lets what handled faults before have its way.
class Faults {
 public:
  Faults() {
    struct sigaction report = {};
    report.sa_handler = say;
    report.sa_flags = SA_ONSTACK;
    sigaction(SIGSEGV, &report, &before_);
  }
  ~Faults() { sigaction(SIGSEGV, &before_, nullptr); }

 private:
  static void say(int) {
    const Fiber& fiber = fibers[running];
    const dim3 &t = place.thread, &b = place.block;
    dprintf(2, "emulated kernel: no such memory, thread (%u, %u, %u) of block (%u, %u, %u), behind %s:%u in %s\n", t.x,
            t.y, t.z, b.x, b.y, b.z, fiber.where.file_name(), unsigned(fiber.where.line()),
            fiber.where.function_name());
    sigaction(SIGSEGV, &before_, nullptr);
  }
  static inline struct sigaction before_;
};

}  // namespace

void run(dim3 grid, dim3 block, size_t shared, const std::function<void()>& thread) {
  static std::mutex one;  // kernel at a time
  std::lock_guard<std::mutex> hold(one);
  size_t threads = size_t(block.x) * block.y * block.z, blocks = size_t(grid.x) * grid.y * grid.z;
  if (threads == 0 || threads > MOST_THREADS || grid.y > 65535 || grid.z > 65535 || shared > 227 * 1024)
    throw std::logic_error("a launch beyond the limits of CUDA");
  if (blocks == 0) return;
  if (!shared_end) shared_end = guarded(SHARED) + SHARED;
  shared_used = (shared + 15) / 16 * 16;
  body = &thread;
  place.block_size = block;
  place.grid = grid;
  Order order;
  Faults faults;
  size_t stride = order.kind == Order::shuffled ? 2654435761u : 1, first = order.pick(blocks);
  while (std::gcd(stride, blocks) > 1) stride++;
  if (order.kind == Order::backwards) stride = blocks - 1;
  for (size_t i = 0; i < blocks; i++) {
    size_t number = (first + i * stride) % blocks;
    place.block = dim3(number % grid.x, number / grid.x % grid.y, number / grid.x / grid.y);
    memset(shared_end - shared_used, 0xcd, shared_used);
    prepare(block);
    run_block(order);
  }
}

void* dynamic_shared() { return shared_end - shared_used; }
size_t memory_left() { return most_memory; }
void limit_memory(size_t bytes) { most_memory = bytes; }
int lane() { return int(running % WARP); }
void* of_warp() { return warp_rooms[running / WARP].bytes[fibers[running].met_warp % 2]; }
void* of_block() { return block_room.bytes[fibers[running].met_block % 2]; }

void block_barrier(const Where& where) {
  fibers[running].met_block++;
  pause(Waits::for_block, where);
}

void warp_barrier(unsigned mask, const Where& where) {
  if (mask != ~0u || (running / WARP + 1) * WARP > count)
    throw std::logic_error(std::string("some lanes of a warp alone, at ") + where.file_name() + ":" +
                           std::to_string(where.line()));
  fibers[running].met_warp++;
  pause(Waits::for_warp, where);
}

}  // namespace emulated
#endif
