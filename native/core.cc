// The core, compiled for the platform that it runs on.
#ifdef __linux__
#include "core.h"

namespace proclock {
template class Arena<LinuxPlatform>;
}
#endif
