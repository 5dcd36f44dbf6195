// The slot protocol: a named rwlock that no death wedges and no death opens to two.
//
// What it guarantees. Shared: any number of holders; exclusive: one, alone. Any process may be killed, or stopped for an
// hour, between any two instructions of this file, in any role, including the one that is repairing after an earlier
// death. Afterwards the lock excludes as before, whoever waits gets it, and the next holder after a dead exclusive one
// is told so.
//
// Workload and cost. Uncontended acquire and release is the case that counts: no system call, no guard, one rwlock
// try and unlock plus three atomic exchanges on lines that nobody else writes. Everything else may take the guard.
//
// States. A slot's word (words.h) says what its owner is doing with which storage (pthread_rwlock_t):
//
//        phase      refers to    holds   who moves it on
//        IDLE       nothing      no      its owner (A2)
//        TRYING     storage g    no      its owner (A3, A5), or a recovery: to STALE (V2)
//        HELD       storage g    yes     its owner (R1); a recovery changes g (V3); a thief: to STOLEN (S3)
//        RELEASING  storage g    no      its owner (R4)
//        STALE      storage g    no      its owner (A5)
//        STOLEN     nothing      no      its owner (A6, R1)
//
// A slot *holds* exactly when its word says HELD. A lock's gate word names the storage g that excludes now, the lock's
// generation, and says whether a recovery is under way.
//
// Acquire, mode m:
//    A1  g := gate; if it says RECOVERING, enter and leave the guard (which waits for the repair, or makes it), again
//    A2  slot := TRYING(m, g)
//    A3  if the gate's storage or RECOVERING changed: slot := IDLE, again from A1
//    A4  try the rwlock of g
//    A5  got it: CAS slot TRYING(m, g) -> HELD(m, g). If that fails a recovery marked us STALE: undo, that is, unlock,
//        R3, slot := IDLE, again from A1.         not got: slot := IDLE
//    A6  exclusive: add 1 to the token, then look at the slot once more. If it says STOLEN: slot := IDLE, again from A1
// Release:
//    R1  CAS slot HELD(m, g) -> RELEASING(m, g); again if a recovery moved us to another g meanwhile. STOLEN: slot := IDLE
//    R2  unlock the rwlock of g
//    R3  if the gate says that somebody sleeps who was not poked: poke, under the guard
//    R4  slot := IDLE
// Recovery of a lock on which a dead process's slot refers to g (recovery.h), under the guard:
//    V1  gate := RECOVERING(g)
//    V2  freeze: every live slot TRYING(m, g) is CASed to STALE(m, g)
//    V3  if a live slot is HELD(exclusive), the dead one held nothing and g is intact. Otherwise take a storage s to
//        which no slot refers, initialise it, take it once for every live HELD(shared) slot, and CAS that to s
//    V4  if a dead slot was HELD(exclusive, g): write the abandoned record
//    V5  gate := s (or g); free the dead slots; poke the queue
// Downgrade is V1 to V5 by a live exclusive holder, on its own slot: HELD(exclusive, g) -> HELD(shared, s).
// Steal is V1 to V5 by somebody who does not hold:
//    S0  recover the holders that are dead, and a lock that says RECOVERING; pick a storage s as in V3
//    S1  V1
//    S2  V2
//    S3  initialise s; every slot HELD(m, g): CAS to STOLEN (if that fails, it is releasing); then take s exclusively, add 1
//        to the token, our own slot := TRYING(exclusive, s)
//    S4  V5 with s
//    S5  our own slot := HELD(exclusive, s); tell the owners of the slots that were stolen
//
// INV-1  Nobody blocks inside a rwlock: a process killed there leaves it corrupt for everybody. Only try, unlock, init.
// INV-2  Unlock runs on the thread that locked exclusively: glibc tells a write lock by the thread id of its owner.
//        Hence an asynchronous acquire is tried on the JavaScript thread that asked, never on a helper.
// INV-3  A storage is not initialised while any slot refers to it, but for a TRYING that A3 is going to send back. A
//        straggler, stopped in A4 or R2 for an hour, can only touch a rwlock that has been retired since.
// INV-4  Recovery may die at any step: the guard is robust, and whoever takes it next finds RECOVERING and starts again
//        at V1. Until V5 the dead slots keep saying what they said.
//
// Why two never get in.
//   (1) Within one storage the rwlock excludes, as long as it is used by its rules: each successful try is followed by
//       at most one unlock, by the same slot, on the same thread (A5 or R2; INV-2).
//   (2) Across a change g -> s: a holder by s has its HELD(s) from V3, where it was carried over, or from A5 with s,
//       after V5. Suppose some slot becomes HELD(g) after V3 looked at it. Its CAS of A5 succeeded, so V2 did not find
//       it TRYING(g), so its A2 came after V2's look at it. Then its A3, later still, sees RECOVERING or s, and it never
//       reaches A4. This needs store-load order on both sides: A2 before A3, V1 before V2 - seq_cst, all four.
//   (3) A live exclusive holder by g never meets a holder by s: then V3 keeps g. A dead process's slots hold nothing: it
//       can not run any more (liveness is dropped by the kernel after its last instruction).
//   (4) If the reader that V3 carries over releases meanwhile, either its R1 comes first, and V3's CAS fails and V3 gives
//       the storage back; or V3's comes first, and R1's loop reads s and unlocks s.
//   (5) A thief is a holder by s, and S3 leaves no holder by g: none comes after S2 by (2), all that were there say STOLEN
//       or are releasing. That the code of a robbed holder runs on is what stealing means; its token is smaller.
// Tokens. Acquirer and thief add in one atomic step each. An acquirer whose A6 comes after the thief's addition finds STOLEN
// there, and nobody has learned of its token; one whose A6 comes before has the smaller token. So among those that were
// told that they hold, tokens grow in the order of the grants.
// A5's CAS and V2's: whichever comes first decides, both see the other. The undo is a release (R3): somebody may have
// failed to get g because of us, and sleep.
//
// Why nobody sleeps for ever: queue.h.
//
// Non-goals. A thread that never releases is not helped: stopping a process does not free what it holds. Priority is not
// inherited. Whoever may write to the segment may break it: what is checked keeps readers from crashing, no more.
#pragma once

#include "arena.h"

namespace proclock {

// On success, *token is that of this grant, or in shared mode that of the last exclusive one.
template <class P>
Try Arena<P>::try_acquire(const SlotRef& ref, Mode mode, Turn turn, uint64_t* token) {
  Slot<P>& slot = *ref.slot;
  Lock<P>& entry = *ref.lock;
  for (;;) {
    // A1. acquire, because: an entry's storage was initialised before its gate named it.
    const uint64_t gate = entry.gate.load(std::memory_order_acquire);
    if (is_recovering(gate)) return Try::kRecovering;
    if (has_waiters(gate) && turn != Turn::kFront && (turn == Turn::kInOrder || !may_overtake(entry))) {
      return Try::kBarred;
    }
    Storage<P>* storage = find(storages_, storage_of(gate));
    if (storage == nullptr) return Try::kCorrupt;

    // A2. seq_cst, because: a recovery that does not see this store in V2 has made V1 visible to A3.
    const uint64_t trying = slot_word(Phase::kTrying, mode, storage_of(gate));
    slot.word.exchange(trying, std::memory_order_seq_cst);
    // A3. seq_cst: the other half of it.
    if (epoch_of(entry.gate.load(std::memory_order_seq_cst)) != epoch_of(gate)) {
      // release, because: what we did to the storage so far (nothing) is over when the word stops to refer to it. The
      // other stores of IDLE below say the same of a try or an unlock.
      slot.word.store(kIdleWord, std::memory_order_release);
      continue;
    }
    if (!P::try_lock(&storage->rwlock, mode)) {  // A4
      slot.word.store(kIdleWord, std::memory_order_release);
      return Try::kBusy;
    }
    // A5. seq_cst on both outcomes, because: against V2, the first CAS decides.
    uint64_t expected = trying;
    if (!slot.word.compare_exchange_strong(expected, with_phase(trying, Phase::kHeld),
                                           std::memory_order_seq_cst)) {
      P::unlock(&storage->rwlock);
      if (!ok(release_duty(ref))) return Try::kOwing;
      continue;
    }
    if (mode == Mode::kShared) {
      *token = entry.token.load(std::memory_order_relaxed);
      break;
    }
    // A6. acq_rel, because: if the thief's addition came first, then so did its CAS, and the load sees that.
    *token = entry.token.fetch_add(1, std::memory_order_acq_rel) + 1;
    if (is_held(slot.word.load(std::memory_order_relaxed))) {
      entry.holder.store(ref.slot_index, std::memory_order_relaxed);
      break;
    }
    slot.word.store(kIdleWord, std::memory_order_release);
  }
  slot.since.store(bits_of(P::wall_ms()), std::memory_order_relaxed);
  return Try::kAcquired;
}

// R3 and R4. kStalled: the slot keeps the record of the duty; call again.
template <class P>
Status Arena<P>::release_duty(const SlotRef& ref) {
  // seq_cst fence, because: our unlock comes before our look at the gate, as in queue.h a waiter's WAITING comes before
  // its try. Either we see that it sleeps, or it sees that we are gone.
  P::fence_after_unlock();
  if (wants_poke(ref.lock->gate.load(std::memory_order_relaxed))) {
    Guard guard(*this);
    if (guard.status() == Status::kStalled) return Status::kStalled;
    if (ok(guard.status()) && wants_poke(ref.lock->gate.load(std::memory_order_relaxed))) {
      wake_later_ = true;  // until R4, our death would be noticed, and the queue poked again
      poke_front(guard, ref.lock_index);
      wake_later_ = false;
    }
  }
  // R4. Last, because: RELEASING and STALE are the record of the duty to poke. Who dies before this is recovered like a
  // holder, and the recovery pokes.
  ref.slot->word.store(kIdleWord, std::memory_order_release);
  return Status::kOk;
}

// kStalled: it is released, and release_duty() is to be called until it is not stalled. kStolen: it was not held any more.
template <class P>
Status Arena<P>::release(const SlotRef& ref) {
  // R1. acquire on failure, because: the storage that a recovery moved us to must be seen initialised.
  uint64_t held = ref.slot->word.load(std::memory_order_acquire);
  do {
    if (phase_of(held) == Phase::kStolen) {
      // Nothing to unlock: the storage was retired with our hold on it, and is initialised before it is used again.
      ref.slot->word.store(kIdleWord, std::memory_order_release);
      return Status::kStolen;
    }
    if (!is_held(held)) return Status::kNotHeld;
  } while (!ref.slot->word.compare_exchange_weak(held, with_phase(held, Phase::kReleasing),
                                                 std::memory_order_seq_cst, std::memory_order_acquire));
  Storage<P>* storage = find(storages_, storage_of(held));
  if (storage == nullptr) return Status::kCorrupt;
  P::unlock(&storage->rwlock);  // R2
  return release_duty(ref);
}

// Exclusive to shared, and nobody in between: the change of generation of a recovery, made by the holder itself.
template <class P>
Status Arena<P>::downgrade(const SlotRef& ref) {
  Guard guard(*this);
  if (!ok(guard.status())) return guard.status();
  const uint64_t held = ref.slot->word.load(std::memory_order_relaxed);
  if (!holds(held, Mode::kExclusive)) return Status::kNotHeld;
  uint32_t fresh;
  const Status status = pick_storage(guard, ref.lock_index, &fresh);
  if (!ok(status)) return status;
  Storage<P>& storage = at(storages_, fresh);
  ref.lock->gate.fetch_or(kGateRecovering, std::memory_order_seq_cst);  // V1
  freeze(guard, ref.lock_index, storage_of(held));                      // V2
  P::init(&storage.rwlock);                                             // V3
  P::try_lock(&storage.rwlock, Mode::kShared);
  // What was torn is repaired, or this holder would not let others see it.
  ref.lock->abandoned.store(0, std::memory_order_relaxed);
  ref.slot->word.store(slot_word(Phase::kHeld, Mode::kShared, fresh), std::memory_order_seq_cst);
  set_gate(*ref.lock, fresh);  // V5
  // The old storage goes with its write lock on: it is initialised before it is used again.
  retire_storage(guard, ref.lock_index, storage_of(held));
  if (get(ref.lock->queue_head) != 0) poke_front(guard, ref.lock_index);
  return guard.status();
}

// Takes the lock from whoever holds it, for a slot that is idle and not in the queue. Those that wait go on waiting.
template <class P>
Status Arena<P>::steal(const SlotRef& ref, uint64_t* token) {
  Guard guard(*this);
  if (!ok(guard.status())) return guard.status();
  Lock<P>& entry = *ref.lock;
  // S0. A dead holder is not robbed: its end is to be reported.
  look_guarded(guard, ref.lock_index);
  Status status = Status::kOk;
  const bool recovers = is_recovering(entry.gate.load(std::memory_order_relaxed));
  if (recovers) status = recover_lock(guard, ref.lock_index);
  uint32_t fresh;
  if (ok(status)) status = pick_storage(guard, ref.lock_index, &fresh);
  if (!ok(status)) {
    // No theft, so no release that pokes: whoever waited for the repair has to know that it is over.
    if (recovers && get(entry.queue_head) != 0) poke_front(guard, ref.lock_index);
    return status;
  }
  Storage<P>& storage = at(storages_, fresh);
  const uint32_t current = storage_of(entry.gate.fetch_or(kGateRecovering, std::memory_order_seq_cst));  // S1
  freeze(guard, ref.lock_index, current);                                                                // S2
  // S3. seq_cst: against R1 and A6, the first decides.
  P::init(&storage.rwlock);
  std::vector<uint32_t> robbed;
  each_slot(entry.slots_head, kByLock, [&](uint32_t index, Slot<P>& other) {
    uint64_t word = other.word.load(std::memory_order_seq_cst);
    while (is_held(word) && !other.word.compare_exchange_weak(word, kStolenWord, std::memory_order_seq_cst)) {
    }
    if (is_held(word)) robbed.push_back(index);
    return true;
  });
  P::try_lock(&storage.rwlock, Mode::kExclusive);
  *token = entry.token.fetch_add(1, std::memory_order_acq_rel) + 1;
  entry.holder.store(ref.slot_index, std::memory_order_relaxed);
  ref.slot->since.store(bits_of(P::wall_ms()), std::memory_order_relaxed);
  const uint64_t trying = slot_word(Phase::kTrying, Mode::kExclusive, fresh);
  ref.slot->word.store(trying, std::memory_order_seq_cst);
  set_gate(entry, fresh);  // S4
  // S5. After S4, because: a death before it leaves a lock that nobody held, one after it an abandoned hold.
  ref.slot->word.store(with_phase(trying, Phase::kHeld), std::memory_order_seq_cst);
  retire_storage(guard, ref.lock_index, current);
  for (const uint32_t index : robbed) ring(guard, index);
  return guard.status();
}

// Is the slot, which held, still what it was?
template <class P>
Status Arena<P>::check_hold(const SlotRef& ref) const {
  return is_held(ref.slot->word.load(std::memory_order_acquire)) ? Status::kOk : Status::kStolen;
}

// By an exclusive holder whose thread ends without having released: the next one is to be told as of a death. And the
// other way round, by one that was told and comes to its end. Under the guard, because: it may be robbed at any moment.
template <class P>
Status Arena<P>::set_abandoned(const SlotRef& ref, bool abandoned) {
  Guard guard(*this);
  if (!ok(guard.status())) return guard.status();
  if (!holds(ref.slot->word.load(std::memory_order_relaxed), Mode::kExclusive)) return Status::kNotHeld;
  if (abandoned) {
    record_abandoned(ref);
  } else {
    ref.lock->abandoned.store(0, std::memory_order_relaxed);
  }
  return guard.status();
}

// V4
template <class P>
void Arena<P>::record_abandoned(const SlotRef& ref) {
  Lock<P>& entry = *ref.lock;
  const Process<P>* owner = find(processes_, ref.slot->process.load(std::memory_order_relaxed));
  const int32_t pid = owner == nullptr ? 0 : owner->pid.load(std::memory_order_relaxed);
  entry.abandoned_pid.store(pid, std::memory_order_relaxed);
  entry.abandoned_thread.store(get(ref.slot->thread), std::memory_order_relaxed);
  entry.abandoned_since.store(ref.slot->since.load(std::memory_order_relaxed), std::memory_order_relaxed);
  entry.abandoned_token.store(entry.token.load(std::memory_order_relaxed), std::memory_order_relaxed);
  // Ordered for its readers by the lock itself: they hold it.
  entry.abandoned.store(1, std::memory_order_relaxed);
}

template <class P>
AbandonedInfo Arena<P>::abandoned(const SlotRef& ref) const {
  const Lock<P>& entry = *ref.lock;
  AbandonedInfo info;
  info.pid = entry.abandoned_pid.load(std::memory_order_relaxed);
  info.thread = entry.abandoned_thread.load(std::memory_order_relaxed);
  info.since_ms = double_of(entry.abandoned_since.load(std::memory_order_relaxed));
  info.token = entry.abandoned_token.load(std::memory_order_relaxed);
  return info;
}

}  // namespace proclock
