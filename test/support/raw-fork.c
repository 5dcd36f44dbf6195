// A library that forks the process when it is loaded.
//
// V8 is usually built to keep its memory out of the children of a fork(), where no JavaScript can run then. Here it is
// asked for, as it is by those builds that do without.
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static const unsigned kWatchdogS = 20;

__attribute__((constructor)) static void fork_with_all_memory(void) {
  unsigned long from, to;
  FILE* maps = fopen("/proc/self/maps", "r");
  while (fscanf(maps, "%lx-%lx%*[^\n]", &from, &to) == 2) madvise((void*)from, to - from, MADV_DOFORK);
  fclose(maps);
  if (fork() == 0) alarm(kWatchdogS);
}
