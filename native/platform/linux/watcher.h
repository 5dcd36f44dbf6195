// Tells within a millisecond that a process has ended: a thread that sleeps in poll() on pidfds.
//
// The thread has a descriptor table of its own (close_range with CLOSE_RANGE_UNSHARE), so nobody can close its pidfds or use
// their numbers again, no child inherits them, and they do not count as the host's. One descriptor of ours is in the host's
// table: the end of a pipe by which the thread is told that there is something new. It is checked before each use; if the host
// has closed it, the thread finds that the pipe has no writer any more, and ends.
//
// All of this is for speed. Whatever fails means that the processes concerned are not watched: the detector (core/detect.h)
// asks about them anyway.
#pragma once

#include <memory>
#include <unordered_map>
#include <vector>

#include "platform.h"

namespace proclock {

class LinuxPlatform::Watcher {
 public:
  // A process by its number in one of this process's namespaces: neither comes again.
  struct Key {
    uint32_t space;
    uint64_t process;
    bool operator==(const Key& other) const { return space == other.space && process == other.process; }
  };
  struct Event {
    Key key;
    bool ended;  // false: it can not be watched
  };
  static constexpr size_t kWatchedMax = 256;

  // `notify` is called on the watcher's thread when there are events to take.
  Watcher(void (*notify)(void* data), void* data) : notify_(notify), data_(data) {}
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;

  // Begins to watch the process that has this pid and started then (0: whenever). False: nothing can be watched at the moment.
  bool watch(Key key, int32_t pid, uint64_t start_time);
  void forget(Key key);
  std::vector<Event> take_events();
  // In the child of a raw fork(): the thread is the parent's, and so is all that it works on.
  void reset_after_fork();

 private:
  struct Order {
    Key key;
    int32_t pid;  // 0: forget it
    uint64_t start_time;
  };
  struct Watched {
    Key key;
    int pidfd;
  };
  struct Thread;  // what the thread works on

  bool tell(const Order& order);
  bool start();
  bool pipe_is_ours() const;
  void close_pipe();
  bool take_orders(std::vector<Order>* orders);
  void report(const std::vector<Event>& events);

  void (*const notify_)(void* data);
  void* const data_;
  LocalMutex mutex_;  // of all that follows
  bool runs_ = false;
  bool impossible_ = false;  // this kernel, or its sandbox, has no table of one's own
  int pipe_ = -1;            // the writing end
  uint64_t pipe_device_ = 0, pipe_inode_ = 0;
  std::vector<Order> orders_;
  std::vector<Event> events_;
};

}  // namespace proclock
