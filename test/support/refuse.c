// To be preloaded: system and library calls that are named in the environment variable REFUSE are refused, as they are where
// something is scarce (pthread_create), on an old kernel, or in a sandbox. The process may set the variable while it runs.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static int is_refused(const char* call) {
  const char* refused = getenv("REFUSE");
  return refused != NULL && strstr(refused, call) != NULL;
}

static const struct {
  long number;
  const char* name;
} kCalls[] = {{434, "pidfd_open"}, {436, "close_range"}, {449, "futex_waitv"}};

long syscall(long number, ...) {
  static long (*real)(long, ...);
  va_list list;
  long a[6];
  if (real == NULL) real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
  va_start(list, number);
  for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
  va_end(list);
  for (unsigned i = 0; i < sizeof kCalls / sizeof kCalls[0]; i++) {
    if (number != kCalls[i].number || !is_refused(kCalls[i].name)) continue;
    errno = ENOSYS;
    return -1;
  }
  return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*run)(void*), void* argument) {
  static int (*real)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  if (real == NULL) *(void**)&real = dlsym(RTLD_NEXT, "pthread_create");
  return is_refused("pthread_create") ? EAGAIN : real(thread, attributes, run, argument);
}
