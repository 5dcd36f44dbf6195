// The system that this is built for, by one name: nothing above this folder knows which it is.
#pragma once

#ifdef __linux__
#include "linux/platform.h"
#define PROCLOCK_SUPPORTED 1
namespace proclock {
using System = LinuxPlatform;
}
#endif
