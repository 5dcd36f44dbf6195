// Tells within a millisecond that a process has ended: a thread that sleeps in poll() on pidfds.
//
// The thread has a descriptor table of its own (close_range with CLOSE_RANGE_UNSHARE), so nobody can close its pidfds or use
// their numbers again, no child inherits them, and they do not count as the host's. One descriptor of ours is in the host's
// table: the end of a pipe by which the thread is told that there is something new. It is checked before each use; if the host
// has closed it, the thread finds that the pipe has no writer any more, and ends.
#pragma once

#include <memory>

#include "../watcher.h"
#include "platform.h"

namespace proclock {

class LinuxPlatform::Watcher final : public ProcessWatcher {
 public:
  using ProcessWatcher::ProcessWatcher;

 private:
  struct Watched {
    Key key;
    int pidfd;
  };
  struct Thread;  // what the thread works on

  bool start() override;
  bool ring() override;
  void abandon() override { close_pipe(); }
  bool pipe_is_ours() const;
  void close_pipe();

  // Behind the mutex.
  bool impossible_ = false;  // this kernel, or its sandbox, has no table of one's own
  int pipe_ = -1;            // the writing end
  uint64_t pipe_device_ = 0, pipe_inode_ = 0;
};

}  // namespace proclock
