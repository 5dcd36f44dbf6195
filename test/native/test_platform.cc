// The core on the platform of the tests, compiled once for all of them.
#include "test_platform.h"

namespace proclock {
template class Arena<TestPlatform>;
}
