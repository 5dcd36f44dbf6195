// What the addon uses: the runtime and the clients of this process, on the system that it runs on; instantiated once, in
// process.cc.
#pragma once

#include "../platform/core.h"
#include "client_upgrades.h"
#include "serve.h"

#ifdef PROCLOCK_SUPPORTED
namespace proclock {
extern template class Space<System>;
extern template class Runtime<System>;
extern template class Client<System>;
}  // namespace proclock
#endif
