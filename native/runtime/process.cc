#include "process.h"

#ifdef PROCLOCK_SUPPORTED
namespace proclock {
template class Space<System>;
template class Runtime<System>;
template class Client<System>;
}  // namespace proclock
#endif
