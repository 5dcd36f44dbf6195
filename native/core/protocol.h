// The slot protocol: a named rwlock that no death wedges and no death opens to two.
//
// What it guarantees. Shared: any number of holders; exclusive: one, alone. Any process may be killed, or stopped for an
// hour, between any two instructions of this file, in any role, including the one that is repairing after an earlier
// death. Afterwards the lock excludes as before, whoever waits gets it, and the next holder after a dead exclusive one
// is told so.
//
// Workload and cost. Uncontended acquire and release is the case that counts: no system call, no latch, one rwlock
// try and unlock plus three atomic exchanges on lines that nobody else writes. Everything else may take the latch.
//
// States. A slot's word (words.h) says what its owner is doing with which storage (pthread_rwlock_t):
//
//        phase      refers to    holds   who moves it on
//        IDLE       nothing      no      its owner (A2)
//        TRYING     storage g    no      its owner (A3, A5), or a recovery: to STALE (V2)
//        HELD       storage g    yes     its owner (R1, U6); a recovery changes g (V3); a thief: to STOLEN (S3)
//        RELEASING  storage g    no      its owner (R4)
//        STALE      storage g    no      its owner (A5)
//        STOLEN     nothing      no      its owner (A6, R1)
//        LEFT       storage g    no      a recovery: to LEFT without a storage. Its owner's thread has ended
//
// A slot *holds* exactly when its word says HELD. All that an owner does to its word is a compare-and-swap that names its tag
// (words.h), but for R4 on the way out of a release, which looks first: a slot that is not ours any more is left alone. A lock's gate word names the storage g that excludes now, the lock's
// generation, and says whether a recovery is under way.
//
// Acquire, mode m:
//    A1  g := gate; if it says RECOVERING, enter and leave the latch (which waits for the repair, or makes it), again
//    A2  slot := TRYING(m, g)
//    A3  if the gate's storage or RECOVERING changed: slot := IDLE, again from A1
//    A4  try the rwlock of g
//    A5  got it: CAS slot TRYING(m, g) -> HELD(m, g). If that fails a recovery marked us STALE: undo, that is, unlock,
//        R3, slot := IDLE, again from A1.         not got: slot := IDLE
//    A6  exclusive: add 1 to the token, then look at the slot once more. If it says STOLEN: slot := IDLE, again from A1
// Release:
//    R1  CAS slot HELD(m, g) -> RELEASING(m, g); again if a recovery moved us to another g meanwhile. STOLEN: slot := IDLE
//    R2  unlock the rwlock of g
//    R3  if the gate says that somebody sleeps who was not poked: poke, behind the latch
//    R4  slot := IDLE
// End of a thread (a worker is terminated, process.exit()), without the latch:
//    E1  HELD(exclusive, g): CAS to LEFT(exclusive, g). HELD(shared, g): R1, R2
//    E2  RELEASING(m, g) with a poke owed, STALE(m, g): CAS to LEFT(shared, g). Everything else: to LEFT without a storage
//    E3  say at the process's entry that there is something to recover (recovery.h)
// Recovery of a lock on which a dead process's slot, or one that says LEFT, refers to g (recovery.h), behind the latch:
//    V1  gate := RECOVERING(g)
//    V2  freeze: every live slot TRYING(m, g) is CASed to STALE(m, g)
//    V3  if a live slot is HELD(exclusive), the dead one held nothing and g is intact. Otherwise take a storage s to
//        which no slot refers, initialise it, take it once for every live HELD(shared) slot, and CAS that to s
//    V4  if a dead slot was HELD(exclusive, g), or LEFT(exclusive, g): write the abandoned record
//    V5  gate := s (or g); free the dead slots; poke the queue
// Downgrade is V1 to V5 by a live exclusive holder, on its own slot: HELD(exclusive, g) -> HELD(shared, s).
// Steal is V1 to V5 by somebody who does not hold:
//    S0  recover the holders that are dead, and a lock that says RECOVERING; pick a storage s as in V3
//    S1  V1
//    S2  V2
//    S3  initialise s; every slot HELD(m, g): CAS to STOLEN (if that fails, it is releasing, or LEFT: V4); then take s
//        exclusively, add 1 to the token, our own slot := TRYING(exclusive, s)
//    S4  V5 with s
//    S5  our own slot := HELD(exclusive, s); tell the owners of the slots that were stolen
// Upgrade is V1 to V5 by a shared holder, if it is the only one; how it waits until it is: upgrade.h:
//    U1  recover a lock that says RECOVERING
//    U2  if another slot says HELD: not now. Otherwise pick a storage s as in V3
//    U3  V1
//    U4  V2
//    U5  if another slot says HELD by now: gate := g, and not now
//    U6  initialise s, take it exclusively, add 1 to the token, our own slot HELD(shared, g) := TRYING(exclusive, s)
//    U7  V5 with s
//    U8  our own slot := HELD(exclusive, s)
//
// INV-1  Nobody blocks inside a rwlock: a process killed there leaves it corrupt for everybody. Only try, unlock, init.
// INV-2  Unlock runs on the thread that locked exclusively: glibc tells a write lock by the thread id of its owner.
//        Hence an asynchronous acquire is tried on the JavaScript thread that asked, never on a helper.
// INV-3  A storage is not initialised while any slot refers to it, but for a TRYING that A3 is going to send back. A
//        straggler, stopped in A4 or R2 for an hour, can only touch a rwlock that has been retired since.
// INV-4  Recovery may die at any step: whoever takes the latch next rebuilds, finds RECOVERING and starts again at V1.
//        Until V5 the dead slots keep saying what they said.
//
// Why two never get in.
//   (1) Within one storage the rwlock excludes, as long as it is used by its rules: each successful try is followed by
//       at most one unlock, by the same slot, on the same thread (A5 or R2; INV-2).
//   (2) Across a change g -> s: a holder by s has its HELD(s) from V3, where it was carried over, or from A5 with s,
//       after V5. Suppose some slot becomes HELD(g) after V3 looked at it. Its CAS of A5 succeeded, so V2 did not find
//       it TRYING(g), so its A2 came after V2's look at it. Then its A3, later still, sees RECOVERING or s, and it never
//       reaches A4. This needs store-load order on both sides: A2 before A3, V1 before V2 - seq_cst, all four.
//   (3) A live exclusive holder by g never meets a holder by s: then V3 keeps g. A dead process's slots hold nothing: it
//       can not run any more (liveness is dropped by the kernel after its last instruction). Neither does a slot that says
//       LEFT: E1 is the last that its thread did with the lock, and against V3, S3 and the rest its CAS decides.
//   (4) If the reader that V3 carries over releases meanwhile, either its R1 comes first, and V3's CAS fails and V3 gives
//       the storage back; or V3's comes first, and R1's loop reads s and unlocks s.
//   (5) A thief is a holder by s, and S3 leaves no holder by g: none comes after S2 by (2), all that were there say STOLEN
//       or are releasing. That the code of a robbed holder runs on is what stealing means; its token is smaller.
//   (6) An upgrader is a holder by s, and U5 leaves no other holder by g: none comes after U4 by (2). It has not let go in
//       between. Whoever could get g from U3 on finds RECOVERING, and s is locked before U7 names it; to steal or to recover takes
//       the latch. A death before U7 is that of a shared holder, one before U8 of nobody, one after it of an exclusive holder.
//       The old storage keeps the shared lock of our hold, and is initialised before it is used again.
// Tokens. Acquirer, thief and upgrader add in one atomic step each. An acquirer whose A6 comes after the thief's addition finds STOLEN
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

#include "tables.h"

namespace proclock {

// From any phase of ours. A look and a store, on the way out of every release; a slot that is a stranger's by now stays as it is.
template <class P>
void Arena<P>::become_idle(const SlotRef& ref, std::memory_order order) {
  if (tag_of(ref.slot->word.load(std::memory_order_relaxed)) != ref.tag) return;
  ref.slot->word.store(idle_word(ref.tag), order);
}

// On success, *token is that of this grant, or in shared mode that of the last exclusive one.
template <class P>
Try Arena<P>::try_acquire(const SlotRef& ref, Mode mode, Turn turn, uint64_t* token) {
  Slot<P>& slot = *ref.slot;
  Lock<P>& entry = *ref.lock;
  for (int tries = 0;; tries++) {
    if (tries == kTriesMax) return Try::kRecovering;
    // A1. acquire, because: an entry's storage was initialised before its gate named it.
    const uint64_t gate = entry.gate.load(std::memory_order_acquire);
    if (is_recovering(gate)) return Try::kRecovering;
    if (has_waiters(gate) && turn != Turn::kFront && (turn == Turn::kInOrder || !may_overtake(entry))) {
      return Try::kBarred;
    }
    Storage<P>* storage = find(storages_, storage_of(gate));
    if (storage == nullptr) return Try::kCorrupt;

    // A2. seq_cst, because: a recovery that does not see this store in V2 has made V1 visible to A3.
    const uint64_t trying = slot_word(Phase::kTrying, mode, storage_of(gate), ref.tag);
    uint64_t idle = idle_word(ref.tag);
    if (!slot.word.compare_exchange_strong(idle, trying, std::memory_order_seq_cst)) return Try::kCorrupt;
    // A3. seq_cst: the other half of it.
    if (epoch_of(entry.gate.load(std::memory_order_seq_cst)) != epoch_of(gate)) {
      // release, because: what we did to the storage so far (nothing) is over when the word stops to refer to it. The
      // other ways to IDLE below say the same of a try or an unlock.
      become_idle(ref, std::memory_order_release);
      continue;
    }
    if (!P::try_lock(&storage->rwlock, mode)) {  // A4
      become_idle(ref, std::memory_order_release);
      return Try::kBusy;
    }
    // A5. seq_cst on both outcomes, because: against V2, the first CAS decides.
    uint64_t expected = trying;
    if (!slot.word.compare_exchange_strong(expected, with_phase(trying, Phase::kHeld),
                                           std::memory_order_seq_cst)) {
      if (tag_of(expected) != ref.tag)
        return Try::kCorrupt;  // taken for dead: the storage may be another lock's by now
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
    become_idle(ref, std::memory_order_release);
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
    Latched latched(*this);
    if (latched.status() == Status::kStalled) return Status::kStalled;
    if (ok(latched.status()) && wants_poke(ref.lock->gate.load(std::memory_order_relaxed))) {
      wake_later_ = true;  // until R4, our death would be noticed, and the queue poked again
      poke_front(latched, ref.lock_index);
      wake_later_ = false;
    }
  }
  // R4. Last, because: RELEASING and STALE are the record of the duty to poke. Who dies before this is recovered like a
  // holder, and the recovery pokes.
  become_idle(ref, std::memory_order_release);
  return Status::kOk;
}

// kStalled: it is released, and release_duty() is to be called until it is not stalled. kStolen: it was not held any more.
template <class P>
Status Arena<P>::release(const SlotRef& ref) {
  // R1. acquire on failure, because: the storage that a recovery moved us to must be seen initialised.
  uint64_t held = ref.slot->word.load(std::memory_order_acquire);
  do {
    if (!is_held_by(held, ref.tag)) {
      if (held != stolen_word(ref.tag)) return Status::kNotHeld;
      // Nothing to unlock: the storage was retired with our hold on it, and is initialised before it is used again.
      become_idle(ref, std::memory_order_release);
      return Status::kStolen;
    }
  } while (!ref.slot->word.compare_exchange_weak(held, with_phase(held, Phase::kReleasing),
                                                 std::memory_order_seq_cst, std::memory_order_acquire));
  Storage<P>* storage = find(storages_, storage_of(held));
  if (storage == nullptr) return Status::kCorrupt;
  P::unlock(&storage->rwlock);  // R2
  return release_duty(ref);
}

// Is the slot, which held, still what it was?
template <class P>
Status Arena<P>::check_hold(const SlotRef& ref) const {
  const uint64_t word = word_of(*ref.slot);
  return is_held_by(word, ref.tag) ? Status::kOk : Status::kStolen;
}

}  // namespace proclock
