// Linux: pthread rwlocks with PTHREAD_PROCESS_SHARED, futexes, OFD byte locks, pidfds.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "../../core/layout.h"
#include "../../core/platform.h"

namespace proclock {

struct LinuxPlatform {
  template <class T>
  using Atomic = std::atomic<T>;
  using RwLock = pthread_rwlock_t;
  using LocalMutex = std::mutex;
  class Memory;
  class Watcher;

  static constexpr uint64_t latch_patience_ns = 5000000;
  static constexpr uint64_t latch_pause_ns = 20000000;

  static void fence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
  // The same after an unlock. On x86 that has been one: both libcs publish it by a locked instruction, as any must that
  // has to learn whether somebody waits.
  static void fence_after_unlock() {
#if defined(__x86_64__)
    std::atomic_signal_fence(std::memory_order_seq_cst);
#else
    fence();
#endif
  }
  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }
  static bool can_spin();

  static bool try_lock(RwLock* lock, Mode mode) {
    return (mode == Mode::kExclusive ? pthread_rwlock_trywrlock(lock) : pthread_rwlock_tryrdlock(lock)) == 0;
  }
  static void unlock(RwLock* lock) { pthread_rwlock_unlock(lock); }
  static void init(RwLock* lock);

  static uint64_t monotonic_ns();
  static uint64_t wall_ns();
  static double wall_ms();

  static void wait(Atomic<uint32_t>* word, uint32_t seen, uint64_t deadline_ns);
  static void wait(Atomic<uint64_t>* word, uint32_t seen, uint64_t deadline_ns) {
    wait(low_half(word), seen, deadline_ns);
  }
  static void wake(Atomic<uint32_t>* word);
  static void wake(Atomic<uint64_t>* word, bool all);

  // ---- for the runtime

  struct Sleep {
    Atomic<uint32_t>* word;
    uint32_t seen;
  };
  // Sleeps until one of the words has changed. False: this system can not wait for several. Then it has not slept if it finds
  // that out, and sleeps on the first one alone from then on.
  static bool wait_for_any(const std::vector<Sleep>& sleeps, uint64_t deadline_ns);

  // A detached thread on which no signal is handled. False: there can be none now.
  static bool start_thread(void* (*run)(void*), void* argument);
  static void name_thread(const char* name);  // the calling one; for debuggers
  static pthread_t thread_id() { return pthread_self(); }
  static bool is_mapped(const void* address);

  static ProcessIdentity self();
  static int64_t group_id(const char* name);  // -1: there is no such group

  // ---- for the command, children.cc

  // Starts a program, looked for in PATH, that is killed when the calling thread ends: its pid, or an errno below 0.
  static int32_t start_ending(const std::vector<std::string>& argv, const std::vector<std::string>& env);
  // How this child has ended: its exit code, or 256 + its signal; -1: it runs. Takes all others that have ended as well.
  static int32_t reap(int32_t pid);

 private:
  static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the low half of a word comes first");
  static Atomic<uint32_t>* low_half(Atomic<uint64_t>* word) {
    return reinterpret_cast<Atomic<uint32_t>*>(word);
  }
};

// What /proc says of a process; all zero where there is no such process, or no /proc.
struct ProcessStat {
  uint64_t start_time = 0;  // clock ticks since boot (field 22)
  uint64_t threads = 0;     // field 20
  char state = 0;           // field 3
};
ProcessStat read_stat(int32_t pid);

using LinuxLayout = Layout<LinuxPlatform>;

// Libc family and the sizes of what it puts into the segment: builds that differ here must not share one.
uint32_t abi_fingerprint();

}  // namespace proclock

#include "memory.h"
#include "watcher.h"
