#include "interpose.h"

#include <errno.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>

// As in native/platform/linux: older headers do not have them.
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

namespace interpose {

std::atomic<int> sleeper{0};
std::atomic<bool> no_futex_waitv{false};
std::atomic<bool> no_pidfd_open{false};
std::atomic<bool> no_close_range{false};

}  // namespace interpose

using namespace interpose;

extern "C" {

long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);

// Reads all arguments that there can be, of which the caller's frame may have fewer, as libc's own does.
__attribute__((no_sanitize("address"))) long __wrap_syscall(long number, ...) {
  long arguments[6];
  va_list list;
  va_start(list, number);
  for (long& argument : arguments) argument = va_arg(list, long);
  va_end(list);
  if ((number == SYS_futex_waitv && no_futex_waitv.load()) ||
      (number == SYS_pidfd_open && no_pidfd_open.load()) ||
      (number == SYS_close_range && no_close_range.load())) {
    errno = ENOSYS;
    return -1;
  }
  if (number == SYS_futex_waitv) sleeper.store(static_cast<int>(__real_syscall(SYS_gettid)));
  return __real_syscall(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4],
                        arguments[5]);
}

}  // extern "C"
