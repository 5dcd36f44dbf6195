// A program that ends with us.
//
// Between vfork() and exec the child has our memory, and this thread stands still: nothing is called there that allocates, and
// all signals are blocked, for a handler of ours must not run in it. It asks the kernel to be killed when the thread that made
// it ends, and looks after that whether that thread is still there: if we died before it asked, it ends by itself. So there is
// no moment in which it is left alone. What it becomes keeps that, unless it changes its user or gives it up.
//
// All our descriptors are closed by exec, but for the three of its input and output.
#include "../system.h"

#ifdef PROCLOCK_LINUX

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace proclock {

namespace {

constexpr unsigned kCloseOnExec = 4;  // CLOSE_RANGE_CLOEXEC, which older headers do not have
#ifndef SYS_close_range
constexpr long kCloseRange = 436;
#else
constexpr long kCloseRange = SYS_close_range;
#endif

// A host may have left descriptors open that it has itself inherited. Before Linux 5.11 those stay open: none of them is ours,
// for ours are opened to be closed by exec.
void close_by_exec(int first) { syscall(kCloseRange, first, ~0u, kCloseOnExec); }

}  // namespace

int32_t LinuxPlatform::start_ending(const std::vector<std::string>& argv,
                                    const std::vector<std::string>& env) {
  const std::vector<char*> arguments = pointers_to(argv);
  const std::vector<char*> variables = pointers_to(env);
  const pid_t parent = getpid();
  volatile int error = 0;
  sigset_t all, before;
  sigfillset(&all);
  if (pthread_sigmask(SIG_SETMASK, &all, &before) != 0) return -EAGAIN;
  const pid_t child = vfork();
  if (child == 0) {
    forget_handlers();
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) {
      error = errno;
      _exit(kNotStarted);
    }
    if (getppid() != parent) _exit(kNotStarted);
    keep_standard_fds();
    close_by_exec(kStandardFds);
    unblock_signals();
    execvpe(arguments[0], arguments.data(), variables.data());
    error = errno;
    _exit(kNotStarted);
  }
  const int failed = child < 0 ? errno : error;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (child > 0 && failed != 0) waitpid(child, nullptr, 0);
  return failed != 0 ? -failed : child;
}

}  // namespace proclock

#endif  // PROCLOCK_LINUX
