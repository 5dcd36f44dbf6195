// The two words on which the protocol turns, as values. Everything here is a pure function of a value that was
// loaded before; nothing here touches an atomic.
//
// slot word   | 63 .. 32: storage index | 31 .. 4: zero | 3: mode | 2 .. 0: phase |
// gate word   | 63 .. 32: storage index | 31 .. 3: zero | 2: POKED | 1: QUEUED | 0: RECOVERING |
//
// The slot word belongs to one hold or wait; the gate word to one lock. The storage index is the lock's
// generation: it names the pthread_rwlock_t that excludes at the moment. All-zero is a valid "nothing here" of both.
#pragma once

#include <cstdint>

namespace proclock {

enum class Mode : uint32_t { kShared = 0, kExclusive = 1 };

enum class Phase : uint32_t {
  kFree = 0,       // the slot is not bound to a lock
  kIdle = 1,       // bound, and refers to no storage (it may be in the queue)
  kTrying = 2,     // about to try, trying, or has just got the storage named in the word
  kHeld = 3,       // holds. A slot holds exactly when its word says so
  kReleasing = 4,  // no longer holds; unlocks the storage, and owes the queue a poke
  kStale = 5,      // was TRYING when a recovery froze its lock: whatever it gets, it must give back
  kStolen = 6,     // held until somebody stole the lock. Refers to nothing; its owner has yet to find out
};

constexpr uint64_t kPhaseMask = 7;
constexpr uint64_t kModeBit = 8;
constexpr uint32_t kStorageShift = 32;

constexpr uint64_t slot_word(Phase phase, Mode mode, uint32_t storage) {
  return static_cast<uint64_t>(storage) << kStorageShift | (mode == Mode::kExclusive ? kModeBit : 0) |
         static_cast<uint64_t>(phase);
}
constexpr uint64_t kIdleWord = slot_word(Phase::kIdle, Mode::kShared, 0);
constexpr uint64_t kStolenWord = slot_word(Phase::kStolen, Mode::kShared, 0);

constexpr Phase phase_of(uint64_t word) { return static_cast<Phase>(word & kPhaseMask); }
constexpr Mode mode_of(uint64_t word) { return word & kModeBit ? Mode::kExclusive : Mode::kShared; }
constexpr uint32_t storage_of(uint64_t word) { return static_cast<uint32_t>(word >> kStorageShift); }

constexpr uint64_t with_phase(uint64_t word, Phase phase) {
  return (word & ~kPhaseMask) | static_cast<uint64_t>(phase);
}
constexpr bool is_held(uint64_t word) { return phase_of(word) == Phase::kHeld; }
constexpr bool holds(uint64_t word, Mode mode) { return is_held(word) && mode_of(word) == mode; }
// A slot that refers to a storage forbids that the storage be initialised anew (INV-3).
constexpr bool refers(uint64_t word) {
  return phase_of(word) >= Phase::kTrying && phase_of(word) <= Phase::kStale;
}

constexpr uint64_t kGateRecovering = 1;
constexpr uint64_t kGateQueued = 2;
constexpr uint64_t kGatePoked = 4;

constexpr uint64_t gate_word(uint32_t storage) { return static_cast<uint64_t>(storage) << kStorageShift; }
constexpr uint64_t with_storage(uint64_t gate, uint32_t storage) {
  return (gate & 0xffffffffu) | gate_word(storage);
}
// What step A3 compares: the queue flags may change under a try, the storage and RECOVERING may not.
constexpr uint64_t epoch_of(uint64_t gate) { return gate & ~(kGateQueued | kGatePoked); }
constexpr bool is_recovering(uint64_t gate) { return (gate & kGateRecovering) != 0; }
constexpr bool has_waiters(uint64_t gate) { return (gate & kGateQueued) != 0; }
// Somebody sleeps and nobody was told: the next release has to poke.
constexpr bool wants_poke(uint64_t gate) { return (gate & (kGateQueued | kGatePoked)) == kGateQueued; }

}  // namespace proclock
