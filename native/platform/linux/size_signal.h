#pragma once

#include <signal.h>
#include <time.h>

namespace proclock {

// A file-size limit (RLIMIT_FSIZE) answers with a signal whose default is to end the process. Held back here, and
// taken away again unless somebody else had sent one before.
class HoldSizeSignal {
 public:
  HoldSizeSignal() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGXFSZ);
    sigset_t pending;
    sigpending(&pending);
    was_pending_ = sigismember(&pending, SIGXFSZ) == 1;
    pthread_sigmask(SIG_BLOCK, &set_, &before_);
  }
  ~HoldSizeSignal() {
    const timespec none = {0, 0};
    if (!was_pending_) sigtimedwait(&set_, nullptr, &none);
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

 private:
  sigset_t set_, before_;
  bool was_pending_;
};

}  // namespace proclock
