// Linux: pthread rwlocks with PTHREAD_PROCESS_SHARED, futexes, OFD byte locks, pidfds.
#pragma once

#include "../unix.h"

namespace proclock {

struct LinuxPlatform : UnixPlatform {
  using RwLock = pthread_rwlock_t;
  class File;
  class Watcher;

  // Builds of another family must not share a segment with this one.
#ifdef __GLIBC__
  static constexpr uint32_t kAbiFamily = 1;
#else
  static constexpr uint32_t kAbiFamily = 2;  // musl, the only other libc that Node runs on
#endif

  static bool try_lock(RwLock* lock, Mode mode) {
    return (mode == Mode::kExclusive ? pthread_rwlock_trywrlock(lock) : pthread_rwlock_tryrdlock(lock)) == 0;
  }
  static void unlock(RwLock* lock) { pthread_rwlock_unlock(lock); }
  static void init(RwLock* lock);

  static uint64_t monotonic_ns();
  static double wall_ms();

  static void wait(Atomic<uint32_t>* word, uint32_t seen, uint64_t deadline_ns);
  static void wait(Atomic<uint64_t>* word, uint32_t seen, uint64_t deadline_ns) {
    wait(low_half(word), seen, deadline_ns);
  }
  static void wake(Atomic<uint32_t>* word);
  static void wake(Atomic<uint64_t>* word, bool all);

  // ---- for the runtime

  // Sleeps until one of the words has changed. False: this system can not wait for several. Then it has not slept if it finds
  // that out, and sleeps on the first one alone from then on.
  static bool wait_for_any(const std::vector<Sleep>& sleeps, uint64_t deadline_ns);
  static constexpr size_t kSleepsMax = 128;  // the kernel's; of more it sleeps on the first ones and the last

  static void name_thread(const char* name);  // the calling one; for debuggers
  static bool is_mapped(const void* address);

  static void stay_loaded() {}  // the linker's flag -z nodelete does that

  static ProcessIdentity self();
  static uint64_t start_time(int32_t pid);  // 0: it can not be told
  // Is that process gone, or only a zombie? Of one whose pid is in use, here.
  static bool has_ended(const ProcessIdentity& identity);
  // False: it is not there any more, or another one has its pid, or nothing can be told of it.
  static bool look_at(const ProcessIdentity& identity, bool with_command, ProcessDetails* details);

  // ---- for the command, children.cc

  // Starts a program, looked for in PATH, that is killed when the calling thread ends: its pid, or an errno below 0.
  static int32_t start_ending(const std::vector<std::string>& argv, const std::vector<std::string>& env);
};

// What /proc says of a process; all zero where there is no such process, or no /proc.
struct ProcessStat {
  uint64_t start_time = 0;  // clock ticks since boot (field 22)
  uint64_t threads = 0;     // field 20
  char state = 0;           // field 3
};
ProcessStat read_stat(int32_t pid);

}  // namespace proclock

#include "file.h"
#include "watcher.h"
