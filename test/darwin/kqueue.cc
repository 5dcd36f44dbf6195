// kqueue(), as far as the port uses it: EVFILT_PROC with NOTE_EXIT over pidfds, and EVFILT_USER.
//
// As in xnu: one event for each (ident, filter); NOTE_EXIT comes once; a process that is not there is ESRCH; an event that is not
// there is ENOENT; a change that fails is told as an event (EV_ERROR) where there is room for one, and then nothing else is; who
// sleeps on a queue that is closed wakes up with EBADF; no child has a queue.
//
// The descriptor is that of an empty file, by whose inode a queue is known: the number may have become another file's.
#include <errno.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

#include "sys/event.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

namespace {

constexpr int kSliceMs = 10;  // until a sleeper looks whether its queue is still there

struct Queue {
  int fd = -1;
  std::mutex mutex;
  std::map<uintptr_t, bool> users;     // triggered?
  std::map<uintptr_t, int> processes;  // the pidfd
  int bell[2] = {-1, -1};              // a pipe that is written to by every trigger and change

  ~Queue() { close_all(); }
  void close_all() {
    for (const auto& entry : processes) close(entry.second);
    for (const int end : bell) {
      if (end >= 0) close(end);
    }
  }
  int change(const struct kevent& change);
  int take(struct kevent* events, int count);
  std::vector<pollfd> polled();
};

std::mutex queues_mutex;
std::map<ino_t, std::shared_ptr<Queue>>& queues() {
  static auto* all = new std::map<ino_t, std::shared_ptr<Queue>>();
  return *all;
}

// Those whose descriptor was closed go when the next one is made.
std::shared_ptr<Queue> find(int fd) {
  struct stat file;
  if (fstat(fd, &file) != 0) return nullptr;
  const std::lock_guard<std::mutex> locked(queues_mutex);
  const auto found = queues().find(file.st_ino);
  return found == queues().end() ? nullptr : found->second;
}

void forget_queues() {
  new (&queues_mutex) std::mutex();
  struct stat file;
  for (const auto& entry : queues()) {
    entry.second->close_all();
    if (fstat(entry.second->fd, &file) == 0 && file.st_ino == entry.first) close(entry.second->fd);
  }
  new (&queues()) std::map<ino_t, std::shared_ptr<Queue>>();  // not destroyed: a mutex may be locked
}
const int queues_at_fork =
    pthread_atfork([] { queues_mutex.lock(); }, [] { queues_mutex.unlock(); }, forget_queues);

int Queue::change(const struct kevent& change) {
  const std::lock_guard<std::mutex> locked(mutex);
  if (change.filter == EVFILT_USER) {
    if ((change.flags & EV_ADD) != 0) users[change.ident] = false;
    const auto found = users.find(change.ident);
    if (found == users.end()) return ENOENT;
    if ((change.fflags & NOTE_TRIGGER) != 0) found->second = true;
  } else if ((change.flags & EV_ADD) != 0) {
    if (processes.count(change.ident) != 0) return 0;
    const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, static_cast<pid_t>(change.ident), 0));
    if (pidfd < 0) return errno;
    processes[change.ident] = pidfd;
  } else {
    const auto found = processes.find(change.ident);
    if (found == processes.end()) return ENOENT;
    close(found->second);
    processes.erase(found);
  }
  const char one = 1;
  if (write(bell[1], &one, 1) < 0) return 0;  // full: it rings already
  return 0;
}

int Queue::take(struct kevent* events, int count) {
  const std::lock_guard<std::mutex> locked(mutex);
  char drained[256];
  while (read(bell[0], drained, sizeof drained) > 0) {
  }
  int taken = 0;
  for (auto& user : users) {
    if (!user.second || taken == count) continue;
    user.second = false;  // EV_CLEAR
    events[taken++] = {user.first, EVFILT_USER, EV_CLEAR, 0, 0, nullptr};
  }
  for (auto at = processes.begin(); at != processes.end() && taken < count;) {
    pollfd one = {at->second, POLLIN, 0};
    if (poll(&one, 1, 0) <= 0 || (one.revents & POLLIN) == 0) {
      ++at;
      continue;
    }
    close(at->second);
    events[taken++] = {at->first, EVFILT_PROC, EV_ONESHOT, NOTE_EXIT, 0, nullptr};
    at = processes.erase(at);
  }
  return taken;
}

std::vector<pollfd> Queue::polled() {
  const std::lock_guard<std::mutex> locked(mutex);
  std::vector<pollfd> all = {{bell[0], POLLIN, 0}};
  for (const auto& entry : processes) all.push_back({entry.second, POLLIN, 0});
  return all;
}

}  // namespace

int kqueue() {
  const int fd = static_cast<int>(syscall(SYS_memfd_create, "kqueue", 0u));
  struct stat file;
  if (fd < 0 || fstat(fd, &file) != 0) return -1;
  auto queue = std::make_shared<Queue>();
  queue->fd = fd;
  if (pipe2(queue->bell, O_CLOEXEC | O_NONBLOCK) != 0) {
    close(fd);
    return -1;
  }
  const std::lock_guard<std::mutex> locked(queues_mutex);
  queues()[file.st_ino] = queue;
  return fd;
}

int kevent(int fd, const struct kevent* changes, int change_count, struct kevent* events, int event_count,
           const timespec* timeout) {
  const std::shared_ptr<Queue> queue = find(fd);
  if (queue == nullptr) {
    errno = EBADF;
    return -1;
  }
  int errors = 0;
  for (int n = 0; n < change_count; n++) {
    const int error = queue->change(changes[n]);
    if (error == 0) continue;
    if (errors == event_count) {
      errno = error;
      return -1;
    }
    events[errors] = changes[n];
    events[errors].flags = EV_ERROR;
    events[errors++].data = error;
  }
  if (errors > 0 || event_count == 0) return errors;
  int taken;
  while ((taken = queue->take(events, event_count)) == 0 && timeout == nullptr) {
    std::vector<pollfd> polled = queue->polled();
    if (poll(polled.data(), polled.size(), kSliceMs) < 0) return -1;
    if (find(fd) == queue) continue;
    errno = EBADF;
    return -1;
  }
  return taken;
}
