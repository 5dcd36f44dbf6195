// Tells within a millisecond that a process has ended: a thread that sleeps in kevent() on EVFILT_PROC with NOTE_EXIT, which needs
// no permission. The kernel closes a process's descriptors, and with them drops its token, before it notes the exit.
//
// The kqueue is a descriptor in the host's table. A host may close it, or use its number again, even for a kqueue of its own. So
// there is an event in it that no other kqueue has (EVFILT_USER, by this object's address). It is named in each call: a queue that
// does not know it is not ours, and nothing is taken from that. The thread then ends; the next order makes another one.
//
// A kqueue knows one event for each pid, though the process may be in several namespaces: it stands for all of them.
#pragma once

#include "../watcher.h"
#include "platform.h"

namespace proclock {

class DarwinPlatform::Watcher final : public ProcessWatcher {
 public:
  using ProcessWatcher::ProcessWatcher;

 private:
  struct Watched {
    Key key;
    int32_t pid;
  };
  struct Thread;  // what the thread works on

  bool start() override;
  bool ring() override;
  void abandon() override { queue_ = -1; }  // a child has not got it

  int queue_ = -1;  // behind the mutex
};

}  // namespace proclock
