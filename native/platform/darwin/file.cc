#include "../system.h"

#ifdef PROCLOCK_DARWIN

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mach/mach.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sysctl.h>
#include <unistd.h>

#include <algorithm>

// Of sys/fileport.h, which not every SDK has.
extern "C" {
int fileport_makeport(int fd, mach_port_t* port);
int fileport_makefd(mach_port_t port);
}

#ifndef PROCLOCK_GROUP_FOLDER
#define PROCLOCK_GROUP_FOLDER "/private/var/tmp"
#endif

namespace proclock {

namespace {

using DarwinLayout = Layout<DarwinPlatform>;
constexpr size_t kTables = 6;
constexpr size_t kBegins[kTables + 1] = {
    DarwinLayout::kProcesses, DarwinLayout::kLocks,   DarwinLayout::kStorages, DarwinLayout::kSlots,
    DarwinLayout::kExtents,   DarwinLayout::kBuckets, DarwinLayout::kBytes};

// What this system keeps in the segment for itself.
struct Own {
  std::atomic<uint64_t> boot[2];
  std::atomic<uint32_t> written[kTables];  // bytes of each table that are there, from its beginning on
  std::atomic<uint32_t> proof;             // slept on by whoever makes the segment, for prove()
};
constexpr size_t kOwn = kPage - 64;
static_assert(sizeof(Own) <= 64 && sizeof(Header<DarwinPlatform>) <= kOwn, "at the end of the header's page");

Own* own_of(char* base) { return reinterpret_cast<Own*>(base + kOwn); }

// The id of this boot as two numbers; zeros where there is none, which then is that of every boot.
void read_boot(uint64_t (&boot)[2]) {
  char text[64] = "";
  size_t size = sizeof text - 1;
  boot[0] = boot[1] = 0;
  if (sysctlbyname("kern.bootsessionuuid", text, &size, nullptr, 0) != 0) return;
  int digits = 0;
  for (const char* at = text; *at != '\0' && digits < 32; at++) {
    const char letter = static_cast<char>(*at | 0x20);
    const bool is_digit = *at >= '0' && *at <= '9';
    if (!is_digit && (letter < 'a' || letter > 'f')) continue;
    boot[digits / 16] =
        boot[digits / 16] << 4 | static_cast<uint64_t>(is_digit ? *at - '0' : letter - 'a' + 10);
    digits++;
  }
}

// The limit of this process on the size of a file. 0 or an errno.
int check_limit(size_t bytes) {
  rlimit limit;
  if (getrlimit(RLIMIT_FSIZE, &limit) != 0) return errno;
  return bytes > limit.rlim_cur ? EFBIG : 0;
}

int write_zeros(int fd, size_t from, size_t to) {
  static const char zeros[64 * 1024] = {};
  const int forbidden = check_limit(to);
  if (forbidden != 0) return forbidden;
  while (from < to) {
    const size_t piece = to - from < sizeof zeros ? to - from : sizeof zeros;
    const ssize_t written = pwrite(fd, zeros, piece, static_cast<off_t>(from));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return written < 0 ? errno : ENOSPC;
    from += static_cast<size_t>(written);
  }
  return 0;
}

}  // namespace

std::string DarwinPlatform::File::path(const char* name) {
  std::string path = PROCLOCK_GROUP_FOLDER;
  if (strncmp(name, "/proclock-g", 11) != 0) {
    char folder[PATH_MAX];
    const size_t size = confstr(_CS_DARWIN_USER_CACHE_DIR, folder, sizeof folder);
    if (size == 0 || size > sizeof folder) return "";
    path = folder;
    while (!path.empty() && path.back() == '/') path.pop_back();
  }
  for (; *name != '\0'; name++) {
    const bool capital = *name >= 'A' && *name <= 'Z';
    if (capital) path += '+';  // no namespace has one
    path += static_cast<char>(capital ? *name | 0x20 : *name);
  }
  return path;
}

int DarwinPlatform::File::open(const char* name, int flags, mode_t mode) {
  const std::string file = path(name);
  if (file.empty()) {
    errno = ENOTSUP;
    return -1;
  }
  return above_standard(::open(file.c_str(), flags, mode));
}

int DarwinPlatform::File::unlink(const char* name) { return ::unlink(path(name).c_str()); }

bool DarwinPlatform::File::set_size(int fd, size_t bytes) {
  const int forbidden = check_limit(bytes);
  if (forbidden != 0) errno = forbidden;
  return forbidden == 0 && ftruncate(fd, static_cast<off_t>(bytes)) == 0;
}

int DarwinPlatform::File::allocate(int fd, char* base, size_t offset, size_t bytes) {
  const size_t end = offset + bytes;
  if (base == nullptr) return write_zeros(fd, offset, end);  // it is being made
  for (size_t table = 0; table < kTables; table++) {
    const size_t begin = kBegins[table];
    if (offset >= kBegins[table + 1] || end <= begin) continue;
    std::atomic<uint32_t>& written = own_of(base)->written[table];
    fence();
    const uint32_t wanted = static_cast<uint32_t>(std::min(end, kBegins[table + 1]) - begin);
    const uint32_t there = written.load(std::memory_order_acquire);  // F1: pairs with F3
    if (there >= wanted) continue;
    const int error = write_zeros(fd, begin + there, begin + wanted);  // F2
    if (error != 0) return error;
    written.store(wanted, std::memory_order_release);  // F3: pairs with F1
    fence();
  }
  return 0;
}

int DarwinPlatform::File::allocate_without(char* base, size_t offset, size_t bytes) {
  const int fd = port_ == MACH_PORT_NULL ? -1 : fileport_makefd(port_);
  if (fd < 0) return EBADF;
  const int error = allocate(fd, base, offset, bytes);
  return close(fd) == 0 || error != 0 ? error : errno;
}

bool DarwinPlatform::File::keep_from_children(char* base, size_t bytes) {
  return minherit(base, bytes, VM_INHERIT_NONE) == 0;
}

// Without a port, the token goes with the descriptor: then a host that closes it loses its locks, and is told so (Memory::check).
int DarwinPlatform::File::keep(int fd, char* base) {
  if (!add_shared(base)) return ENOMEM;
  base_ = base;
  mach_port_t port = MACH_PORT_NULL;
  if (fileport_makeport(fd, &port) == 0) port_ = port;
  return 0;
}

void DarwinPlatform::File::let_go() {
  if (port_ != MACH_PORT_NULL) mach_port_deallocate(mach_task_self(), port_);
  forget_after_fork();
}

void DarwinPlatform::File::forget_after_fork() {
  port_ = MACH_PORT_NULL;
  if (base_ != nullptr) remove_shared(base_);
  base_ = nullptr;
}

bool DarwinPlatform::File::is_of_this_boot(int fd) {
  uint64_t found[2], boot[2];
  if (pread(fd, found, sizeof found, kOwn) != static_cast<ssize_t>(sizeof found)) return false;
  read_boot(boot);
  return found[0] == boot[0] && found[1] == boot[1];
}

void DarwinPlatform::File::sign(char* base) {
  uint64_t boot[2];
  read_boot(boot);
  // relaxed, all of it, because: the magic number is stored after it, by a release.
  for (int n = 0; n < 2; n++) own_of(base)->boot[n].store(boot[n], std::memory_order_relaxed);
  for (auto& written : own_of(base)->written) written.store(kPage, std::memory_order_relaxed);
}

// ---- what all of it rests on

namespace {

// A thread that sleeps on a word of one mapping, and is woken through another one.
struct Sleeper {
  std::atomic<uint32_t>* word;

  static void* run(void* argument) {
    auto* self = static_cast<Sleeper*>(argument);
    while (self->word->load(std::memory_order_acquire) == 0)
      DarwinPlatform::wait(self->word, 0, DarwinPlatform::monotonic_ns() + kTurnNs);
    return nullptr;
  }
  static constexpr uint64_t kTurnNs = 1000000000;
};

constexpr uint64_t kProofPatienceNs = 10000000000;  // of a wake-up: a thread has to come to sleep for it

// Where no thread can be had it is not found out: the same system has answered before, or will at the next segment.
int check_wake(char* here, char* there) {
  std::atomic<uint32_t>* word = &own_of(there)->proof;
  Sleeper sleeper{&own_of(here)->proof};
  pthread_t thread;
  if (pthread_create(&thread, nullptr, Sleeper::run, &sleeper) != 0) return 0;
  bool woken = false;
  for (const uint64_t until_ns = DarwinPlatform::monotonic_ns() + kProofPatienceNs;
       !woken && DarwinPlatform::monotonic_ns() < until_ns;) {
    woken = DarwinPlatform::wake_some(word, true);
    sched_yield();
  }
  word->store(1, std::memory_order_release);
  DarwinPlatform::wake_some(word, true);
  pthread_join(thread, nullptr);
  word->store(0, std::memory_order_relaxed);
  return woken ? 0 : ENOTSUP;
}

bool excludes(int fd, int64_t byte) {
  struct flock range;
  memset(&range, 0, sizeof range);
  range.l_type = F_WRLCK;
  range.l_whence = SEEK_SET;
  range.l_start = byte;
  range.l_len = 1;
  if (fcntl(fd, F_OFD_SETLK, &range) == 0 || (errno != EAGAIN && errno != EACCES)) return false;
  return fcntl(fd, F_OFD_GETLK, &range) == 0 && range.l_type != F_UNLCK;
}

}  // namespace

int DarwinPlatform::File::prove(const char* name, char* base, int64_t locked) {
  const int second = open(name, O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0);
  if (second < 0) return errno;
  int refuted = excludes(second, locked) ? 0 : ENOLCK;
  void* mapped = mmap(nullptr, DarwinLayout::kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, second, 0);
  if (mapped == MAP_FAILED) {
    if (refuted == 0) refuted = errno;
  } else {
    char* there = static_cast<char*>(mapped);
    if (refuted == 0) refuted = add_shared(there) ? check_wake(base, there) : ENOMEM;
    remove_shared(there);
    munmap(there, DarwinLayout::kBytes);
  }
  close(second);
  return refuted;
}

}  // namespace proclock

#endif  // PROCLOCK_DARWIN
