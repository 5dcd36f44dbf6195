// The seam between the lock core and the machine. The core (arena.h, protocol.h, queue.h, recovery.h) is a template
// over a class like this and touches shared memory, locks, clocks and other processes through it alone, so that the
// same source runs on real ones and in tests that choose every interleaving and every death.
//
//   template <class T> using Atomic   an address-free atomic of std::atomic's interface, all-zero valid
//   static void fence()               a sequentially consistent fence
//   static void fence_after_unlock()  the same, where RwLock's unlock has not been one
//
//   struct RwLock                     lives in shared memory. Only try, unlock and init exist here on purpose: a
//   static bool try_lock(RwLock*, Mode)     process that dies *inside* a blocking rwlock call leaves it corrupt for
//   static void unlock(RwLock*)             everybody, whatever its kind (INV-1). unlock runs on the very thread that
//   static void init(RwLock*)               locked exclusively (INV-2); a shared hold is anonymous
//
//   struct Mutex                      lives in shared memory, robust, of a kind that never looks at thread ids beyond
//   static void init(Mutex*)          the kernel's own bookkeeping (thread ids repeat across PID namespaces)
//   static MutexState lock(Mutex*, uint64_t patience_ns)   kLocked, kOwnerDied (locked all the same), kStalled, kBroken
//   static void unlock(Mutex*)
//
//   static uint64_t monotonic_ns()    one clock for all processes of the machine
//   static double wall_ms()           may be coarse, must be cheap
//   static uint64_t wall_ns()
//
//   static void wait(Atomic<uint32_t>*, uint32_t seen, uint64_t deadline_ns)   sleeps unless the word has changed
//   static void wake(Atomic<uint32_t>*)                                         wakes all who sleep on the word
//
//   class Memory                      the mapped segment
//     char* base()
//     Status reserve(size_t offset, size_t bytes)   makes pages exist, or says kNoSpace; never a signal
//     Liveness liveness(uint32_t process, const ProcessIdentity&)   may block for no longer than a system call
#pragma once

#include <cstdint>

#include "status.h"
#include "words.h"

namespace proclock {

enum class MutexState { kLocked, kOwnerDied, kStalled, kBroken };
enum class Liveness { kAlive, kDead };

struct ProcessIdentity {
  int32_t pid = 0;
  uint64_t start_time = 0;
  uint64_t pid_ns = 0;

  bool same_namespace(const ProcessIdentity& other) const { return pid_ns != 0 && pid_ns == other.pid_ns; }
};

constexpr uint64_t kNoDeadline = ~uint64_t{0};

}  // namespace proclock
