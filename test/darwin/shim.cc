// What the calls of macOS that the port uses do, on Linux: as xnu's sources say it, with what is awkward of it. So every line of
// native/platform/darwin runs in the tests. Whether a Mac does the same, only a Mac can tell; what the locks rest on is checked
// there by the port itself, for each segment (File::prove).
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>

#include "crt_externs.h"
#include "libproc.h"
#include "mach/mach.h"
#include "sys/sysctl.h"

// ---- clocks, folders, memory

uint64_t clock_gettime_nsec_np(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000000000u + static_cast<uint64_t>(now.tv_nsec);
}

size_t shim_confstr(int name, char* text, size_t size) {
  if (name != _CS_DARWIN_USER_CACHE_DIR) return 0;
  const char* folder = getenv("PROCLOCK_SHIM_CACHE");
  return static_cast<size_t>(snprintf(text, size, "%s", folder == nullptr ? "/dev/shm/" : folder)) + 1;
}

#undef fcntl
int shim_fcntl(int fd, int command, ...) {
  va_list list;
  va_start(list, command);
  void* argument = va_arg(list, void*);
  va_end(list);
  const bool locks = command == F_OFD_SETLK || command == F_OFD_GETLK;
  if (!locks || getenv("PROCLOCK_SHIM_NO_LOCKS") == nullptr) return fcntl(fd, command, argument);
  if (command == F_OFD_GETLK) static_cast<struct flock*>(argument)->l_type = F_UNLCK;
  return 0;
}

int minherit(void* address, size_t bytes, int inheritance) {
  if (inheritance == VM_INHERIT_NONE) return madvise(address, bytes, MADV_DONTFORK);
  errno = EINVAL;
  return -1;
}

constexpr int kArgMax = 1 << 20;

int sysctlbyname(const char* name, void* old, size_t* old_size, void*, size_t) {
  if (strcmp(name, "kern.argmax") == 0) {
    *old_size = sizeof kArgMax;
    memcpy(old, &kArgMax, sizeof kArgMax);
    return 0;
  }
  if (strcmp(name, "kern.bootsessionuuid") != 0) {
    errno = ENOENT;
    return -1;
  }
  char text[64] = "";
  if (const char* told = getenv("PROCLOCK_SHIM_BOOT")) {
    snprintf(text, sizeof text, "%s", told);
  } else {
    FILE* file = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (file == nullptr) return -1;
    if (fgets(text, sizeof text, file) == nullptr) text[0] = '\0';
    fclose(file);
    text[strcspn(text, "\n")] = '\0';
  }
  if (strlen(text) >= *old_size) {
    errno = ENOMEM;
    return -1;
  }
  *old_size = strlen(text) + 1;
  memcpy(old, text, *old_size);
  return 0;
}

// ---- processes

char*** _NSGetEnviron() { return &environ; }

// How many arguments, the path of the program, zeros, the arguments, and what is behind them: the variables.
int sysctl(int* name, unsigned length, void* old, size_t* old_size, void*, size_t) {
  errno = EINVAL;
  if (length != 3 || name[0] != CTL_KERN || name[1] != KERN_PROCARGS2 || *old_size < kArgMax) return -1;
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/cmdline", name[2]);
  FILE* file = fopen(path, "re");
  if (file == nullptr) return -1;
  static const char before[] = "/usr/local/bin/program\0\0\0";
  static const char behind[] = "HOME=/Users/anybody\0USER=anybody";
  auto* text = static_cast<char*>(old);
  char* at = text + sizeof(int);
  at = static_cast<char*>(memcpy(at, before, sizeof before)) + sizeof before;
  const size_t room = *old_size - static_cast<size_t>(at - text) - sizeof behind;
  const size_t bytes = fread(at, 1, room, file);
  fclose(file);
  if (bytes == 0) return -1;
  const int count = static_cast<int>(std::count(at, at + bytes, '\0'));
  memcpy(text, &count, sizeof count);
  memcpy(at + bytes, behind, sizeof behind);
  *old_size = static_cast<size_t>(at - text) + bytes + sizeof behind;
  return 0;
}

// As many as there is room for.
static int list_descriptors(proc_fdinfo* found, int size) {
  DIR* folder = opendir("/proc/self/fd");
  if (folder == nullptr) return 0;
  int bytes = 0;
  for (const dirent* entry; bytes + static_cast<int>(sizeof *found) <= size && (entry = readdir(folder));) {
    const int fd = atoi(entry->d_name);
    if (entry->d_name[0] == '.' || fd == dirfd(folder)) continue;
    *found++ = {fd, 0};
    bytes += sizeof *found;
  }
  closedir(folder);
  return bytes;
}

int proc_pidinfo(int pid, int flavor, uint64_t, void* buffer, int size) {
  if (flavor == PROC_PIDLISTFDS && pid == getpid())
    return list_descriptors(static_cast<proc_fdinfo*>(buffer), size);
  if (flavor != PROC_PIDTBSDINFO || size < static_cast<int>(sizeof(proc_bsdinfo))) {
    errno = EINVAL;
    return 0;
  }
  char path[64], text[1024] = "";
  snprintf(path, sizeof path, "/proc/%d/task/%d/stat", pid, pid);
  FILE* file = fopen(path, "re");
  // The kernel that is played needs no descriptor for its answer: without one there is none, and nobody is dead for that.
  if (file == nullptr && errno != ENOENT && errno != ESRCH) return 0;
  const bool read = file != nullptr && fread(text, 1, sizeof text - 1, file) > 0;
  if (file != nullptr) fclose(file);
  char state = 'Z';
  uint64_t threads = 0, ticks = 0;
  char* field = read ? strrchr(text, ')') : nullptr;
  for (int number = 3; field != nullptr && number <= 22; number++) {
    field = strchr(field + 1, ' ');
    if (field == nullptr) break;
    if (number == 3) state = field[1];
    if (number == 20) threads = strtoull(field, nullptr, 10);
    if (number == 22) ticks = strtoull(field, nullptr, 10);
  }
  if ((state == 'Z' || state == 'X') && threads <= 1) {
    errno = ESRCH;
    return 0;
  }
  auto* info = static_cast<proc_bsdinfo*>(buffer);
  *info = {(state | 0x20) == 't' ? 4u : 2u, static_cast<uint32_t>(pid), ticks / 100, ticks % 100 * 10000};
  return sizeof *info;
}

// ---- waiting

namespace {

// Which calls find the page not resident: some, also without any reason.
bool faults() {
  static std::atomic<uint32_t> calls{0};
  return calls.fetch_add(1) % 61 == 60;
}

// Who sleeps on a word as a private one is not found by who wakes it as a shared one, and the other way round.
int futex_of(uint32_t operation) {
  if (operation == (3u | 0x01000000u)) return 0;
  return operation == (1u | 0x01000000u) ? FUTEX_PRIVATE_FLAG : -1;
}

}  // namespace

extern "C" int __ulock_wait2(uint32_t operation, void* address, uint64_t value, uint64_t timeout_ns,
                             uint64_t) {
  const int kind = futex_of(operation);
  if (kind < 0) return -EINVAL;
  if (faults()) return -EFAULT;
  const timespec timeout = {static_cast<time_t>(timeout_ns / 1000000000u),
                            static_cast<long>(timeout_ns % 1000000000u)};
  // A time-out of 0 is none.
  const long result = syscall(SYS_futex, address, FUTEX_WAIT | kind, static_cast<uint32_t>(value),
                              timeout_ns == 0 ? nullptr : &timeout, nullptr, 0);
  return result == 0 || errno == EAGAIN ? 0 : -errno;
}

// PROCLOCK_SHIM_NO_WAKE: nobody is ever found, as if the words of two mappings were two.
extern "C" int __ulock_wake(uint32_t operation, void* address, uint64_t) {
  const int kind = futex_of(operation & ~0x100u);
  if (kind < 0) return -EINVAL;
  if (kind == 0 && getenv("PROCLOCK_SHIM_NO_WAKE") != nullptr) return -ENOENT;
  const long woken = syscall(SYS_futex, address, FUTEX_WAKE | kind, (operation & 0x100) != 0 ? INT_MAX : 1,
                             nullptr, nullptr, 0);
  return woken > 0 ? 0 : -ENOENT;
}

// ---- references to open files that are no descriptors: here they are, high up, where nobody looks for them

namespace {

struct Port {
  int fd;
  dev_t device;
  ino_t inode;
  bool is_there() const {
    struct stat file;
    return fstat(fd, &file) == 0 && file.st_dev == device && file.st_ino == inode;
  }
};
std::mutex ports_mutex;
std::map<mach_port_t, Port>& ports() {
  static auto* all = new std::map<mach_port_t, Port>();
  return *all;
}
constexpr int kPortsFrom = 700;

// No port is inherited.
void forget_ports() {
  new (&ports_mutex) std::mutex();
  for (const auto& entry : ports()) {
    if (entry.second.is_there()) close(entry.second.fd);
  }
  ports().clear();
}
// Nobody changes them while the process is copied.
const int ports_at_fork =
    pthread_atfork([] { ports_mutex.lock(); }, [] { ports_mutex.unlock(); }, forget_ports);

}  // namespace

extern "C" int fileport_makeport(int fd, mach_port_t* port) {
  const std::lock_guard<std::mutex> locked(ports_mutex);
  static mach_port_t last = 0;
  struct stat file;
  const int copy = fcntl(fd, F_DUPFD_CLOEXEC, kPortsFrom);
  if (copy < 0) return -1;
  if (fstat(copy, &file) != 0) return -1;
  *port = ++last;
  ports()[last] = {copy, file.st_dev, file.st_ino};
  return 0;
}

extern "C" int fileport_makefd(mach_port_t port) {
  const std::lock_guard<std::mutex> locked(ports_mutex);
  const auto found = ports().find(port);
  errno = EINVAL;
  return found == ports().end() ? -1 : fcntl(found->second.fd, F_DUPFD_CLOEXEC, 0);
}

int mach_port_deallocate(mach_port_t, mach_port_t port) {
  const std::lock_guard<std::mutex> locked(ports_mutex);
  const auto found = ports().find(port);
  if (found == ports().end()) return 15;  // KERN_INVALID_NAME
  if (found->second.is_there()) close(found->second.fd);
  ports().erase(found);
  return 0;
}
