// What is the same on both systems about a program that ends with us. How that is seen to is in the folders of each.
#include "unix.h"

#include "system.h"

#ifdef PROCLOCK_SUPPORTED

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace proclock {

namespace {
constexpr int kBySignal = 256;
}

std::vector<char*> UnixPlatform::pointers_to(const std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  pointers.reserve(strings.size() + 1);
  for (const std::string& string : strings) pointers.push_back(const_cast<char*>(string.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

// Some can not be changed, and need not be: what fails here is one of those.
void UnixPlatform::forget_handlers() {
  struct sigaction as_by_default = {};
  as_by_default.sa_handler = SIG_DFL;
  for (int signal = 1; signal < NSIG; signal++) sigaction(signal, &as_by_default, nullptr);
}

// Fails for one that is not open, which then is not open for the program either.
void UnixPlatform::keep_standard_fds() {
  for (int fd = 0; fd < kStandardFds; fd++) fcntl(fd, F_SETFD, 0);
}

void UnixPlatform::unblock_signals() {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

// As the first process of a container we are the parent of all that lost theirs.
int32_t UnixPlatform::reap(int32_t pid) {
  for (;;) {
    int status = 0;
    const pid_t ended = waitpid(-1, &status, WNOHANG);
    if (ended < 0 && errno == EINTR) continue;
    if (ended <= 0) return -1;
    if (ended != pid) continue;
    return WIFSIGNALED(status) ? kBySignal + WTERMSIG(status) : WEXITSTATUS(status);
  }
}

bool UnixPlatform::is_in_foreground() {
  const int terminal = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (terminal < 0) return false;  // there is none
  const pid_t foreground = tcgetpgrp(terminal);
  close(terminal);
  return foreground == getpgrp();
}

}  // namespace proclock

#endif  // PROCLOCK_SUPPORTED
