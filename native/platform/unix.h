// What Linux and macOS have in common.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "../core/layout.h"
#include "../core/platform.h"

namespace proclock {

class SegmentMemory;

// What is known of a process beyond its locks.
struct ProcessDetails {
  bool stopped = false;  // by SIGSTOP or a debugger
  std::string
      command;  // its arguments, with a 0 after each, or the beginning of that; empty: it may not be read
};

struct UnixPlatform {
  template <class T>
  using Atomic = std::atomic<T>;
  using LocalMutex = std::mutex;
  using Memory = SegmentMemory;

  static constexpr uint64_t latch_patience_ns = 5000000;
  static constexpr uint64_t latch_pause_ns = 20000000;

  static void fence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
  // The same after an unlock. On x86 that has been one: both libcs of Linux publish it by a locked instruction, as any must
  // that has to learn whether somebody waits, and so does rwlock_word.h.
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

  static uint64_t wall_ns();

  // ---- for the runtime

  struct Sleep {
    Atomic<uint32_t>* word;
    uint32_t seen;
  };
  // A detached thread on which no signal is handled. False: there can be none now.
  static bool start_thread(void* (*run)(void*), void* argument);
  static pthread_t thread_id() { return pthread_self(); }

  static int64_t group_id(const char* name);  // -1: there is none; else below 0: an errno

  // A descriptor that was just made, or -1 and errno as before. Where a host has closed one of the standard ones, it would be that,
  // and the next line that is printed would go there.
  static int above_standard(int fd);

  // ---- for the command, children.cc

  // How this child has ended: its exit code, or 256 + its signal; -1: it runs. Takes all others that have ended as well.
  static int32_t reap(int32_t pid);
  // Does this process get the signals of its terminal's keys?
  static bool is_in_foreground();

 protected:
  static constexpr int kStandardFds = 3;
  static constexpr int kNotStarted = 127;  // the exit code of a child that did not become its program
  static constexpr size_t kCommandMax = 4096;

  // Null at the end, as exec takes them.
  static std::vector<char*> pointers_to(const std::vector<std::string>& strings);
  // In a child, before exec. Nothing is allocated in them.
  static void forget_handlers();
  static void keep_standard_fds();
  static void unblock_signals();

  static uint64_t read_clock(clockid_t clock);

  static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the low half of a word comes first");
  static Atomic<uint32_t>* low_half(Atomic<uint64_t>* word) {
    return reinterpret_cast<Atomic<uint32_t>*>(word);
  }
};

}  // namespace proclock
