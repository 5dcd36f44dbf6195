// A library that does to the process that loads it what the environment variable DISTURB says:
//   exec          it becomes another program (sleep)
//   fork, clone   it has a child with all of its descriptors, which sleeps; by the call of the libc, and past it
//   lease <path>  it takes a lease on the file, and does not give it up when it is asked to
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static const unsigned kWatchdogS = 20;

// The child of clone() can call nothing of the libc.
static void rest(void) {
  syscall(SYS_setitimer, 0, (long[]){0, 0, kWatchdogS, 0}, NULL);
  for (;;) pause();
}

__attribute__((constructor)) static void disturb(void) {
  const char* what = getenv("DISTURB");
  if (what == NULL) return;
  if (strcmp(what, "exec") == 0) execlp("sleep", "sleep", "20", (char*)NULL);
  if (strcmp(what, "fork") == 0 && fork() == 0) rest();
  if (strcmp(what, "clone") == 0 && syscall(SYS_clone, (long)SIGCHLD, 0L, 0L, 0L, 0L) == 0) rest();
  if (strncmp(what, "lease ", 6) == 0) {
    signal(SIGIO, SIG_IGN);
    const int fd = open(what + 6, O_RDWR | O_CLOEXEC);
    if (fd < 0 || fcntl(fd, F_SETLEASE, F_WRLCK) != 0) abort();
  }
}
