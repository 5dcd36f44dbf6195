// The words on which everything turns, as values. Everything here is a pure function of a value that was loaded before;
// nothing here touches an atomic.
//
// slot word   | 63 .. 32: storage index | 31 .. 15: serial | 14 .. 4: owner | 3: mode | 2 .. 0: phase |
// gate word   | 63 .. 32: storage index | 31 .. 3: zero | 2: POKED | 1: QUEUED | 0: RECOVERING |
// latch word  | 63 .. 3: the owner's number, 0: free | 2: CORRUPT | 1: DIRTY | 0: WAITERS |
// scan word   | 63 .. 16: turn | 15 .. 0: cursor, a process entry |
//
// The slot word belongs to one hold or wait, the gate word to one lock, the latch and the scan word to the namespace. The
// storage index is the lock's generation: it names the pthread_rwlock_t that excludes at the moment. A slot's owner is
// a process entry; the serial grows each time that the slot is bound. Owner and serial together are the slot's *tag*: whoever
// was taken for dead finds another tag in its slot, and its compare-and-swap fails. All-zero is a valid "nothing here" of all.
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
  kLeft =
      7,  // its thread ended. What it leaves is recovered as a dead process's: exclusive mode says that it held so
};

constexpr uint64_t kPhaseMask = 7;
constexpr uint64_t kModeBit = 8;
constexpr uint32_t kOwnerShift = 4;
constexpr uint32_t kOwnerBits = 11;
constexpr uint32_t kSerialShift = kOwnerShift + kOwnerBits;
constexpr uint32_t kStorageShift = 32;
constexpr uint32_t kOwnersMax = (1u << kOwnerBits) - 1;
constexpr uint64_t kSerialMask = (uint64_t{1} << kStorageShift) - (uint64_t{1} << kSerialShift);
constexpr uint64_t kTagMask = (uint64_t{1} << kStorageShift) - (uint64_t{1} << kOwnerShift);

constexpr uint64_t tag_of(uint64_t word) { return word & kTagMask; }
constexpr uint32_t owner_of(uint64_t word) { return static_cast<uint32_t>(word >> kOwnerShift) & kOwnersMax; }
// The tag of the next binding of a slot, from the word of the last one.
constexpr uint64_t next_tag(uint64_t word, uint32_t owner) {
  return ((word + (uint64_t{1} << kSerialShift)) & kSerialMask) | static_cast<uint64_t>(owner) << kOwnerShift;
}

constexpr uint64_t slot_word(Phase phase, Mode mode, uint32_t storage, uint64_t tag) {
  return static_cast<uint64_t>(storage) << kStorageShift | tag | (mode == Mode::kExclusive ? kModeBit : 0) |
         static_cast<uint64_t>(phase);
}
// What refers to nothing.
constexpr uint64_t idle_word(uint64_t tag) { return slot_word(Phase::kIdle, Mode::kShared, 0, tag_of(tag)); }
constexpr uint64_t stolen_word(uint64_t tag) {
  return slot_word(Phase::kStolen, Mode::kShared, 0, tag_of(tag));
}
// Keeps nothing but the serial.
constexpr uint64_t free_word(uint64_t word) { return word & kSerialMask; }

constexpr Phase phase_of(uint64_t word) { return static_cast<Phase>(word & kPhaseMask); }
constexpr Mode mode_of(uint64_t word) { return word & kModeBit ? Mode::kExclusive : Mode::kShared; }
constexpr uint32_t storage_of(uint64_t word) { return static_cast<uint32_t>(word >> kStorageShift); }

constexpr uint64_t with_phase(uint64_t word, Phase phase) {
  return (word & ~kPhaseMask) | static_cast<uint64_t>(phase);
}
// The thread that has this word ends. `storage` 0: what it did to a storage is over.
constexpr uint64_t left_word(uint64_t word, Mode mode, uint32_t storage) {
  return slot_word(Phase::kLeft, mode, storage, tag_of(word));
}
constexpr bool is_held(uint64_t word) { return phase_of(word) == Phase::kHeld; }
constexpr bool is_held_by(uint64_t word, uint64_t tag) {
  return (word & (kTagMask | kPhaseMask)) == (tag | static_cast<uint64_t>(Phase::kHeld));
}
constexpr bool is_left(uint64_t word) { return phase_of(word) == Phase::kLeft; }
constexpr bool holds(uint64_t word, Mode mode) { return is_held(word) && mode_of(word) == mode; }
// A slot that refers to a storage forbids that the storage be initialised anew (INV-3).
constexpr bool refers(uint64_t word) {
  return (phase_of(word) >= Phase::kTrying && phase_of(word) <= Phase::kStale) ||
         (is_left(word) && storage_of(word) != 0);
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
constexpr bool is_poked(uint64_t gate) { return (gate & kGatePoked) != 0; }
// Somebody sleeps and nobody was told: the next release has to poke.
constexpr bool wants_poke(uint64_t gate) { return (gate & (kGateQueued | kGatePoked)) == kGateQueued; }

constexpr uint64_t kLatchWaiters = 1;  // somebody may sleep
constexpr uint64_t kLatchDirty = 2;    // the content is to be rebuilt before it is used
constexpr uint64_t kLatchCorrupt = 4;  // the content is not possible: nobody gets in any more
constexpr uint32_t kLatchShift = 3;
constexpr uint64_t kNumbersMax = uint64_t{1} << 61;

constexpr uint64_t latch_word(uint64_t number) { return number << kLatchShift; }
constexpr uint64_t latch_owner(uint64_t word) { return word >> kLatchShift; }

constexpr uint32_t kTurnShift = 16;
constexpr uint32_t scan_cursor(uint64_t word) { return static_cast<uint32_t>(word & 0xffff); }
constexpr uint64_t next_scan(uint64_t word, uint32_t cursor) {
  return ((word >> kTurnShift) + 1) << kTurnShift | cursor;
}

// ---- the mark of a lock: bit 0 says that the record of a dead holder is valid, the others count finished flights

constexpr uint32_t kMarkAbandoned = 1;
constexpr uint32_t kMarkFlight = 2;

constexpr bool is_abandoned(uint32_t mark) { return (mark & kMarkAbandoned) != 0; }
constexpr uint32_t flights_of(uint32_t mark) { return mark / kMarkFlight; }

}  // namespace proclock
