// All of the lock core, for Linux; instantiated once, in core.cc.
#pragma once

#include "arena.h"
#include "names.h"
#include "platform_linux.h"
#include "protocol.h"
#include "queue.h"
#include "recovery.h"

namespace proclock {
extern template class Arena<LinuxPlatform>;
}
