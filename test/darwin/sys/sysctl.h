#pragma once

#include <stddef.h>

// Knows kern.bootsessionuuid: Linux's, or what PROCLOCK_SHIM_BOOT says.
int sysctlbyname(const char* name, void* old, size_t* old_size, void* fresh, size_t fresh_size);
