// Waiting: a FIFO queue per lock, under the guard; a way to sleep; a rule who may try.
//
// The gate word says EMPTY (no QUEUED), WAITING (QUEUED) or POKED (QUEUED and POKED).
//
// No lost wake-up. A waiter that is going to sleep
//    W1  reads its wake word (synchronous waiters),
//    W2  makes sure that the gate says WAITING: it queues itself, or it takes back the POKED that woke it,
//    W3  tries, and on failure sleeps unless the wake word has changed since W1.
// A releaser unlocks (R2), then looks at the gate (R3), and pokes if it says WAITING. W2-W3 and R2-R3 are each store then
// load, with a seq_cst fence between: if W3 still found the lock held by this releaser, R3 sees WAITING. Between POKED
// and W2 of the poked waiter releases need not poke again: the waiter has yet to try, and is going to see them.
// W2 comes before the try, not after: a running process that gets in between has seen POKED, and poked nobody.
// Who belongs to the front may try as often as it likes before W2 (try_front). If it was poked, whoever is ahead of it releases
// without a system call meanwhile, since POKED is set.
//
// Whoever leaves the queue settles what it leaves behind, under the guard. Granted: the gate is WAITING again, for our own
// release to poke the next; shared waiters that now head the queue are poked at once, since they fit in beside us: all of
// them if none was told before, else the first one if it has reacted in vain, and it passes that on when it is granted.
// Withdrawn (timeout, abort, thread end, death): if it belonged to the front, the poke may have been its own to pass on, or
// it was what the others waited behind: the new front is poked. WAITING where POKED would do costs a wake-up, never one
// lost; so clearing POKED needs no guard.
//
// Who may try. The front: the first waiter, if exclusive; if shared, it and all shared ones directly behind it. They are
// marked eligible and poked together, and a slot stays eligible until it leaves. Everybody else in the queue sleeps.
// A newcomer may overtake the queue for kBargeNs since its front came to be the front, and not at all if a fair waiter is
// queued: a running process takes a free lock hundreds of times in the time that a sleeping one needs to wake up. After
// that the barrier is up, and the lock is handed on in order. So the n-th in the queue is overtaken for at most n times
// kBargeNs, whatever the others do.
//
// A front waiter that does not react (a busy event loop, a stopped process) must not hold up the others: who was poked for
// kUnresponsiveNs without a reaction is skipped: it keeps its place and its right to try, but the front is computed
// without it. The waiters behind look at that on their ticks. Where nothing has happened to a lock for longer than kQuietNs
// they may have stopped to look so often: the first poke after that also rings for one that waits behind.
#pragma once

#include "arena.h"

namespace proclock {

template <class P>
bool Arena<P>::may_overtake(const Lock<P>& entry) const {
  const uint64_t barrier = entry.barrier_ns.load(std::memory_order_relaxed);
  return barrier == kNoDeadline || (barrier != 0 && P::monotonic_ns() < barrier);
}

// The first waiter that was not passed over; 0 if there is none.
template <class P>
uint32_t Arena<P>::front(const Guard&, uint32_t lock_index) {
  uint32_t found = 0;
  each_slot(lock(lock_index).queue_head, kByQueue, [&](uint32_t index, Slot<P>& entry) {
    if ((entry.flags.load(std::memory_order_relaxed) & kSlotPassedOver) != 0) return true;
    found = index;
    return false;
  });
  return found;
}

// Sets the barrier anew for the front that there is now.
template <class P>
void Arena<P>::front_changed(const Guard& guard, uint32_t lock_index) {
  Lock<P>& entry = lock(lock_index);
  uint64_t barrier = kNoDeadline;
  if (front(guard, lock_index) != 0) barrier = get(entry.queue_fair) != 0 ? 0 : P::monotonic_ns() + kBargeNs;
  entry.barrier_ns.store(barrier, std::memory_order_relaxed);
}

// Inside the guard, unless the caller's slot tells of its duty: a process that dies after it set POKED and before it
// woke anybody leaves the guard to a rebuild, which pokes again.
template <class P>
void Arena<P>::wake(Atomic<uint32_t>* word) {
  if (wake_later_) {
    wakes_.push_back(word);
  } else {
    P::wake(word);
  }
}

template <class P>
void Arena<P>::poke(const Guard& guard, uint32_t slot_index) {
  Slot<P>& entry = slot(slot_index);
  const uint16_t flags = entry.flags.fetch_or(kSlotEligible | kSlotPoked, std::memory_order_relaxed);
  if ((flags & kSlotAsync) == 0) {
    entry.wake.fetch_add(1, std::memory_order_release);  // pairs with W1
    wake(&entry.wake);
    return;
  }
  ring(guard, slot_index);
}

template <class P>
void Arena<P>::put_on_doorbell(const Guard&, uint32_t slot_index) {
  Slot<P>& entry = slot(slot_index);
  Process<P>& there = process(entry.process.load(std::memory_order_relaxed));
  entry.flags.fetch_or(kSlotOnDoorbell, std::memory_order_relaxed);
  set(entry.poked_next, get(there.poked_head));
  set(there.poked_head, slot_index);
}

// Tells the process of the slot, through its doorbell, that there is something new about it.
template <class P>
void Arena<P>::ring(const Guard& guard, uint32_t slot_index) {
  Slot<P>& entry = slot(slot_index);
  const uint16_t flags = entry.flags.load(std::memory_order_relaxed);
  const uint32_t owner = entry.process.load(std::memory_order_relaxed);
  if (owner == self_) {
    poked_here_.push_back(slot_index);
    return;
  }
  Process<P>& there = process(owner);
  if (fault_) return;
  if ((flags & kSlotOnDoorbell) == 0) put_on_doorbell(guard, slot_index);
  // Also for one that is there already: whoever put it there may have died before the bell rang.
  there.doorbell.fetch_add(1, std::memory_order_release);
  wake(&there.doorbell);
}

// After a death: whoever was poked, and has not reacted, may not have been woken. Not only the front: one that was skipped
// and came back may have taken its place at the front again.
template <class P>
void Arena<P>::poke_again(const Guard& guard, uint32_t lock_index) {
  each_slot(lock(lock_index).queue_head, kByQueue, [&](uint32_t index, Slot<P>& waiter) {
    if ((waiter.flags.load(std::memory_order_relaxed) & kSlotPoked) != 0) poke(guard, index);
    return true;
  });
  poke_front(guard, lock_index);
}

template <class P>
void Arena<P>::poke_front(const Guard& guard, uint32_t lock_index) {
  Lock<P>& entry = lock(lock_index);
  bool any = false;
  bool ended = false;  // what follows is behind the front
  const uint64_t now = P::monotonic_ns();
  const bool was_quiet = now - entry.poked_ns.load(std::memory_order_relaxed) >= kQuietNs;
  entry.poked_ns.store(now, std::memory_order_relaxed);
  entry.gate.fetch_or(kGatePoked, std::memory_order_seq_cst);
  each_slot(entry.queue_head, kByQueue, [&](uint32_t index, Slot<P>& waiter) {
    const uint16_t flags = waiter.flags.load(std::memory_order_relaxed);
    if ((flags & kSlotPassedOver) != 0) return true;
    const bool shared = (flags & kSlotExclusive) == 0;
    if (!any || (!ended && shared)) {
      any = true;
      ended = !shared;
      poke(guard, index);
      return shared || was_quiet;
    }
    ended = true;
    // Who waits synchronously has ticks of its own.
    if (was_quiet && (flags & kSlotAsync) == 0) return true;
    if (was_quiet) ring(guard, index);
    return false;
  });
  // Nobody was told, so nobody is going to take it back.
  if (!any) entry.gate.fetch_and(~kGatePoked, std::memory_order_seq_cst);
}

// Puts the slot at the end of the queue. kOk: it belongs to the front, and has to try (react); kAgain: it has to sleep.
template <class P>
Status Arena<P>::enqueue(const SlotRef& ref, Mode mode, uint16_t flags) {
  Guard guard(*this);
  if (!ok(guard.status())) return guard.status();
  Slot<P>& entry = *ref.slot;
  Lock<P>& of = *ref.lock;
  const uint32_t last = get(of.queue_tail);
  const bool first = front(guard, ref.lock_index) == 0;
  bool eligible = first;
  if (!first && mode == Mode::kShared) {
    // The last one that was not passed over decides: all shared up to here, or somebody exclusive is in between.
    uint32_t steps = 0;
    for (uint32_t index = last; index != 0 && !fault_; index = get(slot(index).queue_prev)) {
      const uint16_t other = slot(index).flags.load(std::memory_order_relaxed);
      eligible = (other & (kSlotEligible | kSlotExclusive)) == kSlotEligible;
      if ((other & kSlotPassedOver) == 0) break;
      if (++steps > kSlotsMax) fault_ = true;
    }
    if (fault_) return Status::kCorrupt;
  }
  const uint32_t ticket = get(header_->ticket) + 1;
  set(header_->ticket, ticket);
  set(entry.ticket, ticket);
  entry.since.store(bits_of(P::wall_ms()), std::memory_order_relaxed);
  flags = static_cast<uint16_t>(flags | kSlotQueued | (mode == Mode::kExclusive ? kSlotExclusive : 0) |
                                (eligible ? kSlotEligible : 0) |
                                (entry.flags.load(std::memory_order_relaxed) & kSlotOnDoorbell));
  entry.flags.store(flags, std::memory_order_relaxed);
  set(entry.queue_prev, last);
  set(entry.queue_next, 0);
  set(last == 0 ? of.queue_head : slot(last).queue_next, ref.slot_index);
  set(of.queue_tail, ref.slot_index);
  if ((flags & kSlotFair) != 0) set(of.queue_fair, get(of.queue_fair) + 1);
  if (first || (flags & kSlotFair) != 0) front_changed(guard, ref.lock_index);
  of.gate.fetch_or(kGateQueued, std::memory_order_seq_cst);  // W2
  if (!ok(guard.status())) return guard.status();
  return eligible ? Status::kOk : Status::kAgain;
}

template <class P>
void Arena<P>::remove_waiter(const Guard&, uint32_t slot_index) {
  Slot<P>& entry = slot(slot_index);
  Lock<P>& of = lock(get(entry.lock));
  const uint16_t flags = entry.flags.load(std::memory_order_relaxed);
  if (fault_ || (flags & kSlotQueued) == 0) return;
  remove_slot(of.queue_head, &of.queue_tail, kByQueue, slot_index);
  if ((flags & kSlotFair) != 0) set(of.queue_fair, get(of.queue_fair) - 1);
  // Stays on the doorbell's stack if it is there; whoever takes it off finds that it waits no more.
  entry.flags.store(flags & kSlotOnDoorbell, std::memory_order_relaxed);
  if (get(of.queue_head) == 0) of.gate.fetch_and(~(kGateQueued | kGatePoked), std::memory_order_seq_cst);
}

// Many shared waiters are poked together; the first to react must not make each release poke the others once more. As
// long as the waiter that is now first has not reacted, its poke is still under way. It takes kSlotPoked away before it
// takes POKED away (react), we set POKED before we look at kSlotPoked, all seq_cst: so either it comes to take POKED back
// itself, or we find that it has begun to react. Then whoever released in between has seen POKED, and poked nobody: we do.
template <class P>
void Arena<P>::keep_poked(const Guard& guard, uint32_t lock_index, const Slot<P>& next) {
  if ((next.flags.load(std::memory_order_seq_cst) & kSlotPoked) == 0) return;
  lock(lock_index).gate.fetch_or(kGatePoked, std::memory_order_seq_cst);
  if ((next.flags.load(std::memory_order_seq_cst) & kSlotPoked) == 0) poke_front(guard, lock_index);
}

// A granted waiter leaves the queue. It may have released already, if the guard was stalled in between: until it can leave,
// it says that it waits no more, so that nobody waits for it to react, or sees it wait. (Others may change its flags at this
// moment, each by one read-modify-write.)
template <class P>
Status Arena<P>::settle_grant(const SlotRef& ref) {
  Guard guard(*this);
  if (guard.status() == Status::kStalled) ref.slot->flags.fetch_or(kSlotGranted, std::memory_order_relaxed);
  if (!ok(guard.status())) return guard.status();
  const uint64_t word = ref.slot->word.load(std::memory_order_relaxed);
  remove_waiter(guard, ref.slot_index);
  front_changed(guard, ref.lock_index);
  if (get(ref.lock->queue_head) == 0) return guard.status();
  ref.lock->gate.fetch_and(~kGatePoked, std::memory_order_seq_cst);
  const uint32_t next = front(guard, ref.lock_index);
  if (next == 0) return guard.status();
  const uint16_t flags = slot(next).flags.load(std::memory_order_seq_cst);
  const bool told = (flags & (kSlotExclusive | kSlotEligible)) != 0;
  // Beside an exclusive holder nobody fits in, beside a shared one the shared waiters that head the queue now do. One that
  // has reacted may have failed before the release that let us in, and that release may have seen a POKED that was for us.
  const bool beside = mode_of(word) == Mode::kShared && (flags & kSlotExclusive) == 0;
  if (!is_held(word) || (beside && !told)) {
    poke_front(guard, ref.lock_index);
  } else {
    if (beside && (flags & kSlotPoked) == 0) poke(guard, next);
    if (told) keep_poked(guard, ref.lock_index, slot(next));
  }
  return guard.status();
}

// A try of a waiter that belongs to the front, before it reacts. kAcquired: settle_grant() is next; everything else is left
// to react().
template <class P>
Try Arena<P>::try_front(const SlotRef& ref, Mode mode, uint64_t* token) {
  const uint16_t flags = ref.slot->flags.load(std::memory_order_relaxed);
  const uint64_t word = ref.slot->word.load(std::memory_order_relaxed);
  const bool may = (flags & (kSlotEligible | kSlotSkipped)) == kSlotEligible;
  if (!may || word != kIdleWord) return Try::kBarred;
  return try_acquire(ref, mode, Turn::kFront, token);
}

// What a waiter does when it was poked, or has just queued itself: W2, W3. kOk: granted; settle_grant() is next.
// kAgain: sleep.
template <class P>
Status Arena<P>::react(const SlotRef& ref, Mode mode, uint64_t* token) {
  const uint16_t flags =
      ref.slot->flags.fetch_and(static_cast<uint16_t>(~kSlotPoked), std::memory_order_seq_cst);
  if ((flags & kSlotEligible) == 0) return Status::kAgain;
  if (phase_of(ref.slot->word.load(std::memory_order_relaxed)) == Phase::kStale) {
    const Status status = release_duty(ref);  // left over from a call that was stalled
    if (!ok(status)) return status;
  }
  if ((flags & kSlotSkipped) != 0) {
    Guard guard(*this);
    if (!ok(guard.status())) return guard.status();
    ref.slot->flags.fetch_and(static_cast<uint16_t>(~kSlotSkipped), std::memory_order_relaxed);
    front_changed(guard, ref.lock_index);
  }
  ref.lock->gate.fetch_and(~kGatePoked, std::memory_order_seq_cst);  // W2
  for (;;) {
    // seq_cst fence: W2 before W3, as R2 before R3 in release_duty().
    P::fence();
    const Try tried = try_acquire(ref, mode, Turn::kFront, token);  // W3
    if (tried == Try::kCorrupt) return Status::kCorrupt;
    if (tried == Try::kBusy) return Status::kAgain;
    if (tried == Try::kAcquired) return Status::kOk;
    const Status status = tried == Try::kOwing ? release_duty(ref) : finish_recovery(ref.lock_index);
    if (!ok(status)) return status;
  }
}

template <class P>
Status Arena<P>::withdraw(const SlotRef& ref) {
  Guard guard(*this);
  if (!ok(guard.status())) return guard.status();
  // The first may not be eligible yet: it came to the front by a shared grant beside which it does not fit in.
  const bool was_front = (ref.slot->flags.load(std::memory_order_relaxed) & kSlotEligible) != 0 ||
                         front(guard, ref.lock_index) == ref.slot_index;
  remove_waiter(guard, ref.slot_index);
  if (was_front) {
    front_changed(guard, ref.lock_index);
    poke_front(guard, ref.lock_index);
  }
  return guard.status();
}

// Was a waiter poked so long ago that it ought to have reacted? Needs no guard.
template <class P>
bool Arena<P>::overdue(const Lock<P>& entry) const {
  if ((entry.gate.load(std::memory_order_relaxed) & kGatePoked) == 0) return false;
  const uint64_t poked = entry.poked_ns.load(std::memory_order_relaxed);
  const uint64_t now = P::monotonic_ns();
  return now > poked && now - poked >= kUnresponsiveNs;
}

// Has nothing happened to the queue for so long, and is nothing under way? Needs no guard.
template <class P>
bool Arena<P>::is_quiet(uint32_t lock_index, uint64_t for_ns) const {
  const Lock<P>* entry = find(const_cast<Table<Lock<P>>&>(locks_), lock_index);
  return entry != nullptr && (entry->gate.load(std::memory_order_relaxed) & kGatePoked) == 0 &&
         P::monotonic_ns() - entry->poked_ns.load(std::memory_order_relaxed) >= for_ns;
}

// Passes over the waiters that were poked and do not react, and pokes those behind them.
template <class P>
Status Arena<P>::open_barrier_if_overdue(uint32_t lock_index) {
  const Lock<P>* seen = find(locks_, lock_index);
  if (seen == nullptr) return Status::kCorrupt;
  if (!overdue(*seen)) return Status::kOk;
  Guard guard(*this);
  if (!ok(guard.status())) return guard.status();
  Lock<P>& entry = lock(lock_index);
  if (!overdue(entry)) return guard.status();
  each_slot(entry.queue_head, kByQueue, [&](uint32_t, Slot<P>& waiter) {
    uint16_t flags = waiter.flags.load(std::memory_order_relaxed);
    // Only together with POKED, in one step: its reaction takes POKED away, and with it learns that it was skipped. A
    // waiter that was skipped after it reacted would sleep, and nobody would poke it.
    while ((flags & kSlotPoked) != 0 &&
           !waiter.flags.compare_exchange_weak(flags, static_cast<uint16_t>(flags | kSlotSkipped),
                                               std::memory_order_relaxed)) {
    }
    return (flags & kSlotEligible) != 0;
  });
  front_changed(guard, lock_index);
  poke_front(guard, lock_index);
  return guard.status();
}

// For the owner of the doorbell: takes the poked slots off the stack.
template <class P>
Status Arena<P>::take_poked(std::vector<uint32_t>* slots) {
  Guard guard(*this);
  if (!ok(guard.status())) return guard.status();
  Process<P>& own = process(self_);
  uint32_t steps = 0;
  for (uint32_t index = get(own.poked_head); index != 0 && !fault_;) {
    Slot<P>& entry = slot(index);
    const uint32_t next = get(entry.poked_next);
    entry.flags.fetch_and(static_cast<uint16_t>(~kSlotOnDoorbell), std::memory_order_relaxed);
    slots->push_back(index);
    index = next;
    if (++steps > kSlotsMax) fault_ = true;
  }
  set(own.poked_head, 0);
  return guard.status();
}

}  // namespace proclock
