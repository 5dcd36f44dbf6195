// The seam between the lock core and the machine. The core is a template over a class like this and touches shared
// memory, locks, clocks and other processes through it alone, so that the same source runs on real ones and in tests that
// choose every interleaving and every death. `native/platform/` has one folder for each real one.
//
//   template <class T> using Atomic   an address-free atomic of std::atomic's interface, all-zero valid
//   static void fence()               a sequentially consistent fence
//   static void fence_after_unlock()  the same, where RwLock's unlock has not been one
//   static void pause()               what a spinning processor does between two looks
//   static bool can_spin()            does anybody else run meanwhile?
//
//   struct RwLock                     lives in shared memory. Only try, unlock and init exist here on purpose: a
//   static bool try_lock(RwLock*, Mode)     process that dies *inside* a blocking rwlock call leaves it corrupt for
//   static void unlock(RwLock*)             everybody, whatever its kind (INV-1). unlock runs on the very thread that
//   static void init(RwLock*)               locked exclusively (INV-2); a shared hold is anonymous
//
//   class LocalMutex                  lock(), unlock(), between the threads of this process
//
//   static uint64_t monotonic_ns()    this process's: it means nothing to another one, which may be in another time namespace
//   static double wall_ms()           may be coarse, must be cheap
//   static uint64_t wall_ns()
//
//   static void wait(Atomic<uint32_t>*, uint32_t seen, uint64_t deadline_ns)   sleeps unless the word has changed; may
//   static void wait(Atomic<uint64_t>*, uint32_t seen, uint64_t deadline_ns)   return at any time. Of 64 bits the low half counts
//   static void wake(Atomic<uint32_t>*)                                        wakes all who sleep on the word
//   static void wake(Atomic<uint64_t>*, bool all)                              one, or all
//
//   static latch_patience_ns          how long an operation waits for the latch before it says kStalled
//   static latch_pause_ns             for how long after that the others of this process do not wait for it at all
//
//   class Memory                      the mapped segment
//     char* base()
//     Status reserve(size_t offset, size_t bytes)   makes pages exist, or says kNoSpace; never a signal
//     bool claim(uint64_t number)     locks the token of this number, which is ours from then on; false: somebody has it
//     uint64_t number()               ours; 0: none yet
//     bool can_ask()                  can liveness() tell anything at the moment?
//     Liveness liveness(uint64_t number)   does somebody have the token? An error of the system is "alive"
//     Liveness liveness(const ProcessIdentity&)   the same by pid and start time; kAlive where that can not be told
//
// And what the runtime asks of it:
//
//   static auto thread_id()           of the calling thread; compared with ==
//   static bool start_thread(run, argument)   detached. False: there can be none now
//   static void name_thread(name)
//   struct Sleep {word, seen}
//   static bool wait_for_any(sleeps, deadline_ns)   until one of the words has changed. False: this system can not wait for
//                                     several. It has not slept when it finds that out, and sleeps on the first alone later
//   kSleepsMax                        so many words it can wait for; of more, for the first ones and the last
//   static ProcessIdentity self()
//   static bool is_mapped(address)
//   class Memory, also                open(), attached(), check(), reset(), reset_after_fork(): platform/memory.h
//   class Watcher                     tells of the ends of processes: platform/watcher.h
#pragma once

#include <cstdint>

#include "status.h"
#include "words.h"

namespace proclock {

enum class Liveness { kAlive, kDead };

struct ProcessIdentity {
  int32_t pid = 0;
  uint64_t start_time = 0;
  uint64_t pid_ns = 0;
  uint64_t time_ns = 0;  // by whose clock `start_time` is; 0 where there is but one

  bool same_namespace(const ProcessIdentity& other) const { return pid_ns != 0 && pid_ns == other.pid_ns; }
  // Can the start times be compared?
  bool same_clock(const ProcessIdentity& other) const { return time_ns == other.time_ns; }
};

// What to do where there is no segment yet, or nothing was made in it: make it, or say kRemoved.
enum class Opening : uint8_t { kMake, kFind };

// What a platform found when it refused to open a segment, for the message.
struct OpenFailure {
  int error = 0;  // errno of the call that failed; 0: the content or the owner was the reason
  uint32_t found_version = 0;
  uint32_t found_abi = 0;
};

constexpr uint64_t kNoDeadline = ~uint64_t{0};

}  // namespace proclock
