// What a platform's Watcher is asked and what it tells, whatever the system calls are: a thread of its own, orders to it, and
// events from it.
//
// All of this is for speed. Whatever fails means that the processes concerned are not watched: the detector (core/detect.h)
// asks about them anyway.
#pragma once

#include <vector>

#include "unix.h"

namespace proclock {

class ProcessWatcher {
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
  ProcessWatcher(void (*notify)(void* data), void* data) : notify_(notify), data_(data) {}
  ProcessWatcher(const ProcessWatcher&) = delete;
  ProcessWatcher& operator=(const ProcessWatcher&) = delete;

  // Begins to watch the process that has this pid and started then (0: whenever). False: nothing can be watched at the moment.
  bool watch(Key key, int32_t pid, uint64_t start_time);
  void forget(Key key);
  std::vector<Event> take_events();
  // In the child of a raw fork(): the thread is the parent's, and so is all that it works on.
  void reset_after_fork();

 protected:
  using LocalMutex = UnixPlatform::LocalMutex;
  struct Order {
    Key key;
    int32_t pid;  // 0: forget it
    uint64_t start_time;
  };
  ~ProcessWatcher() = default;

  // Behind the mutex.
  virtual bool start() = 0;    // the thread
  virtual bool ring() = 0;     // has the thread take its orders; false: it can not be told anything any more
  virtual void abandon() = 0;  // in the child of a raw fork(): what it was rung by

  // Of the thread.
  bool take_orders(std::vector<Order>* orders);
  void report(const std::vector<Event>& events);
  // It ends. `unwatched`: what it has watched until now.
  void end(const std::vector<Key>& unwatched);

 private:
  bool tell(const Order& order);

  void (*const notify_)(void* data);
  void* const data_;
  LocalMutex mutex_;  // of all that follows, and of what a system's own watcher has
  bool runs_ = false;
  std::vector<Order> orders_;
  std::vector<Event> events_;
};

}  // namespace proclock
