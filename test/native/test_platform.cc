// The core and the runtime on the platform of the tests, compiled once for all of them.
#include "test_platform.h"

namespace proclock {
template class Arena<TestPlatform>;
template class Space<TestPlatform>;
template class Runtime<TestPlatform>;
template class Client<TestPlatform>;
}  // namespace proclock
