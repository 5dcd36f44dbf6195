// What a waiter does: it queues itself, reacts to a poke, settles when it was granted, withdraws when it gives up. The steps
// and the argument are in queue.h.
#pragma once

#include "queue.h"

namespace proclock {

// Puts the slot at the end of the queue. kOk: it belongs to the front, and has to try (react); kAgain: it has to sleep.
template <class P>
Status Arena<P>::enqueue(const SlotRef& ref, Mode mode, uint32_t flags) {
  Latched latched(*this);
  if (!ok(latched.status())) return latched.status();
  Slot<P>& entry = *ref.slot;
  Lock<P>& of = *ref.lock;
  const uint32_t last = get(of.queue_tail);
  const bool first = front(latched, ref.lock_index) == 0;
  bool eligible = first;
  if (!first && mode == Mode::kShared) {
    // The last one that was not passed over decides: all shared up to here, or somebody exclusive is in between.
    for (uint32_t index = last; index != 0 && !fault_; index = get(slot(index).queue_prev)) {
      const uint32_t other = flags_of(slot(index));
      eligible = (other & (kSlotEligible | kSlotExclusive)) == kSlotEligible;
      if ((other & kSlotPassedOver) == 0) break;
    }
    if (fault_) return Status::kCorrupt;
  }
  const uint32_t ticket = get(header_->ticket) + 1;
  set(header_->ticket, ticket);
  set(entry.ticket, ticket);
  entry.since.store(bits_of(P::wall_ms()), std::memory_order_relaxed);
  flags |= kSlotQueued | (mode == Mode::kExclusive ? kSlotExclusive : 0) | (eligible ? kSlotEligible : 0) |
           (flags_of(entry) & kSlotOnDoorbell);
  entry.flags.store(flags, std::memory_order_relaxed);
  set(entry.queue_prev, last);
  set(entry.queue_next, 0);
  set(last == 0 ? of.queue_head : slot(last).queue_next, ref.slot_index);
  set(of.queue_tail, ref.slot_index);
  if ((flags & kSlotFair) != 0) add(of.queue_fair, 1);
  if (first || (flags & kSlotFair) != 0) front_changed(latched, ref.lock_index);
  of.gate.fetch_or(kGateQueued, std::memory_order_seq_cst);  // W2
  if (!ok(latched.status())) return latched.status();
  return eligible ? Status::kOk : Status::kAgain;
}

template <class P>
void Arena<P>::remove_waiter(const Latched&, uint32_t slot_index) {
  Slot<P>& entry = slot(slot_index);
  Lock<P>& of = lock(get(entry.lock));
  const uint32_t flags = flags_of(entry);
  if (fault_ || (flags & kSlotQueued) == 0) return;
  remove_slot(of.queue_head, &of.queue_tail, kByQueue, slot_index);
  if ((flags & kSlotFair) != 0) add(of.queue_fair, ~0u);
  // Stays on the doorbell's stack if it is there; whoever takes it off finds that it waits no more.
  entry.flags.store(flags & kSlotOnDoorbell, std::memory_order_relaxed);
  if (get(of.queue_head) == 0) of.gate.fetch_and(~(kGateQueued | kGatePoked), std::memory_order_seq_cst);
}

// For one that can not leave the queue now: nobody waits for it to react, or sees it wait.
template <class P>
void Arena<P>::waits_no_more(const SlotRef& ref) {
  ref.slot->flags.fetch_or(kSlotGranted, std::memory_order_relaxed);
}

// A granted waiter leaves the queue. It may have released already, if the latch was stalled in between: until it can leave,
// it says that it waits no more, so that nobody waits for it to react, or sees it wait. (Others may change its flags at this
// moment, each by one read-modify-write.)
template <class P>
Status Arena<P>::settle_grant(const SlotRef& ref) {
  Latched latched(*this);
  if (latched.status() == Status::kStalled) waits_no_more(ref);
  if (!ok(latched.status())) return latched.status();
  const uint64_t word = ref.slot->word.load(std::memory_order_relaxed);
  remove_waiter(latched, ref.slot_index);
  front_changed(latched, ref.lock_index);
  if (get(ref.lock->queue_head) == 0) return latched.status();
  ref.lock->gate.fetch_and(~kGatePoked, std::memory_order_seq_cst);
  const uint32_t next = front(latched, ref.lock_index);
  if (next == 0) return latched.status();
  const uint32_t flags = slot(next).flags.load(std::memory_order_seq_cst);
  const bool told = (flags & (kSlotExclusive | kSlotEligible)) != 0;
  // Beside an exclusive holder nobody fits in, beside a shared one the shared waiters that head the queue now do. One that
  // has reacted may have failed before the release that let us in, and that release may have seen a POKED that was for us.
  const bool beside = mode_of(word) == Mode::kShared && (flags & kSlotExclusive) == 0;
  if (!is_held(word) || (beside && !told)) {
    poke_front(latched, ref.lock_index);
  } else {
    if (beside && (flags & kSlotPoked) == 0) poke(latched, next);
    if (told) keep_poked(latched, ref.lock_index, slot(next));
  }
  return latched.status();
}

// A try of a waiter that belongs to the front, before it reacts. kAcquired: settle_grant() is next; everything else is left
// to react().
template <class P>
Try Arena<P>::try_front(const SlotRef& ref, Mode mode, uint64_t* token) {
  const uint32_t flags = flags_of(*ref.slot);
  const uint64_t word = ref.slot->word.load(std::memory_order_relaxed);
  const bool may = (flags & (kSlotEligible | kSlotSkipped)) == kSlotEligible;
  if (!may || word != idle_word(ref.tag)) return Try::kBarred;
  return try_acquire(ref, mode, Turn::kFront, token);
}

// What a waiter does when it was poked, or has just queued itself: W2, W3. kOk: granted; settle_grant() is next.
// kAgain: sleep.
template <class P>
Status Arena<P>::react(const SlotRef& ref, Mode mode, uint64_t* token) {
  uint32_t flags = ref.slot->flags.fetch_and(~kSlotPoked, std::memory_order_seq_cst);
  if ((flags & kSlotSkipped) != 0) {
    const Status status = come_back(ref, &flags);
    if (!ok(status)) return status;
  }
  if (phase_of(ref.slot->word.load(std::memory_order_relaxed)) == Phase::kStale) {
    const Status status = release_duty(ref);  // left over from a call that was stalled
    if (!ok(status)) return status;
  }
  if ((flags & kSlotEligible) == 0) return Status::kAgain;
  ref.lock->gate.fetch_and(~kGatePoked, std::memory_order_seq_cst);  // W2
  for (int tries = 0; tries < kTriesMax; tries++) {
    // seq_cst fence: W2 before W3, as R2 before R3 in release_duty().
    P::fence();
    const Try tried = try_acquire(ref, mode, Turn::kFront, token);  // W3
    if (tried == Try::kCorrupt) return Status::kCorrupt;
    if (tried == Try::kBusy) return Status::kAgain;
    if (tried == Try::kAcquired) return Status::kOk;
    const Status status = tried == Try::kOwing ? release_duty(ref) : finish_recovery(ref.lock_index);
    if (!ok(status)) return status;
  }
  return Status::kStalled;
}

// What one that has left the front without a grant may have owed to those behind it. The gate before the flags, both seq_cst,
// because: if the first one has POKED after we saw that of the gate, its W2 is still to come.
template <class P>
void Arena<P>::pass_on(const Latched& latched, uint32_t lock_index) {
  const bool under_way = is_poked(lock(lock_index).gate.load(std::memory_order_seq_cst));
  const uint32_t next = front(latched, lock_index);
  const uint32_t flags = next == 0 ? 0 : slot(next).flags.load(std::memory_order_seq_cst);
  const bool told = (flags & (kSlotEligible | kSlotExclusive)) == kSlotEligible;
  if (!told || !under_way || (flags & kSlotPoked) == 0) poke_front(latched, lock_index, told);
}

template <class P>
Status Arena<P>::withdraw(const SlotRef& ref) {
  Latched latched(*this);
  if (latched.status() == Status::kStalled) waits_no_more(ref);
  if (!ok(latched.status())) return latched.status();
  // The first may not be eligible yet: it came to the front by a shared grant beside which it does not fit in. And one that
  // could not leave when it wanted to may have been the first.
  const bool was_front = (flags_of(*ref.slot) & (kSlotEligible | kSlotGranted)) != 0 ||
                         front(latched, ref.lock_index) == ref.slot_index;
  // A try that was frozen, and whose duty could not be done since: see release_duty().
  const bool owes = phase_of(ref.slot->word.load(std::memory_order_relaxed)) == Phase::kStale;
  remove_waiter(latched, ref.slot_index);
  if (was_front) {
    front_changed(latched, ref.lock_index);
    pass_on(latched, ref.lock_index);
  } else if (owes && get(ref.lock->queue_head) != 0) {
    poke_front(latched, ref.lock_index);
  }
  if (owes) become_idle(ref, std::memory_order_release);
  return latched.status();
}

}  // namespace proclock
