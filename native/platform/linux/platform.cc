#include "../system.h"

#ifdef PROCLOCK_LINUX

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

namespace proclock {

namespace {

timespec timespec_of(uint64_t ns) {
  return {static_cast<time_t>(ns / 1000000000u), static_cast<long>(ns % 1000000000u)};
}

// struct futex_waitv of linux/futex.h, which kernels before 5.16 do not have.
struct FutexWait {
  uint64_t value;
  uint64_t address;
  uint32_t flags;
  uint32_t reserved;
};
constexpr uint32_t kFutex32 = 2;
constexpr uint64_t kRetryNs = 1000000;  // where the kernel refuses to let anybody sleep

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

uint64_t LinuxPlatform::monotonic_ns() { return read_clock(CLOCK_MONOTONIC); }
double LinuxPlatform::wall_ms() { return static_cast<double>(read_clock(CLOCK_REALTIME_COARSE)) / 1e6; }

// The words are shared between processes: never FUTEX_PRIVATE_FLAG.
void LinuxPlatform::wait(Atomic<uint32_t>* word, uint32_t seen, uint64_t deadline_ns) {
  const timespec deadline = timespec_of(deadline_ns);
  if (syscall(SYS_futex, word, FUTEX_WAIT_BITSET, seen, deadline_ns == kNoDeadline ? nullptr : &deadline,
              nullptr, FUTEX_BITSET_MATCH_ANY) == 0) {
    return;
  }
  if (errno == EAGAIN || errno == EINTR || errno == ETIMEDOUT) return;
  // No futex (a sandbox): slower, but whoever waits does not spin.
  const timespec pause = timespec_of(kRetryNs);
  nanosleep(&pause, nullptr);
}

// Nothing can fail that a caller could do something about: who sleeps wakes up by its deadline.
void LinuxPlatform::wake(Atomic<uint32_t>* word) {
  syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

void LinuxPlatform::wake(Atomic<uint64_t>* word, bool all) {
  syscall(SYS_futex, low_half(word), FUTEX_WAKE, all ? INT_MAX : 1, nullptr, nullptr, 0);
}

bool LinuxPlatform::wait_for_any(const std::vector<Sleep>& sleeps, uint64_t deadline_ns) {
  static std::atomic<bool> can_wait_many{true};
  if (sleeps.size() == 1) {
    wait(sleeps[0].word, sleeps[0].seen, deadline_ns);
    return true;
  }
  if (can_wait_many.load(std::memory_order_relaxed)) {
    FutexWait waits[kSleepsMax];
    const size_t count = std::min(sleeps.size(), kSleepsMax);
    for (size_t i = 0; i < count; i++) {
      const Sleep& sleep = i + 1 == count ? sleeps.back() : sleeps[i];
      waits[i] = {sleep.seen, reinterpret_cast<uint64_t>(sleep.word), kFutex32, 0};
    }
    const timespec deadline = timespec_of(deadline_ns);
    if (syscall(SYS_futex_waitv, waits, count, 0, deadline_ns == kNoDeadline ? nullptr : &deadline,
                CLOCK_MONOTONIC) >= 0 ||
        errno == EAGAIN || errno == EINTR || errno == ETIMEDOUT) {
      return true;
    }
    // It has not slept: its caller chose the deadline for a sleep on all of them, and may have chosen none.
    can_wait_many.store(false, std::memory_order_relaxed);
    return false;
  }
  wait(sleeps[0].word, sleeps[0].seen, deadline_ns);
  return false;
}

void LinuxPlatform::name_thread(const char* name) { pthread_setname_np(pthread_self(), name); }

bool LinuxPlatform::is_mapped(const void* address) {
  const uintptr_t page_size = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  unsigned char resident;
  return mincore(reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(address) & ~(page_size - 1)), 1,
                 &resident) == 0;
}

namespace {

// The beginning of a file; how long that is, or -1 where it can not be read.
ssize_t read_file(const char* path, char* text, size_t size) {
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  const ssize_t length = read(fd, text, size);
  close(fd);
  return length;
}

}  // namespace

// The command name (field 2) may hold spaces and parentheses: the fields are counted from its last ')'.
ProcessStat read_stat(int32_t pid) {
  ProcessStat stat;
  // That of its first thread, which says the same: an emulator that makes up a process's own `stat` leaves this one alone.
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/task/%d/stat", pid, pid);
  char text[1024];
  const ssize_t length = read_file(path, text, sizeof text - 1);
  if (length <= 0) return stat;
  text[length] = '\0';
  char* field = strrchr(text, ')');
  for (int number = 3; field != nullptr && number <= 22; number++) {
    field = strchr(field + 1, ' ');
    if (field == nullptr) return {};
    if (number == 3) stat.state = field[1];
    if (number == 20) stat.threads = strtoull(field, nullptr, 10);
    if (number == 22) stat.start_time = strtoull(field, nullptr, 10);
  }
  return stat;
}

ProcessIdentity LinuxPlatform::self() {
  ProcessIdentity identity;
  identity.pid = getpid();
  // Where /proc is that of another PID namespace, its numbers name other processes.
  char self[16];
  const ssize_t length = readlink("/proc/self", self, sizeof self - 1);
  self[length < 0 ? 0 : length] = '\0';
  if (strtol(self, nullptr, 10) == identity.pid) identity.start_time = read_stat(identity.pid).start_time;
  struct stat ns;
  if (stat("/proc/self/ns/pid", &ns) == 0) identity.pid_ns = ns.st_ino;
  if (stat("/proc/self/ns/time", &ns) == 0) identity.time_ns = ns.st_ino;
  return identity;
}

uint64_t LinuxPlatform::start_time(int32_t pid) { return read_stat(pid).start_time; }

bool LinuxPlatform::has_ended(const ProcessIdentity& identity) {
  const ProcessStat stat = read_stat(identity.pid);
  const bool another =
      identity.start_time != 0 && stat.start_time != 0 && stat.start_time != identity.start_time;
  const bool zombie = (stat.state == 'Z' || stat.state == 'X') && stat.threads <= 1;
  return another || zombie;
}

bool LinuxPlatform::look_at(const ProcessIdentity& identity, bool with_command, ProcessDetails* details) {
  if (!identity.same_namespace(self())) return false;
  const ProcessStat stat = read_stat(identity.pid);
  if (stat.start_time == 0) return false;
  if (identity.start_time != 0 && stat.start_time != identity.start_time) return false;
  details->stopped = stat.state == 'T' || stat.state == 't';
  if (!with_command) return true;
  char path[32];
  snprintf(path, sizeof path, "/proc/%d/cmdline", identity.pid);
  char text[kCommandMax];
  const ssize_t length = read_file(path, text, sizeof text);
  details->command.assign(text, length < 0 ? 0 : static_cast<size_t>(length));
  return true;
}

}  // namespace proclock

#endif  // PROCLOCK_LINUX
