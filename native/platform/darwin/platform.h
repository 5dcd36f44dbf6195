// macOS 11 or later: rwlocks of one word, __ulock_wait2() and __ulock_wake(), OFD byte locks on a file of the user's cache
// folder, kqueue. What is said here of the kernel is what its published sources say (xnu); what all of it rests on is checked
// once for each segment, by whoever makes it (File::prove).
#pragma once

#include <fcntl.h>

#include "../rwlock_word.h"
#include "../unix.h"

// In the kernel since 10.11, in the SDK since that of macOS 14.
#if defined(__APPLE__) && !defined(F_OFD_SETLK)
#define F_OFD_SETLK 90
#define F_OFD_GETLK 92
#endif

namespace proclock {

struct DarwinPlatform : UnixPlatform {
  using RwLock = WordRwLock<std::atomic>;
  class File;
  class Watcher;

  // With the architecture: a process under Rosetta and a native one have different page sizes and different orders of memory.
#if defined(__aarch64__)
  static constexpr uint32_t kAbiFamily = 4;
#else
  static constexpr uint32_t kAbiFamily = 3;
#endif

  static bool try_lock(RwLock* lock, Mode mode) {
    return mode == Mode::kExclusive ? lock->try_exclusive() : lock->try_shared();
  }
  static void unlock(RwLock* lock) { lock->unlock(); }
  static void init(RwLock* lock) { lock->init(); }

  static uint64_t monotonic_ns();  // stands still while the machine sleeps, as on Linux
  static double wall_ms() { return static_cast<double>(wall_ns()) / 1e6; }

  static void wait(Atomic<uint32_t>* word, uint32_t seen, uint64_t deadline_ns);
  static void wait(Atomic<uint64_t>* word, uint32_t seen, uint64_t deadline_ns) {
    wait(low_half(word), seen, deadline_ns);
  }
  static void wake(Atomic<uint32_t>* word) { wake_some(word, true); }
  static void wake(Atomic<uint64_t>* word, bool all) { wake_some(low_half(word), all); }
  static bool wake_some(Atomic<uint32_t>* word, bool all);  // did anybody sleep?

  // What is shared between processes. The kernel finds who sleeps on a shared word by the place in its file, and on a private one by
  // the address. Taken for shared, a private word loses its sleepers: after a fork() the page that is written to is another one.
  static bool add_shared(const char* base);  // a mapped segment; false: there are too many
  static void remove_shared(const char* base);

  // ---- for the runtime

  // There is no such call: false for more than one word. The first of these has not slept, the later ones sleep on the first
  // word alone.
  static bool wait_for_any(const std::vector<Sleep>& sleeps, uint64_t deadline_ns);
  static constexpr size_t kSleepsMax = 1;

  static void name_thread(const char* name);  // the calling one; for debuggers
  static bool is_mapped(const void* address);
  // Node unmaps an addon that only worker threads loaded, under our native threads.
  static void stay_loaded();

  static ProcessIdentity self();
  static uint64_t start_time(int32_t pid);  // microseconds since 1970; 0: it can not be told
  // Is that process gone, or only a zombie? Of one whose pid is in use, here.
  static bool has_ended(const ProcessIdentity& identity);
  // False: it is not there any more, or another one has its pid, or nothing can be told of it.
  static bool look_at(const ProcessIdentity& identity, bool with_command, ProcessDetails* details);

  // ---- for the command, children.cc

  // Starts a program, looked for in PATH, that is killed when this process ends: its pid, or an errno below 0.
  static int32_t start_ending(const std::vector<std::string>& argv, const std::vector<std::string>& env);
};

}  // namespace proclock

#include "file.h"
#include "watcher.h"
