#include "unix.h"

#include "system.h"

#ifdef PROCLOCK_SUPPORTED

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

namespace proclock {

bool UnixPlatform::can_spin() {
  static const bool several = sysconf(_SC_NPROCESSORS_ONLN) > 1;
  return several;
}

uint64_t UnixPlatform::read_clock(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000000000u + static_cast<uint64_t>(now.tv_nsec);
}

uint64_t UnixPlatform::wall_ns() { return read_clock(CLOCK_REALTIME); }

bool UnixPlatform::start_thread(void* (*run)(void*), void* argument) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_attr_t attr;
  if (pthread_attr_init(&attr) != 0) return false;
  pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attr, 256 * 1024);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  const bool started = pthread_create(&thread, &attr, run, argument) == 0;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attr);
  return started;
}

int UnixPlatform::above_standard(int fd) {
  if (fd < 0 || fd >= kStandardFds) return fd;
  const int above = fcntl(fd, F_DUPFD_CLOEXEC, kStandardFds);
  const int error = errno;
  close(fd);
  errno = error;
  return above;
}

// -1: there is none; an errno below 0, but for -1: that could not be found out.
int64_t UnixPlatform::group_id(const char* name) {
  constexpr size_t kBytesMax = size_t{1} << 24;  // a group has as many names in it as it has members
  for (size_t bytes = 1 << 14;;) {
    std::vector<char> buffer(bytes);
    group entry;
    group* found = nullptr;
    const int error = getgrnam_r(name, &entry, buffer.data(), buffer.size(), &found);
    if (found != nullptr) return static_cast<int64_t>(found->gr_gid);
    if (error == EINTR) continue;
    if (error == ERANGE && bytes < kBytesMax) {
      bytes *= 4;
      continue;
    }
    // By POSIX, each of these may stand for "no such group".
    const bool none = error == 0 || error == ENOENT || error == ESRCH || error == EBADF || error == EPERM;
    return none ? -1 : -error;
  }
}

}  // namespace proclock

#endif  // PROCLOCK_SUPPORTED
