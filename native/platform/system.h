// The system that this is built for, by one name: nothing above this folder knows which it is.
//
// PROCLOCK_PORTABLE is a build of the tests: that for macOS, compiled for Linux, where test/darwin/ plays the other kernel.
#pragma once

#if defined(__APPLE__) || (defined(__linux__) && defined(PROCLOCK_PORTABLE))
#define PROCLOCK_DARWIN 1
#include "darwin/platform.h"
namespace proclock {
using System = DarwinPlatform;
}
#elif defined(__linux__)
#define PROCLOCK_LINUX 1
#include "linux/platform.h"
namespace proclock {
using System = LinuxPlatform;
}
#endif

#if defined(PROCLOCK_LINUX) || defined(PROCLOCK_DARWIN)
#define PROCLOCK_SUPPORTED 1
#include "memory.h"
#endif
