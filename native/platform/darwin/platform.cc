#include "../system.h"

#ifdef PROCLOCK_DARWIN

#include <dlfcn.h>
#include <errno.h>
#include <libproc.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysctl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

// In libSystem, and in no header. What they return is 0 or more, or an errno with its sign changed (ULF_NO_ERRNO).
extern "C" {
int __ulock_wait2(uint32_t operation, void* address, uint64_t value, uint64_t timeout_ns, uint64_t value2);
int __ulock_wake(uint32_t operation, void* address, uint64_t wake_value);
}

namespace proclock {

namespace {

// Of xnu's sys/ulock.h.
constexpr uint32_t kCompareAndWait = 1;        // UL_COMPARE_AND_WAIT
constexpr uint32_t kCompareAndWaitShared = 3;  // UL_COMPARE_AND_WAIT_SHARED
constexpr uint32_t kWakeAll = 0x100;           // ULF_WAKE_ALL
constexpr uint32_t kNoErrno = 0x01000000;      // ULF_NO_ERRNO

constexpr long kRetryNs = 1000000;  // where the kernel refuses to let anybody sleep
constexpr int kFaultsMax = 8;

// The segments that are mapped, in no order. Entries up to `places_used` may be in use; those that are not are 0. Without a lock,
// because a child of fork() may look at it while another thread of its parent had one.
constexpr size_t kPlacesMax = 4096;
std::atomic<uintptr_t> places[kPlacesMax];
std::atomic<size_t> places_used{0};

// acquire: pairs with add_shared(). A word is slept on, or woken, only by who has been given its segment after that was added.
uint32_t operation_on(const void* word) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(word);
  const size_t used = places_used.load(std::memory_order_acquire);
  for (size_t n = 0; n < used; n++) {
    const uintptr_t base = places[n].load(std::memory_order_acquire);
    if (base != 0 && address - base < Layout<DarwinPlatform>::kBytes) return kCompareAndWaitShared | kNoErrno;
  }
  return kCompareAndWait | kNoErrno;
}

void sleep_briefly() {
  const timespec pause = {0, kRetryNs};
  nanosleep(&pause, nullptr);
}

}  // namespace

uint64_t DarwinPlatform::monotonic_ns() { return clock_gettime_nsec_np(CLOCK_UPTIME_RAW); }

// To the kernel a time-out of 0 is none: with a deadline that has passed it is not called at all.
void DarwinPlatform::wait(Atomic<uint32_t>* word, uint32_t seen, uint64_t deadline_ns) {
  for (int faults = 0; faults < kFaultsMax; faults++) {
    uint64_t timeout_ns = 0;
    if (deadline_ns != kNoDeadline) {
      const uint64_t now_ns = monotonic_ns();
      if (deadline_ns <= now_ns) return;
      timeout_ns = deadline_ns - now_ns;
    }
    const int result = __ulock_wait2(operation_on(word), word, seen, timeout_ns, 0);
    if (result >= 0 || result == -EINTR || result == -ETIMEDOUT) return;
    if (result != -EFAULT) break;
    // The page is not resident. A look makes it so. relaxed, because: nothing is made of it but that.
    if (word->load(std::memory_order_relaxed) != seen) return;
  }
  sleep_briefly();  // slower, but whoever waits does not spin
}

// Nothing can fail that a caller could do something about: who sleeps wakes up by its deadline.
bool DarwinPlatform::wake_some(Atomic<uint32_t>* word, bool all) {
  const uint32_t operation = operation_on(word) | (all ? kWakeAll : 0);
  int result;
  do {
    result = __ulock_wake(operation, word, 0);
  } while (result == -EINTR);
  return result >= 0;  // -ENOENT: nobody
}

bool DarwinPlatform::add_shared(const char* base) {
  for (size_t n = 0; n < kPlacesMax; n++) {
    uintptr_t free = 0;
    // release: pairs with operation_on().
    if (!places[n].compare_exchange_strong(free, reinterpret_cast<uintptr_t>(base), std::memory_order_release,
                                           std::memory_order_relaxed)) {
      continue;
    }
    size_t used = places_used.load(std::memory_order_relaxed);
    while (used <= n && !places_used.compare_exchange_weak(used, n + 1, std::memory_order_release,
                                                           std::memory_order_relaxed)) {
    }
    return true;
  }
  return false;
}

void DarwinPlatform::remove_shared(const char* base) {
  for (std::atomic<uintptr_t>& place : places) {
    uintptr_t found = reinterpret_cast<uintptr_t>(base);
    // relaxed, because: nobody sleeps there any more.
    if (place.compare_exchange_strong(found, 0, std::memory_order_relaxed)) return;
  }
}

bool DarwinPlatform::wait_for_any(const std::vector<Sleep>& sleeps, uint64_t deadline_ns) {
  static std::atomic<bool> told{false};
  if (sleeps.size() > 1 && !told.exchange(true, std::memory_order_relaxed)) return false;
  wait(sleeps[0].word, sleeps[0].seen, deadline_ns);
  return sleeps.size() == 1;
}

void DarwinPlatform::name_thread(const char* name) { pthread_setname_np(name); }

// mincore() makes no difference between a page that is not there and one that is not resident.
bool DarwinPlatform::is_mapped(const void* address) {
  const uintptr_t page_size = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  void* page = reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(address) & ~(page_size - 1));
  return msync(page, page_size, MS_ASYNC) == 0;
}

void DarwinPlatform::stay_loaded() {
  Dl_info self;
  if (dladdr(reinterpret_cast<const void*>(&DarwinPlatform::stay_loaded), &self) == 0) return;
  dlopen(self.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);  // never closed
}

namespace {

constexpr uint32_t kStopped = 4;  // SSTOP of sys/proc.h

// Without an argument for them, zombies are not found, and neither is a process whose last thread is ending.
bool read_info(int32_t pid, proc_bsdinfo* info) {
  return proc_pidinfo(pid, PROC_PIDTBSDINFO, 0, info, sizeof *info) == static_cast<int>(sizeof *info);
}

uint64_t start_of(const proc_bsdinfo& info) {
  return info.pbi_start_tvsec * 1000000u + info.pbi_start_tvusec;
}

// The kernel gives how many arguments there are, the path of the program, zeros, the arguments, and more. Where there is too
// little room it gives the end of that, so there has to be room for all.
std::string read_command(int32_t pid, size_t bytes_max) {
  int room = 0;
  size_t size = sizeof room;
  if (sysctlbyname("kern.argmax", &room, &size, nullptr, 0) != 0 || room <= 0) return "";
  std::vector<char> text(static_cast<size_t>(room));
  int wanted[] = {CTL_KERN, KERN_PROCARGS2, pid};
  size = text.size();
  int count = 0;
  if (sysctl(wanted, 3, text.data(), &size, nullptr, 0) != 0 || size < sizeof count) return "";
  memcpy(&count, text.data(), sizeof count);
  const char* const end = text.data() + size;
  const char* from = std::find(text.data() + sizeof count, text.data() + size, '\0');
  while (from < end && *from == '\0') from++;
  const char* to = from;
  for (; count > 0 && to < end; count--) to = std::min(std::find(to, end, '\0') + 1, end);
  return std::string(from, std::min(static_cast<size_t>(to - from), bytes_max));
}

}  // namespace

uint64_t DarwinPlatform::start_time(int32_t pid) {
  proc_bsdinfo info;
  return read_info(pid, &info) ? start_of(info) : 0;
}

// All of the machine's processes are in one namespace, and there is one clock.
ProcessIdentity DarwinPlatform::self() {
  ProcessIdentity identity;
  identity.pid = getpid();
  identity.start_time = start_time(identity.pid);
  identity.pid_ns = 1;
  return identity;
}

// Of another user's processes the kernel says nothing (EPERM): their tokens decide alone.
bool DarwinPlatform::has_ended(const ProcessIdentity& identity) {
  errno = 0;
  const uint64_t started = start_time(identity.pid);
  if (started == 0) return errno == ESRCH;
  return identity.start_time != 0 && started != identity.start_time;
}

bool DarwinPlatform::look_at(const ProcessIdentity& identity, bool with_command, ProcessDetails* details) {
  proc_bsdinfo info;
  if (!read_info(identity.pid, &info)) return false;
  if (identity.start_time != 0 && start_of(info) != identity.start_time) return false;
  details->stopped = info.pbi_status == kStopped;
  if (with_command) details->command = read_command(identity.pid, kCommandMax);
  return true;
}

}  // namespace proclock

#endif  // PROCLOCK_DARWIN
