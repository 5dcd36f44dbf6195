// What goes in and out of a namespace.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "platform.h"
#include "status.h"
#include "words.h"

namespace proclock {

struct Name {
  const void* bytes = nullptr;
  uint32_t size = 0;  // in bytes
  bool utf16 = false;
};

// One line of query(): a hold or a wait, in any process.
struct HolderInfo {
  uint32_t lock = 0;
  Mode mode = Mode::kShared;
  bool pending = false;
  uint32_t thread = 0;
  uint32_t process = 0;
  uint32_t ticket = 0;  // of a wait
  double since_ms = 0;
  ProcessIdentity identity;
};

struct LockName {
  std::string bytes;
  bool utf16 = false;
};

struct AbandonedInfo {
  int32_t pid = 0;
  uint32_t thread = 0;
  double since_ms = 0;
  uint64_t token = 0;
};

// A lock that a dead holder has left, and its name.
struct MarkedLock {
  LockName name;
  AbandonedInfo mark;
};

// How an exclusive holder comes to its end, as far as others want to know.
enum class Finished {
  kRepair,  // of what a dead holder left: its mark goes
  kFlight,  // those who wait need not do again what this holder did
};

// Who may try while others are in the queue.
enum class Turn {
  kMayOvertake,  // a newcomer, as far as the barrier lets it
  kInOrder,      // a newcomer that wants strict FIFO
  kFront,        // the front of the queue itself
};

enum class Try {
  kAcquired,
  kBusy,        // held in a conflicting mode
  kBarred,      // others are first
  kRecovering,  // finish_recovery(), then again
  kOwing,       // not acquired, and release_duty() is to be called until it is not stalled
  kCorrupt,
};

// Told about pokes for slots of this very process, after the latch was left.
class PokeSink {
 public:
  virtual void poked(const std::vector<uint32_t>& slots) = 0;

 protected:
  ~PokeSink() = default;
};

// What one watcher of a lock knows of its last poke: by its own clock, since others have other clocks.
struct PokeSeen {
  uint32_t pokes = 0;
  uint64_t since_ns = 0;  // when `pokes` was first seen; 0: never
};

// What one watcher of a lock saw last of a release that is not over.
struct OwedSeen {
  uint32_t slot = 0;
  uint64_t word = 0;
};

// What one ticker knows of the detector's word.
struct ScanSeen {
  uint64_t word = ~uint64_t{0};
};

// What one wait saw when it last looked for a cycle.
struct CycleSeen {
  uint64_t print = 0;   // of all that makes the cycle; 0: there was none
  bool is_new = false;  // it was not there at the look before
};

// How long the entries of this thread into latches may take together, for as long as the object lives.
class Patience {
 public:
  explicit Patience(uint64_t until_ns) : before_(current()) { current() = until_ns; }
  ~Patience() { current() = before_; }
  Patience(const Patience&) = delete;
  Patience& operator=(const Patience&) = delete;
  static uint64_t until_ns() { return current(); }  // 0: each entry has a patience of its own
  // For whoever runs several threads on one, as the simulation does: each of them has its own.
  static uint64_t& current() {
    static thread_local uint64_t until_ns = 0;
    return until_ns;
  }

 private:
  const uint64_t before_;
};

inline double double_of(uint64_t bits) {
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
inline uint64_t bits_of(double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

}  // namespace proclock
