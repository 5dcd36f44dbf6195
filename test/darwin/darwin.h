// What macOS's headers declare and Linux's do not, for the portable build: included before everything else. What the calls do is in
// shim.cc, as xnu's sources say it.
#pragma once

#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define CLOCK_UPTIME_RAW CLOCK_MONOTONIC
uint64_t clock_gettime_nsec_np(clockid_t clock);

// The folder of the tests' segments, on both systems, unless PROCLOCK_SHIM_CACHE names another one.
#define PROCLOCK_GROUP_FOLDER "/dev/shm"
#define _CS_DARWIN_USER_CACHE_DIR 65538
size_t shim_confstr(int name, char* text, size_t size);
#define confstr shim_confstr

#define VM_INHERIT_NONE 2
int minherit(void* address, size_t bytes, int inheritance);

// Of the calling thread alone.
#define pthread_setname_np(name) pthread_setname_np(pthread_self(), name)

// PROCLOCK_SHIM_NO_LOCKS: byte locks are granted to everybody, as on a file system that does not know them.
int shim_fcntl(int fd, int command, ...);
#define fcntl shim_fcntl
