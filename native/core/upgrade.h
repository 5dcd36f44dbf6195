// From shared to exclusive, without ever having let go. Why two never get in: the steps U1 to U8 in protocol.h.
//
// Waiting. An upgrader goes on holding, and takes a place in the queue with the very slot that holds (UPGRADING): ahead of
// all, exclusive, fair. So newcomers are barred, and each release of another reader pokes it (R3), as a front waiter; what it
// waits for is that no other slot is HELD. Everything that is said of a front waiter in queue.h is true of it: a poke that it
// does not react to, a withdrawal that leaves no barrier behind, a death. Its ticket is older than that of the first in the
// queue, so that a rebuild finds the same order.
//
// There is one at most: each of two would wait for the other. The second one is refused. (If the first has died, that is found
// out before.)
//
// No lost wake-up, as in queue.h: the upgrader takes POKED back (W2), then looks at the slots (U2); a reader says RELEASING
// (R1), then looks at the gate (R3). W2-U2 and R1-R3 are each store then load, with a seq_cst fence between: if U2 still found
// that the reader holds, its R3 sees WAITING.
//
// Who belonged to the front may try no more, from the moment at which an upgrader is ahead (demote_followers). ELIGIBLE and
// POKED are taken away together: one that was poked finds out when it reacts, and takes nothing back, for the upgrader does
// (W2). One that is in the middle of its try gets in or does not; if it does, it is another reader, whose release pokes.
// Whoever takes an upgrader out of the queue leaves the gate at WAITING, or pokes the new front.
#pragma once

#include "wait.h"

namespace proclock {

// The slot that waits to be upgraded; 0 if none does. It waits for all other slots that hold.
template <class P>
uint32_t Arena<P>::upgrader(const Latched&, uint32_t lock_index) {
  uint32_t found = 0;
  each_slot(lock(lock_index).queue_head, kByQueue, [&](uint32_t index, Slot<P>& waiter) {
    const uint32_t flags = flags_of(waiter);
    if ((flags & kSlotUpgrading) == 0) return false;
    // One that could not leave the queue when it gave up waits no more.
    if ((flags & kSlotGranted) == 0) found = index;
    return found == 0;
  });
  return found;
}

// kOk: holds exclusively, with *token. Else it is shared as before: kBusy: others hold as well; kUpgrading: another one is to
// be upgraded; kStolen; or there is no storage. `waits`: in place of kBusy kAgain: it has a place ahead of the queue, and is to
// call again when it was poked. Who gives up calls withdraw().
template <class P>
Status Arena<P>::upgrade(const SlotRef& ref, bool waits, uint64_t* token) {
  Latched latched(*this);
  if (!ok(latched.status())) return latched.status();
  Slot<P>& entry = *ref.slot;
  const uint64_t word = entry.word.load(std::memory_order_relaxed);
  if (word == stolen_word(ref.tag)) return Status::kStolen;
  if (!holds(word, Mode::kShared) || tag_of(word) != ref.tag) return Status::kNotHeld;
  if ((flags_of(entry) & kSlotUpgrading) == 0) {
    const uint32_t other = upgrader(latched, ref.lock_index);
    if (other != 0) check_processes(latched, {owner_of(word_of(slot(other)))});
    if (upgrader(latched, ref.lock_index) != 0) return Status::kUpgrading;
    const Status status = become_exclusive(latched, ref, token);
    if (status != Status::kBusy || !waits) return status;
    lead_queue(latched, ref);
  }
  const uint32_t flags = entry.flags.fetch_and(~(kSlotPoked | kSlotSkipped), std::memory_order_seq_cst);
  if ((flags & kSlotSkipped) != 0) demote_followers(latched, ref);
  ref.lock->gate.fetch_and(~kGatePoked, std::memory_order_seq_cst);  // W2
  // seq_cst fence: W2 before U2, as R1 before R3.
  P::fence();
  const Status status = become_exclusive(latched, ref, token);
  return status == Status::kBusy ? Status::kAgain : status;
}

// A place ahead of the queue.
template <class P>
void Arena<P>::lead_queue(const Latched& latched, const SlotRef& ref) {
  Slot<P>& entry = *ref.slot;
  Lock<P>& of = *ref.lock;
  const uint32_t first = get(of.queue_head);
  if (first == 0) add(header_->ticket, 1);
  set(entry.ticket, first == 0 ? get(header_->ticket) : get(slot(first).ticket) - 1);
  entry.flags.store(kSlotQueued | kSlotUpgrading | kSlotAsync | kSlotFair | kSlotExclusive | kSlotEligible |
                        (flags_of(entry) & kSlotOnDoorbell),
                    std::memory_order_relaxed);
  set(entry.queue_prev, 0);
  set(entry.queue_next, first);
  set(first == 0 ? of.queue_tail : slot(first).queue_prev, ref.slot_index);
  set(of.queue_head, ref.slot_index);
  add(of.queue_fair, 1);
  demote_followers(latched, ref);
  of.gate.fetch_or(kGateQueued, std::memory_order_seq_cst);
}

// An upgrader came ahead of the queue, or came back there. SKIPPED and POKED stay together (queue.h).
template <class P>
void Arena<P>::demote_followers(const Latched& latched, const SlotRef& ref) {
  each_slot(ref.slot->queue_next, kByQueue, [&](uint32_t, Slot<P>& waiter) {
    const uint32_t flags = flags_of(waiter);
    if ((flags & (kSlotEligible | kSlotPassedOver)) == 0) return false;
    const bool skipped = (flags & kSlotSkipped) != 0;
    waiter.flags.fetch_and(~(kSlotEligible | (skipped ? 0 : kSlotPoked)), std::memory_order_seq_cst);
    return true;
  });
  front_changed(latched, ref.lock_index);
}

// It waits no more, since it holds exclusively, or was robbed: takes it out of the queue, if it is there. The next release is
// to poke, whoever was told before.
template <class P>
void Arena<P>::end_upgrade(const Latched& latched, uint32_t slot_index) {
  Slot<P>& entry = slot(slot_index);
  if ((flags_of(entry) & kSlotUpgrading) == 0) return;
  const uint32_t lock_index = get(entry.lock);
  remove_waiter(latched, slot_index);
  front_changed(latched, lock_index);
  lock(lock_index).gate.fetch_and(~kGatePoked, std::memory_order_seq_cst);
}

// seq_cst: see the top, and against A5.
template <class P>
bool Arena<P>::has_other_holder(const Latched&, const SlotRef& ref) {
  bool found = false;
  each_slot(ref.lock->slots_head, kByLock, [&](uint32_t index, Slot<P>& other) {
    found = index != ref.slot_index && is_held(other.word.load(std::memory_order_seq_cst));
    return !found;
  });
  return found;
}

// U1 to U8 of a shared holder.
template <class P>
Status Arena<P>::become_exclusive(const Latched& latched, const SlotRef& ref, uint64_t* token) {
  Lock<P>& entry = *ref.lock;
  Status status = Status::kOk;
  if (is_recovering(entry.gate.load(std::memory_order_relaxed))) {  // U1
    status = recover_lock(latched, ref.lock_index);
    // Whoever waited for the repair has to know that it is over, if it is.
    if (get(entry.queue_head) != 0) poke_front(latched, ref.lock_index);
  }
  if (ok(status) && has_other_holder(latched, ref)) status = Status::kBusy;  // U2
  uint32_t fresh;
  if (ok(status)) status = pick_storage(latched, ref.lock_index, &fresh);
  if (!ok(status)) return status;
  const uint32_t current = storage_of(entry.gate.fetch_or(kGateRecovering, std::memory_order_seq_cst));  // U3
  freeze(latched, ref.lock_index, current);                                                              // U4
  // U5
  if (has_other_holder(latched, ref)) {
    set_gate(entry, current);
    free_entry(storages_, fresh);
    return Status::kBusy;
  }
  P::init(&at(storages_, fresh).rwlock);
  take_over(latched, ref, current, fresh, token);  // U6 to U8
  end_upgrade(latched, ref.slot_index);
  return latched.status();
}

}  // namespace proclock
