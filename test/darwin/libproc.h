#pragma once

#include <stdint.h>

struct proc_bsdinfo {
  uint32_t pbi_status;
  uint32_t pbi_pid;
  uint64_t pbi_start_tvsec, pbi_start_tvusec;
};
#define PROC_PIDTBSDINFO 3
struct proc_fdinfo {
  int32_t proc_fd;
  uint32_t proc_fdtype;
};
// Of this process alone.
#define PROC_PIDLISTFDS 1
// The size that was written; 0: an error, which errno tells. Finds no zombie.
int proc_pidinfo(int pid, int flavor, uint64_t argument, void* buffer, int size);
