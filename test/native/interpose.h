// Calls of the core on their way to the system: proclock.gypi links the tests with --wrap for two of them. So a test can
// hold a thread at the very place that it is about, and be an older kernel.
#pragma once

#include <pthread.h>

#include <atomic>

namespace interpose {

// Every thread but the main one stays behind its unlock of this mutex for as long as it is named here.
struct Turnstile {
  std::atomic<pthread_mutex_t*> behind{nullptr};
  std::atomic<int> held_up{0};
};
extern Turnstile turnstile;

// The last thread that went to sleep by futex_waitv(), as the doorbell thread alone does; 0: none has.
extern std::atomic<int> sleeper;

// System calls that this kernel does not know.
extern std::atomic<bool> no_futex_waitv;
extern std::atomic<bool> no_pidfd_open;

}  // namespace interpose
