#include "../system.h"

#ifdef PROCLOCK_LINUX

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <new>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

namespace proclock {

namespace {

constexpr unsigned kUnshare = 2;  // CLOSE_RANGE_UNSHARE

bool same_file(int fd, uint64_t device, uint64_t inode) {
  struct stat file;
  return fstat(fd, &file) == 0 && file.st_dev == device && file.st_ino == inode;
}

}  // namespace

struct LinuxPlatform::Watcher::Thread {
  Watcher* watcher;
  int pipe;                                  // the reading end
  uint64_t device, inode;                    // of the pipe
  LinuxPlatform::Atomic<uint32_t> ready{0};  // 1: has its own table, 2: can not have one
  std::vector<Watched> watched;

  static void* run(void* self);
  bool have_own_table();
  bool close_copies();
  bool has_pipe();
  void drain_pipe();
  void close_own(int fd);
  uint64_t start_time_of(int32_t pid);
  void carry_out(const Order& order, std::vector<Event>* events);
  void loop();
};

// ---- any thread

bool LinuxPlatform::Watcher::pipe_is_ours() const {
  return pipe_ >= 0 && same_file(pipe_, pipe_device_, pipe_inode_);
}

void LinuxPlatform::Watcher::close_pipe() {
  if (pipe_is_ours()) close(pipe_);
  pipe_ = -1;
}

bool LinuxPlatform::Watcher::ring() {
  // Closed by the host: the thread finds out by itself, and ends.
  if (!pipe_is_ours()) return false;
  const char one = 1;
  return write(pipe_, &one, 1) == 1 || errno == EAGAIN;  // EAGAIN: full of what it has not read yet
}

bool LinuxPlatform::Watcher::start() {
  close_pipe();  // of a thread that has ended
  if (impossible_) return false;
  int ends[2];
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return false;
  for (int& end : ends) end = above_standard(end);
  struct stat file;
  if (ends[0] < 0 || ends[1] < 0 || fstat(ends[1], &file) != 0) {
    for (const int end : ends) {
      if (end >= 0) close(end);
    }
    return false;
  }
  pipe_device_ = file.st_dev;
  pipe_inode_ = file.st_ino;
  std::unique_ptr<Thread> thread(new (std::nothrow) Thread{this, ends[0], pipe_device_, pipe_inode_, {}, {}});
  bool works = thread != nullptr && start_thread(&Thread::run, thread.get());
  if (works) {
    // It needs some microseconds for that, and nothing of ours.
    while (thread->ready.load(std::memory_order_acquire) == 0)
      LinuxPlatform::wait(&thread->ready, 0, kNoDeadline);
    works = thread->ready.load(std::memory_order_acquire) == 1;
    impossible_ = !works;
  }
  if (same_file(ends[0], pipe_device_, pipe_inode_)) close(ends[0]);  // from now on, the thread's alone
  pipe_ = ends[1];
  if (works)
    thread.release();  // its own from now on
  else
    close_pipe();
  return works;
}

// ---- the watcher's thread

bool LinuxPlatform::Watcher::Thread::have_own_table() {
  const unsigned end = static_cast<unsigned>(pipe);
  return syscall(SYS_close_range, end + 1, ~0u, kUnshare) == 0 && has_pipe();
}

// All but the pipe. Nobody waits for that: a file system that is slow, or hangs, is asked to write back what the host has written.
bool LinuxPlatform::Watcher::Thread::close_copies() {
  const unsigned end = static_cast<unsigned>(pipe);
  return end == 0 || syscall(SYS_close_range, 0u, end - 1, 0u) == 0;
}

void* LinuxPlatform::Watcher::Thread::run(void* argument) {
  Thread* self = static_cast<Thread*>(argument);
  name_thread("proclock-watch");
  const bool has_table = self->have_own_table();
  self->ready.store(has_table ? 1 : 2, std::memory_order_release);
  LinuxPlatform::wake(&self->ready);
  if (!has_table) return nullptr;
  self->loop();
  return nullptr;
}

// What is done with descriptors of its own table is in functions of their own: test/native/tsan.supp names them.
bool LinuxPlatform::Watcher::Thread::has_pipe() { return same_file(pipe, device, inode); }

void LinuxPlatform::Watcher::Thread::close_own(int fd) { close(fd); }

void LinuxPlatform::Watcher::Thread::drain_pipe() {
  char drained[256];
  while (read(pipe, drained, sizeof drained) > 0) {
  }
}

uint64_t LinuxPlatform::Watcher::Thread::start_time_of(int32_t pid) { return read_stat(pid).start_time; }

// The process is looked at once more after the pidfd was opened: then that is of the process that was meant.
void LinuxPlatform::Watcher::Thread::carry_out(const Order& order, std::vector<Event>* events) {
  const auto known =
      std::find_if(watched.begin(), watched.end(), [&](const Watched& one) { return one.key == order.key; });
  if (known != watched.end()) {
    close_own(known->pidfd);
    watched.erase(known);
  }
  if (order.pid == 0) return;
  int pidfd = -1;
  if (watched.size() < kWatchedMax) pidfd = static_cast<int>(syscall(SYS_pidfd_open, order.pid, 0));
  const bool gone = pidfd < 0 && errno == ESRCH && watched.size() < kWatchedMax;
  const uint64_t started = pidfd < 0 || order.start_time == 0 ? 0 : start_time_of(order.pid);
  if (gone || (started != 0 && started != order.start_time)) {
    events->push_back({order.key, true});
  } else if (pidfd < 0) {
    events->push_back({order.key, false});
  } else {
    watched.push_back({order.key, pidfd});
    return;
  }
  if (pidfd >= 0) close_own(pidfd);
}

void LinuxPlatform::Watcher::Thread::loop() {
  std::vector<pollfd> polled;
  std::vector<Order> orders;
  std::vector<Event> events;
  for (const bool alone = close_copies(); alone;) {
    polled.assign(1, {pipe, POLLIN, 0});
    for (const Watched& one : watched) polled.push_back({one.pidfd, POLLIN, 0});
    if (poll(polled.data(), polled.size(), -1) < 0 && errno != EINTR) break;
    events.clear();
    for (size_t n = polled.size() - 1; n > 0; n--) {
      if (polled[n].revents == 0) continue;
      events.push_back({watched[n - 1].key, (polled[n].revents & POLLIN) != 0});
      close_own(watched[n - 1].pidfd);
      watched.erase(watched.begin() + static_cast<ptrdiff_t>(n - 1));
    }
    if ((polled[0].revents & POLLIN) != 0) {
      drain_pipe();
      orders.clear();
      if (watcher->take_orders(&orders)) {
        for (const Order& order : orders) carry_out(order, &events);
      }
    } else if (polled[0].revents != 0) {
      break;  // nobody can write to it any more
    }
    watcher->report(events);
  }
  std::vector<Key> unwatched;
  for (const Watched& one : watched) unwatched.push_back(one.key);
  watcher->end(unwatched);
  for (const Watched& one : watched) close_own(one.pidfd);
  close_own(pipe);
  delete this;
}

}  // namespace proclock

#endif  // PROCLOCK_LINUX
