#include "platform_linux.h"

#ifdef __linux__

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

namespace proclock {

namespace {

uint64_t read_clock(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000000000u + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace

void LinuxPlatform::init(RwLock* lock) {
  pthread_rwlockattr_t attr;
  pthread_rwlockattr_init(&attr);
  pthread_rwlockattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
#ifdef __SANITIZE_THREAD__
  // It may have been left locked when it was retired, which ThreadSanitizer would remember beyond pthread_rwlock_init().
  pthread_rwlock_destroy(lock);
#endif
  memset(static_cast<void*>(lock), 0, sizeof *lock);
  pthread_rwlock_init(lock, &attr);
  pthread_rwlockattr_destroy(&attr);
}

void LinuxPlatform::init(Mutex* mutex) {
  pthread_mutexattr_t attr;
  pthread_mutexattr_init(&attr);
  pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
  pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
  // NORMAL, not ERRORCHECK: two PID namespaces can hold threads of the same id, and a check for "mine already" lies.
  pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_NORMAL);
  memset(static_cast<void*>(mutex), 0, sizeof *mutex);
  pthread_mutex_init(mutex, &attr);
  pthread_mutexattr_destroy(&attr);
}

MutexState LinuxPlatform::lock(Mutex* mutex, uint64_t patience_ns) {
  int result = pthread_mutex_trylock(mutex);
  if (result == EBUSY && patience_ns != 0) {
    // By the wall clock, because musl and glibc before 2.30 have no other: a jump costs patience, nothing else. An
    // unlock wakes one sleeper, and that one may be stopped before it takes the mutex: the others look again at the end.
    const uint64_t until_ns = wall_ns() + patience_ns;
    const timespec until = {static_cast<time_t>(until_ns / 1000000000u),
                            static_cast<long>(until_ns % 1000000000u)};
    result = pthread_mutex_timedlock(mutex, &until);
    if (result == ETIMEDOUT) result = pthread_mutex_trylock(mutex);
  }
  switch (result) {
    case 0:
      return MutexState::kLocked;
    case EBUSY:
    case ETIMEDOUT:
      return MutexState::kStalled;
    case EOWNERDEAD:
      // Consistent at once, not after the repair: whoever dies in the repair makes it EOWNERDEAD again.
      pthread_mutex_consistent(mutex);
      return MutexState::kOwnerDied;
    default:
      return MutexState::kBroken;
  }
}

uint64_t LinuxPlatform::monotonic_ns() { return read_clock(CLOCK_MONOTONIC); }
uint64_t LinuxPlatform::wall_ns() { return read_clock(CLOCK_REALTIME); }
double LinuxPlatform::wall_ms() { return static_cast<double>(read_clock(CLOCK_REALTIME_COARSE)) / 1e6; }

// The words are shared between processes: never FUTEX_PRIVATE_FLAG.
void LinuxPlatform::wait(Atomic<uint32_t>* word, uint32_t seen, uint64_t deadline_ns) {
  timespec deadline;
  deadline.tv_sec = static_cast<time_t>(deadline_ns / 1000000000u);
  deadline.tv_nsec = static_cast<long>(deadline_ns % 1000000000u);
  syscall(SYS_futex, word, FUTEX_WAIT_BITSET, seen, deadline_ns == kNoDeadline ? nullptr : &deadline, nullptr,
          FUTEX_BITSET_MATCH_ANY);
}

void LinuxPlatform::wake(Atomic<uint32_t>* word) {
  syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

// Field 22 of /proc/<pid>/stat; 0 where there is no such process, or no /proc. The command name (field 2) may hold
// spaces and parentheses: the fields are counted from its last ')'.
uint64_t LinuxPlatform::start_time(int32_t pid) {
  char path[64];
  if (pid == 0) {
    snprintf(path, sizeof path, "/proc/self/stat");
  } else {
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
  }
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  char text[1024];
  const ssize_t length = read(fd, text, sizeof text - 1);
  close(fd);
  if (length <= 0) return 0;
  text[length] = '\0';
  char* field = strrchr(text, ')');
  for (int number = 2; field != nullptr && number < 22; number++) field = strchr(field + 1, ' ');
  return field == nullptr ? 0 : strtoull(field, nullptr, 10);
}

ProcessIdentity LinuxPlatform::self() {
  ProcessIdentity identity;
  identity.pid = getpid();
  identity.start_time = start_time(0);
  struct stat ns;
  if (stat("/proc/self/ns/pid", &ns) == 0) identity.pid_ns = ns.st_ino;
  return identity;
}

}  // namespace proclock

#endif  // __linux__
