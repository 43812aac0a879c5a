// Loaded before everything else (LD_PRELOAD): makes chosen calls on files below a folder fail. For Linux.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX];
static long seen, first_failing, last_failing;
static int code;  // 0: nothing fails
static char failed[32];

// From now on the calls from number `first` to `last` on files in a folder fail with an error; error -1: less is read
// or written than was asked for.
void disk_arm(const char* path, long first, long last, int error) {
  snprintf(folder, sizeof folder, "%s", path);
  first_failing = first;
  last_failing = last;
  code = error;
  seen = 0;
  failed[0] = 0;
}

// None fails any more; how many calls there were.
long disk_disarm(void) {
  code = 0;
  return seen;
}

// The function that failed last.
const char* disk_failed(void) { return failed; }

static int fails(const char* name, int watched) {
  if (!code || !watched) return 0;
  seen++;
  if (seen < first_failing || seen > last_failing) return 0;
  snprintf(failed, sizeof failed, "%s", name);
  return 1;
}

static int below(const char* path) { return code && !strncmp(path, folder, strlen(folder)); }

static int open_below(int file) {
  char link[64], path[PATH_MAX];
  if (!code) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t size = readlink(link, path, sizeof path - 1);
  if (size < 0) return 0;
  path[size] = 0;
  return below(path);
}

// `less`: what a call that does less does; else it fails.
#define CALL(name, watched, less, type, parameters, ...)           \
  type name parameters {                                           \
    static type(*real) parameters;                                 \
    if (!real) real = (type(*) parameters)dlsym(RTLD_NEXT, #name); \
    if (fails(#name, watched)) {                                   \
      if (code > 0) {                                              \
        errno = code;                                              \
        return (type) - 1;                                         \
      }                                                            \
      less;                                                        \
    }                                                              \
    return real(__VA_ARGS__);                                      \
  }

#define OPEN(name)                                                             \
  int name(const char* path, int flags, ...) {                                 \
    static int (*real)(const char*, int, ...);                                 \
    va_list rest;                                                              \
    va_start(rest, flags);                                                     \
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;                  \
    va_end(rest);                                                              \
    if (!real) real = (int (*)(const char*, int, ...))dlsym(RTLD_NEXT, #name); \
    if (fails(#name, below(path)) && code > 0) {                               \
      errno = code;                                                            \
      return -1;                                                               \
    }                                                                          \
    return real(path, flags, mode);                                            \
  }

OPEN(open)
OPEN(open64)
CALL(write, open_below(file), size = size / 2 + 1, ssize_t, (int file, const void* data, size_t size), file, data, size)
CALL(pwrite, open_below(file), size = size / 2 + 1, ssize_t, (int file, const void* data, size_t size, off_t at), file,
     data, size, at)
CALL(read, open_below(file), size = size / 2 + 1, ssize_t, (int file, void* data, size_t size), file, data, size)
CALL(pread, open_below(file), size = size / 2 + 1, ssize_t, (int file, void* data, size_t size, off_t at), file, data,
     size, at)
#define VECTOR(name)                                                                                     \
  CALL(name, open_below(file), return pread(file, parts->iov_base, parts->iov_len / 2 + 1, at), ssize_t, \
       (int file, const struct iovec* parts, int count, off_t at, int flags), file, parts, count, at, flags)
VECTOR(preadv2)
VECTOR(preadv64v2)
CALL(fsync, open_below(file), , int, (int file), file)
CALL(fdatasync, open_below(file), , int, (int file), file)
CALL(ftruncate, open_below(file), , int, (int file, off_t size), file, size)
CALL(ftruncate64, open_below(file), , int, (int file, off_t size), file, size)
CALL(fstat, open_below(file), , int, (int file, struct stat* found), file, found)
CALL(fstat64, open_below(file), , int, (int file, struct stat64* found), file, found)
CALL(fchmod, open_below(file), , int, (int file, mode_t mode), file, mode)
CALL(rename, below(to), , int, (const char* from, const char* to), from, to)
CALL(unlink, below(path), , int, (const char* path), path)
CALL(mmap, file >= 0 && open_below(file), , void*,
     (void* at, size_t size, int protection, int flags, int file, off_t offset), at, size, protection, flags, file,
     offset)
CALL(mmap64, file >= 0 && open_below(file), , void*,
     (void* at, size_t size, int protection, int flags, int file, off_t offset), at, size, protection, flags, file,
     offset)

// A file is closed even where that is said to have failed.
int close(int file) {
  static int (*real)(int);
  int error = fails("close", open_below(file)) && code > 0 ? code : 0;
  if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "close");
  int status = real(file);
  if (!error) return status;
  errno = error;
  return -1;
}
