#include "watcher.h"

#include "system.h"

#ifdef PROCLOCK_SUPPORTED

#include <new>

namespace proclock {

bool ProcessWatcher::watch(Key key, int32_t pid, uint64_t start_time) {
  std::lock_guard<LocalMutex> locked(mutex_);
  if (!runs_) runs_ = start();
  return runs_ && tell({key, pid, start_time});
}

void ProcessWatcher::forget(Key key) {
  std::lock_guard<LocalMutex> locked(mutex_);
  if (runs_) tell({key, 0, 0});
}

bool ProcessWatcher::tell(const Order& order) {
  orders_.push_back(order);
  if (ring()) return true;
  orders_.pop_back();
  return false;
}

std::vector<ProcessWatcher::Event> ProcessWatcher::take_events() {
  std::lock_guard<LocalMutex> locked(mutex_);
  std::vector<Event> events;
  events.swap(events_);
  return events;
}

void ProcessWatcher::reset_after_fork() {
  new (&mutex_) LocalMutex();
  new (&orders_) std::vector<Order>();
  new (&events_) std::vector<Event>();
  abandon();
  runs_ = false;
}

bool ProcessWatcher::take_orders(std::vector<Order>* orders) {
  std::lock_guard<LocalMutex> locked(mutex_);
  orders->swap(orders_);
  return !orders->empty();
}

void ProcessWatcher::report(const std::vector<Event>& events) {
  if (events.empty()) return;
  {
    std::lock_guard<LocalMutex> locked(mutex_);
    events_.insert(events_.end(), events.begin(), events.end());
  }
  notify_(data_);
}

// What was watched is not watched any more, and what was ordered is not either.
void ProcessWatcher::end(const std::vector<Key>& unwatched) {
  std::vector<Event> events;
  for (const Key& key : unwatched) events.push_back({key, false});
  {
    std::lock_guard<LocalMutex> locked(mutex_);
    for (const Order& order : orders_) {
      if (order.pid != 0) events.push_back({order.key, false});
    }
    orders_.clear();
    runs_ = false;
  }
  report(events);
}

}  // namespace proclock

#endif  // PROCLOCK_SUPPORTED
