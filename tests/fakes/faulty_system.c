/* Loaded before the C library, to cause what no test can cause otherwise: a wall clock that jumps, and a disk that refuses to be written.

   FAULTS names a directory. A file `clock` in it holds the seconds that the wall clock is wrong by; a file `errno` the number with which every write to a partial fails. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long number(const char *name) {
    char path[4096], text[32] = "";
    const char *directory = getenv("FAULTS");
    if (directory == NULL) return 0;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    int file = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    ssize_t count = syscall(SYS_read, file, text, sizeof text - 1);
    syscall(SYS_close, file);
    return count > 0 ? atol(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    long result = syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && clock == CLOCK_REALTIME) now->tv_sec += number("clock");
    return (int)result;
}

ssize_t write(int file, const void *bytes, size_t count) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (length > 5 && memcmp(path + length - 5, ".part", 5) == 0) {
        long code = number("errno");
        if (code != 0) {
            errno = (int)code;
            return -1;
        }
    }
    return syscall(SYS_write, file, bytes, count);
}
