// The one error currency of the native code. Words are made of it in lib/shm/errors.ts alone, which names these
// values in the same order; `kOk` and above are success, everything below is a reason.
#pragma once

#include <cstdint>

namespace proclock {

enum class Status : int32_t {
  kOk = 0,
  kBusy = -1,          // held in a conflicting mode, or others are ahead in the queue
  kClosed = -2,        // this handle was closed, or belongs to a process that has forked since
  kNotHeld = -3,       // released too many times, or never acquired
  kCapacity = -4,      // a table of the namespace is full
  kNoSpace = -5,       // /dev/shm is full, or a file-size limit is in the way
  kPermission = -6,    // the segment is not ours, or not readable and writable for us
  kIncompatible = -7,  // another layout version or libc family is in use
  kCorrupt = -8,       // the content of the segment is not possible
  kRemoved = -9,       // the segment was deleted under us
  kTimeout = -10,      // the deadline passed
  kAgain = -11,        // nothing was decided yet: call again
  kSystem = -12,       // any other failure of a system call; errno tells
  kStalled = -13,  // the latch's owner does not go on (it was stopped there): nothing was done yet, try again
  kStolen = -14,   // the hold was taken from its owner by LockManager.request() with `steal`
  kUpgrading = -15,  // another holder waits to be upgraded: each would wait for the other
};

constexpr bool ok(Status status) { return status == Status::kOk; }

}  // namespace proclock
