#include "interpose.h"

#include <errno.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>

// As in native/runtime.cc: older headers do not have them.
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

namespace interpose {

Turnstile turnstile;
std::atomic<int> sleeper{0};
std::atomic<bool> no_futex_waitv{false};
std::atomic<bool> no_pidfd_open{false};

}  // namespace interpose

using namespace interpose;

extern "C" {

long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);
int __real_pthread_mutex_unlock(pthread_mutex_t* mutex);
int __wrap_pthread_mutex_unlock(pthread_mutex_t* mutex);

// Reads all arguments that there can be, of which the caller's frame may have fewer, as libc's own does.
__attribute__((no_sanitize("address"))) long __wrap_syscall(long number, ...) {
  long arguments[6];
  va_list list;
  va_start(list, number);
  for (long& argument : arguments) argument = va_arg(list, long);
  va_end(list);
  if ((number == SYS_futex_waitv && no_futex_waitv.load()) ||
      (number == SYS_pidfd_open && no_pidfd_open.load())) {
    errno = ENOSYS;
    return -1;
  }
  if (number == SYS_futex_waitv) sleeper.store(static_cast<int>(__real_syscall(SYS_gettid)));
  return __real_syscall(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4],
                        arguments[5]);
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t* mutex) {
  const int result = __real_pthread_mutex_unlock(mutex);
  if (turnstile.behind.load() != mutex || __real_syscall(SYS_gettid) == getpid()) return result;
  turnstile.held_up.fetch_add(1);
  while (turnstile.behind.load() == mutex) usleep(200);
  return result;
}

}  // extern "C"
