// System calls of the core on their way to the kernel: proclock.gypi links the tests with --wrap=syscall. So a test can be an
// older kernel, or see which thread sleeps.
#pragma once

#include <atomic>

namespace interpose {

// The last thread that went to sleep by futex_waitv(), as the thread that serves the doorbells alone does; 0: none has.
extern std::atomic<int> sleeper;

// System calls that this kernel does not know.
extern std::atomic<bool> no_futex_waitv;
extern std::atomic<bool> no_pidfd_open;
extern std::atomic<bool> no_close_range;

}  // namespace interpose
