// The core, compiled for the system that it runs on.
#include "core.h"

#ifdef PROCLOCK_SUPPORTED
namespace proclock {
template class Arena<System>;
}
#endif
