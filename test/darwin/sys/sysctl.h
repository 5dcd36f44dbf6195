#pragma once

#include <stddef.h>

// Knows kern.argmax, and kern.bootsessionuuid: Linux's, or what PROCLOCK_SHIM_BOOT says.
int sysctlbyname(const char* name, void* old, size_t* old_size, void* fresh, size_t fresh_size);

#define CTL_KERN 1
#define KERN_PROCARGS2 49
// Knows the arguments of a process.
int sysctl(int* name, unsigned length, void* old, size_t* old_size, void* fresh, size_t fresh_size);
