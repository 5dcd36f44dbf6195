// All of the lock core, for the system that this is built for; instantiated once, in core.cc.
#pragma once

#include "../core/core.h"
#include "system.h"

#ifdef PROCLOCK_SUPPORTED
namespace proclock {
extern template class Arena<System>;
}
#endif
