// Loaded before everything else (LD_PRELOAD): makes chosen allocations fail. For Linux with glibc.
//
// What numpy's C code allocates for itself is spared: where its iterators get no buffer (up to 8192 elements), numpy
// crashes. The data of its arrays is not spared, it comes from `array_memory`, which the tests tell numpy to use. The
// dynamic loader is spared, too: where a thread gets no room for its variables, it ends the process.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);

static atomic_bool armed;
static atomic_long seen;
static long first_failing, last_failing;
static size_t least_size;
static int every_thread;
static __thread int own_thread;

// From now on, of the allocations of at least `least` bytes, those from number `first` to `last` fail: of all threads,
// or of the calling one.
void arm(long first, long last, size_t least, int all_threads) {
  first_failing = first;
  last_failing = last;
  least_size = least;
  every_thread = all_threads;
  own_thread = 1;
  atomic_store(&seen, 0);
  atomic_store(&armed, 1);
}

// None fails any more; how many there were.
long disarm(void) {
  atomic_store(&armed, 0);
  own_thread = 0;
  return atomic_load(&seen);
}

static int fails(size_t size) {
  if (!atomic_load_explicit(&armed, memory_order_relaxed) || size < least_size || !(every_thread || own_thread))
    return 0;
  long number = atomic_fetch_add(&seen, 1) + 1;
  if (number < first_failing || number > last_failing) return 0;
  errno = ENOMEM;
  return 1;
}

static int fails_for(const void* caller, size_t size) {
  Dl_info where;
  if (!atomic_load_explicit(&armed, memory_order_relaxed)) return 0;
  if (dladdr(caller, &where) && (strstr(where.dli_fname, "_multiarray_umath") || strstr(where.dli_fname, "/ld-linux")))
    return 0;
  return fails(size);
}

#define FAILS(size) fails_for(__builtin_return_address(0), size)

void* malloc(size_t size) { return FAILS(size) ? NULL : __libc_malloc(size); }

void* calloc(size_t count, size_t size) { return FAILS(count * size) ? NULL : __libc_calloc(count, size); }

void* realloc(void* memory, size_t size) { return FAILS(size) ? NULL : __libc_realloc(memory, size); }

void* memalign(size_t alignment, size_t size) { return FAILS(size) ? NULL : __libc_memalign(alignment, size); }

void* aligned_alloc(size_t alignment, size_t size) { return FAILS(size) ? NULL : __libc_memalign(alignment, size); }

int posix_memalign(void** memory, size_t alignment, size_t size) {
  void* got = FAILS(size) ? NULL : __libc_memalign(alignment, size);
  if (!got) return ENOMEM;
  *memory = got;
  return 0;
}

void* mmap(void* address, size_t size, int protection, int flags, int file, off_t offset) {
  if ((flags & MAP_ANONYMOUS) && FAILS(size)) return MAP_FAILED;
  return (void*)syscall(SYS_mmap, address, size, protection, flags, file, offset);
}

void* mmap64(void* address, size_t size, int protection, int flags, int file, off_t offset) {
  if ((flags & MAP_ANONYMOUS) && FAILS(size)) return MAP_FAILED;
  return (void*)syscall(SYS_mmap, address, size, protection, flags, file, offset);
}

static void* array_malloc(void* context, size_t size) {
  (void)context;
  return fails(size) ? NULL : __libc_malloc(size);
}

static void* array_calloc(void* context, size_t count, size_t size) {
  (void)context;
  return fails(count * size) ? NULL : __libc_calloc(count, size);
}

static void* array_realloc(void* context, void* memory, size_t size) {
  (void)context;
  return fails(size) ? NULL : __libc_realloc(memory, size);
}

static void array_free(void* context, void* memory, size_t size) {
  (void)context;
  (void)size;
  free(memory);
}

// PyDataMem_Handler of numpy's C interface, version 1.
struct {
  char name[127];
  uint8_t version;
  void* context;
  void* (*malloc)(void*, size_t);
  void* (*calloc)(void*, size_t, size_t);
  void* (*realloc)(void*, void*, size_t);
  void (*free)(void*, void*, size_t);
} array_memory = {"failing", 1, NULL, array_malloc, array_calloc, array_realloc, array_free};
