#include "../system.h"

#ifdef PROCLOCK_DARWIN

#include <errno.h>
#include <fcntl.h>
#include <sys/event.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <new>

namespace proclock {

namespace {

using Change = struct kevent;

// The event that makes a kqueue known as that of this watcher: what is done with it, and what is told by it.
Change own_event(const void* watcher, uint16_t flags, uint32_t told) {
  Change change;
  EV_SET(&change, reinterpret_cast<uintptr_t>(watcher), EVFILT_USER, flags, told, 0, nullptr);
  return change;
}

Change exit_event(int32_t pid, uint16_t flags) {
  Change change;
  EV_SET(&change, static_cast<uintptr_t>(pid), EVFILT_PROC, flags, NOTE_EXIT, 0, nullptr);
  return change;
}

// 0 or an errno.
int apply(int queue, const Change& change) {
  return kevent(queue, &change, 1, nullptr, 0, nullptr) == 0 ? 0 : errno;
}

}  // namespace

struct DarwinPlatform::Watcher::Thread {
  Watcher* watcher;
  int queue;
  std::vector<Watched> watched;

  static void* run(void* self);
  bool is_ours() const { return apply(queue, own_event(watcher, EV_ENABLE, 0)) == 0; }
  bool is_watched(int32_t pid) const;
  void carry_out(const Order& order, std::vector<Event>* events);
  void has_exited(int32_t pid, std::vector<Event>* events);
  bool sleep(std::vector<Event>* events, bool* told);
};

// ---- any thread

// A host that has made a kqueue of this number in the meantime gets nothing: it does not know the event.
bool DarwinPlatform::Watcher::ring() {
  return queue_ >= 0 && apply(queue_, own_event(this, 0, NOTE_TRIGGER)) == 0;
}

bool DarwinPlatform::Watcher::start() {
  const int queue = above_standard(kqueue());
  if (queue < 0) return false;
  std::unique_ptr<Thread> thread(new (std::nothrow) Thread{this, queue, {}});
  const bool works = thread != nullptr && fcntl(queue, F_SETFD, FD_CLOEXEC) == 0 &&
                     apply(queue, own_event(this, EV_ADD | EV_CLEAR, 0)) == 0 &&
                     start_thread(&Thread::run, thread.get());
  if (works)
    thread.release();  // its own from now on
  else
    close(queue);
  queue_ = works ? queue : -1;
  return works;
}

// ---- the watcher's thread

void* DarwinPlatform::Watcher::Thread::run(void* argument) {
  std::unique_ptr<Thread> self(static_cast<Thread*>(argument));
  name_thread("proclock-watch");
  std::vector<Event> events;
  std::vector<Order> orders;
  for (bool told = false; self->sleep(&events, &told); told = false) {
    orders.clear();
    if (told && self->watcher->take_orders(&orders)) {
      for (const Order& order : orders) self->carry_out(order, &events);
    }
    self->watcher->report(events);
    events.clear();
  }
  std::vector<Key> unwatched;
  for (const Watched& one : self->watched) unwatched.push_back(one.key);
  // Closed first: the next thread has a queue of its own, and this number may be its.
  if (self->is_ours()) close(self->queue);
  self->watcher->end(unwatched);
  return nullptr;
}

// Until something has happened. False: the queue is not ours any more. The event that makes it known comes first: a queue that
// does not know it answers with an error at once, and gives nothing of its own.
bool DarwinPlatform::Watcher::Thread::sleep(std::vector<Event>* events, bool* told) {
  constexpr int kEvents = 32;
  const Change known = own_event(watcher, EV_ENABLE, 0);
  Change happened[kEvents];
  const int count = kevent(queue, &known, 1, happened, kEvents, nullptr);
  if (count < 0) return errno == EINTR;
  for (int n = 0; n < count; n++) {
    if ((happened[n].flags & EV_ERROR) != 0) return false;
    if (happened[n].filter == EVFILT_USER) *told = true;
    if (happened[n].filter == EVFILT_PROC) has_exited(static_cast<int32_t>(happened[n].ident), events);
  }
  return true;
}

bool DarwinPlatform::Watcher::Thread::is_watched(int32_t pid) const {
  return std::any_of(watched.begin(), watched.end(), [&](const Watched& one) { return one.pid == pid; });
}

void DarwinPlatform::Watcher::Thread::has_exited(int32_t pid, std::vector<Event>* events) {
  for (const Watched& one : watched) {
    if (one.pid == pid) events->push_back({one.key, true});
  }
  watched.erase(
      std::remove_if(watched.begin(), watched.end(), [&](const Watched& one) { return one.pid == pid; }),
      watched.end());
}

// The process is looked at once more after the event was made: then that is of the process that was meant. One that is ending is
// not found, and counts as ended: whether it has, its token decides (Arena::recover_dead).
void DarwinPlatform::Watcher::Thread::carry_out(const Order& order, std::vector<Event>* events) {
  const auto known =
      std::find_if(watched.begin(), watched.end(), [&](const Watched& one) { return one.key == order.key; });
  if (known != watched.end()) {
    const int32_t pid = known->pid;
    watched.erase(known);
    // Fails if it has exited meanwhile: nobody wants to know any more.
    if (!is_watched(pid)) apply(queue, exit_event(pid, EV_DELETE));
  }
  if (order.pid == 0) return;
  const bool is_new = !is_watched(order.pid);
  int error = watched.size() < kWatchedMax ? 0 : EMFILE;
  if (error == 0 && !is_ours()) error = EBADF;
  if (error == 0 && is_new) error = apply(queue, exit_event(order.pid, EV_ADD | EV_ONESHOT));
  const uint64_t started = error != 0 || order.start_time == 0 ? 0 : start_time(order.pid);
  if (error == 0 && (started == 0 || started == order.start_time)) {
    watched.push_back({order.key, order.pid});
    return;
  }
  events->push_back({order.key, error == 0 || error == ESRCH});
  if (error == 0 && is_new) apply(queue, exit_event(order.pid, EV_DELETE));
}

}  // namespace proclock

#endif  // PROCLOCK_DARWIN
