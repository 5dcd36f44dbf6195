// A program that ends with us. The kernel can not be asked for that, so a guardian sees to it: a process of its own that has no
// descriptor but a kqueue, no terminal, and all signals blocked. It waits for two ends: ours, and then it kills the program; or the
// program's, and then it ends.
//    G1  we fork the child that is to become the program
//    G2  the child forks a process that forks the guardian and exits. So the guardian is no child of the program, which would find
//        it when it waits for its children
//    G3  the guardian closes what it has, asks the kernel to be told of both ends, looks whether we are still there, and says so
//    G4  the child has heard that, and becomes the program
//
// There is no moment in which the program is left alone. If we die before G3, the guardian finds that, and kills the child, which
// still waits. After G3 the kernel tells of it. A guardian that can not come to G3 leaves the child without a word, which then exits.
//
// It kills nobody else. The kernel notes the program's exit before its number is free for another process; so when both ends have
// come, that of the program is among what is taken, and nobody is killed.
//
// Between fork() and exec nothing is called that allocates: another thread of ours may have had the allocator's lock. What the
// program becomes keeps its guardian, unless it changes its user.
#include "../system.h"

#ifdef PROCLOCK_DARWIN

#include <crt_externs.h>
#include <errno.h>
#include <fcntl.h>
#include <libproc.h>
#include <signal.h>
#include <sys/event.h>
#include <sys/wait.h>
#include <unistd.h>

namespace proclock {

namespace {

// Closes all descriptors from `first` on but `kept`. False: the kernel does not say which there are.
bool close_all(int first, int kept) {
  proc_fdinfo open_fds[256];
  for (;;) {
    const int bytes = proc_pidinfo(getpid(), PROC_PIDLISTFDS, 0, open_fds, sizeof open_fds);
    if (bytes <= 0) return false;
    bool closed = false;
    for (size_t n = 0; n < static_cast<size_t>(bytes) / sizeof open_fds[0]; n++) {
      const int fd = open_fds[n].proc_fd;
      if (fd < first || fd == kept) continue;
      close(fd);  // whatever it says: it is closed
      closed = true;
    }
    if (!closed) return true;
  }
}

// A pipe that no program inherits.
bool make_pipe(int (&ends)[2]) {
  if (pipe(ends) != 0) return false;
  if (fcntl(ends[0], F_SETFD, FD_CLOEXEC) == 0 && fcntl(ends[1], F_SETFD, FD_CLOEXEC) == 0) return true;
  const int error = errno;
  close(ends[0]);
  close(ends[1]);
  errno = error;
  return false;
}

template <class Value>
bool hear(int fd, Value* value) {
  ssize_t length;
  do {
    length = read(fd, value, sizeof *value);
  } while (length < 0 && errno == EINTR);
  return length == static_cast<ssize_t>(sizeof *value);
}

// A few bytes into a pipe that is empty: all or nothing, and at once.
template <class Value>
bool say(int fd, const Value& value) {
  return write(fd, &value, sizeof value) == static_cast<ssize_t>(sizeof value);
}

bool watch_exit(int queue, pid_t pid) {
  struct kevent change;
  EV_SET(&change, static_cast<uintptr_t>(pid), EVFILT_PROC, EV_ADD | EV_ONESHOT, NOTE_EXIT, 0, nullptr);
  return kevent(queue, &change, 1, nullptr, 0, nullptr) == 0;
}

// Of both.
struct Guarded {
  ProcessIdentity us;
  pid_t program;
};

[[noreturn]] void kill_and_end(const Guarded& guarded) {
  kill(guarded.program, SIGKILL);
  _exit(0);
}

// G3. `told` is heard by the child.
[[noreturn]] void guard(const Guarded& guarded, int told) {
  setsid();  // not of the program's process group, whose signals include SIGKILL
  if (!close_all(0, told)) _exit(1);
  const int queue = kqueue();
  if (queue < 0 || !watch_exit(queue, guarded.program)) _exit(1);
  const bool watched = watch_exit(queue, guarded.us.pid);
  if (!watched && errno != ESRCH) _exit(1);
  if (!watched || DarwinPlatform::has_ended(guarded.us)) kill_and_end(guarded);
  if (!say(told, char{1})) _exit(1);
  close(told);
  for (;;) {
    struct kevent ends[2];
    const int count = kevent(queue, nullptr, 0, ends, 2, nullptr);
    if (count < 0 && errno != EINTR) _exit(1);
    for (int n = 0; n < count; n++) {
      if (ends[n].ident == static_cast<uintptr_t>(guarded.program)) _exit(0);
    }
    if (count > 0) kill_and_end(guarded);
  }
}

// G2: 0 or an errno. Of the child.
int begin_guard(const ProcessIdentity& us) {
  int told[2];
  if (!make_pipe(told)) return errno;
  const Guarded guarded = {us, getpid()};
  const pid_t between = fork();
  if (between == 0) {
    const pid_t guardian = fork();
    if (guardian == 0) guard(guarded, told[1]);
    _exit(0);
  }
  const int failed = between < 0 ? errno : 0;
  close(told[1]);
  char word;
  const bool guarded_now = failed == 0 && hear(told[0], &word);
  close(told[0]);
  while (between > 0 && waitpid(between, nullptr, 0) < 0 && errno == EINTR) {
  }
  return guarded_now ? 0 : failed != 0 ? failed : EAGAIN;
}

}  // namespace

int32_t DarwinPlatform::start_ending(const std::vector<std::string>& argv,
                                     const std::vector<std::string>& env) {
  const std::vector<char*> arguments = pointers_to(argv);
  std::vector<char*> variables = pointers_to(env);
  const ProcessIdentity us = self();
  sigset_t all, before;
  sigfillset(&all);
  int failure[2];
  if (!make_pipe(failure)) return -errno;
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t child = fork();  // G1
  if (child == 0) {
    forget_handlers();
    int error = begin_guard(us);
    if (error == 0) {
      keep_standard_fds();
      close_all(kStandardFds, failure[1]);  // what it can not close is none of ours: those are closed by exec
      unblock_signals();
      *_NSGetEnviron() = variables.data();
      execvp(arguments[0], arguments.data());  // G4
      error = errno;
    }
    say(failure[1], error);
    _exit(kNotStarted);
  }
  int failed = child < 0 ? errno : 0;
  close(failure[1]);
  int told = 0;
  if (child > 0 && hear(failure[0], &told)) failed = told;  // closed by exec: it runs
  close(failure[0]);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (child > 0 && failed != 0) waitpid(child, nullptr, 0);
  return failed != 0 ? -failed : child;
}

}  // namespace proclock

#endif  // PROCLOCK_DARWIN
