// Waiting: a FIFO queue per lock, under the latch; a way to sleep; a rule who may try.
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
// Whoever leaves the queue settles what it leaves behind, under the latch. Granted: the gate is WAITING again, for our own
// release to poke the next; shared waiters that now head the queue are poked at once, since they fit in beside us: all of
// them if none was told before, else the first one if it has reacted in vain, and it passes that on when it is granted.
// Withdrawn (timeout, abort, thread end, death): if it belonged to the front, the poke may have been its own to pass on, or
// it was what the others waited behind: the new front is poked. Where shared waiters of the front withdraw, those behind were
// told already, and one is enough to pass a poke on, since it fits in beside them when it is granted: the first is poked alone, or
// nobody if it has yet to react to a poke, and try. So thousands that give up at once cost no more than one poke each.
//
// WAITING where POKED would do costs a wake-up, never one lost; so clearing POKED needs no latch.
//
// Who may try. The front: the first waiter, if exclusive; if shared, it and all shared ones directly behind it. They are
// marked eligible and poked together, and a slot stays eligible until it leaves. Everybody else in the queue sleeps.
// A newcomer may overtake the queue for kBargeNs since its front came to be the front, and not at all if a fair waiter is
// queued: a running process takes a free lock hundreds of times in the time that a sleeping one needs to wake up. After
// that the barrier is up, and the lock is handed on in order. So the n-th in the queue is overtaken for at most n times
// kBargeNs, whatever the others do.
//
// A front waiter that does not react (a busy event loop, a stopped process) must not hold up the others: if it has been
// poked for kUnresponsiveNs without a reaction, its thread is passed over with all its waits in this queue at once. They keep
// their places, and the front is computed without them. Each of them is poked as well (SKIPPED and POKED in one step), so
// that each comes to react: it comes back into the front's computation first, behind the latch, and tries if it is its turn.
// The waiters behind look for that on their ticks, each by its own clock: a poke that they have seen for so long. (Clocks of
// two processes can not be compared: they may be in two time namespaces.) Where nothing happens to a lock they stop to look so
// often, and somebody has to have them look again.
//    Q1  a process that is going to look seldom says so at its entry (`seldom`), then at each lock it waits for (`unwatched`,
//        a count), and then looks whether a poke is under way. If there is one it goes on to look often
//    Q2  who pokes sets POKED, and then looks at `unwatched`. If it says so, it goes on behind the front until it has found
//        kWatchersMax processes that look often, among kLookBehindMax waits at most. It rings for each on the way that looks
//        seldom, which counts as one that looks often, unless it was rung for before and has not answered
//    Q3  who has answered its doorbell looks often. It takes `seldom` back itself, so it is never said of one that is stopped
//        that it has looked
//    Q4  where Q2 has come to the end, and nobody on the way looks seldom, it sets `unwatched` to 0, if it is still what it was
// Q1 and Q2 are each store then load, and seq_cst: either the watcher finds POKED, or its `seldom` is found. Q4 is a
// compare-and-swap, because: who has announced itself since Q2 may have been passed by already. So behind a front that was
// poked somebody looks often, unless all of kWatchersMax processes are stopped or die together. To pass over so many one by one
// takes nearly as long as a seldom look, so that to ring for more would not get the others on much sooner.
//
// `barrier_ns` is the one time in shared memory. A process with another clock finds it past, or further ahead than it can be:
// either way it does not overtake.
#pragma once

#include "protocol.h"

namespace proclock {

template <class P>
bool Arena<P>::may_overtake(const Lock<P>& entry) const {
  const uint64_t barrier = entry.barrier_ns.load(std::memory_order_relaxed);
  if (barrier == kNoDeadline || barrier == 0) return barrier != 0;
  const uint64_t now = P::monotonic_ns();
  return now < barrier && barrier - now <= kBargeNs;
}

// The first waiter that was not passed over; 0 if there is none.
template <class P>
uint32_t Arena<P>::front(const Latched&, uint32_t lock_index) {
  uint32_t found = 0;
  each_slot(lock(lock_index).queue_head, kByQueue, [&](uint32_t index, Slot<P>& entry) {
    if ((flags_of(entry) & kSlotPassedOver) != 0) return true;
    found = index;
    return false;
  });
  return found;
}

// Sets the barrier anew for the front that there is now.
template <class P>
void Arena<P>::front_changed(const Latched& latched, uint32_t lock_index) {
  Lock<P>& entry = lock(lock_index);
  uint64_t barrier = kNoDeadline;
  if (front(latched, lock_index) != 0)
    barrier = get(entry.queue_fair) != 0 ? 0 : P::monotonic_ns() + kBargeNs;
  entry.barrier_ns.store(barrier, std::memory_order_relaxed);
}

// ---- pokes

// Behind the latch, unless the caller's slot tells of its duty: a process that dies after it set POKED and before it
// woke anybody leaves the latch to a rebuild, which pokes again.
template <class P>
void Arena<P>::wake(Atomic<uint32_t>* word) {
  if (wake_later_) {
    wakes_.push_back(word);
  } else {
    P::wake(word);
  }
}

// Has the waiter look at its flags.
template <class P>
void Arena<P>::tell(const Latched& latched, uint32_t slot_index) {
  Slot<P>& entry = slot(slot_index);
  if ((flags_of(entry) & kSlotAsync) != 0) return ring(latched, slot_index);
  entry.wake.fetch_add(1, std::memory_order_release);  // pairs with W1
  wake(&entry.wake);
}

template <class P>
void Arena<P>::poke(const Latched& latched, uint32_t slot_index) {
  slot(slot_index).flags.fetch_or(kSlotEligible | kSlotPoked, std::memory_order_relaxed);
  tell(latched, slot_index);
}

template <class P>
void Arena<P>::put_on_doorbell(const Latched&, uint32_t slot_index) {
  Slot<P>& entry = slot(slot_index);
  Process<P>& there = process(owner_of(word_of(entry)));
  entry.flags.fetch_or(kSlotOnDoorbell, std::memory_order_relaxed);
  set(entry.poked_next, get(there.poked_head));
  set(there.poked_head, slot_index);
}

// Tells the process of the slot, through its doorbell, that there is something new about it.
template <class P>
void Arena<P>::ring(const Latched& latched, uint32_t slot_index) {
  Slot<P>& entry = slot(slot_index);
  const uint32_t owner = owner_of(word_of(entry));
  if (owner == self_ && owner != 0) {
    set(process(owner).seldom, 0);  // Q3: it is told by ourselves, and does not take it off its doorbell
    poked_here_.push_back(slot_index);
    return;
  }
  Process<P>& there = process(owner);
  if (fault_) return;
  if ((flags_of(entry) & kSlotOnDoorbell) == 0) put_on_doorbell(latched, slot_index);
  // Also for one that is there already: whoever put it there may have died before the bell rang.
  there.doorbell.fetch_add(1, std::memory_order_release);
  wake(&there.doorbell);
}

// After a death: whoever was poked, and has not reacted, may not have been woken. Not only the front: one that was skipped
// and came back may have taken its place at the front again.
template <class P>
void Arena<P>::poke_again(const Latched& latched, uint32_t lock_index) {
  each_slot(lock(lock_index).queue_head, kByQueue, [&](uint32_t index, Slot<P>& waiter) {
    if ((flags_of(waiter) & kSlotPoked) != 0) tell(latched, index);
    return true;
  });
  poke_front(latched, lock_index);
}

template <class P>
void Arena<P>::poke_front(const Latched& latched, uint32_t lock_index, bool first_alone) {
  Lock<P>& entry = lock(lock_index);
  uint32_t last = 0;  // of the front
  add(entry.pokes, 1);
  entry.gate.fetch_or(kGatePoked, std::memory_order_seq_cst);
  each_slot(entry.queue_head, kByQueue, [&](uint32_t index, Slot<P>& waiter) {
    const uint32_t flags = flags_of(waiter);
    if ((flags & kSlotPassedOver) != 0) return true;
    const bool shared = (flags & kSlotExclusive) == 0;
    if (last != 0 && !shared) return false;
    last = index;
    poke(latched, index);
    return shared && !first_alone;
  });
  // Nobody was told, so nobody is going to take it back.
  if (last == 0) entry.gate.fetch_and(~kGatePoked, std::memory_order_seq_cst);
  if (last != 0) ring_behind(latched, lock_index, last);
}

// Q2, Q4. `last` is the last one that was poked: behind it are those that look whether it reacts.
template <class P>
void Arena<P>::ring_behind(const Latched& latched, uint32_t lock_index, uint32_t last) {
  Lock<P>& entry = lock(lock_index);
  // seq_cst, after POKED, because: announce_quiet() is the other way round.
  uint32_t announced = entry.unwatched.load(std::memory_order_seq_cst);
  if (announced == 0) return;
  uint32_t owners[kLookBehindMax + 1] = {owner_of(word_of(slot(last)))};
  uint32_t met = 1;
  uint32_t looked = 0;
  uint32_t watchers = 0;
  bool any_seldom = false;
  each_slot(slot(last).queue_next, kByQueue, [&](uint32_t index, Slot<P>& waiter) {
    if (looked++ == kLookBehindMax || watchers == kWatchersMax) {
      any_seldom = true;  // for all we know
      return false;
    }
    const uint64_t word = word_of(waiter);
    const uint32_t owner = owner_of(word);
    if ((flags_of(waiter) & kSlotPassedOver) != 0 || is_left(word) ||
        std::find(owners, owners + met, owner) != owners + met)
      return true;
    owners[met++] = owner;
    Process<P>& there = process(owner);
    // Who waits synchronously has ticks of its own.
    if ((flags_of(waiter) & kSlotAsync) == 0 || there.seldom.load(std::memory_order_seq_cst) == 0) {
      watchers++;
      return true;
    }
    any_seldom = true;
    watchers += get(there.poked_head) == 0;
    ring(latched, index);
    return true;
  });
  if (!any_seldom) entry.unwatched.compare_exchange_strong(announced, 0, std::memory_order_seq_cst);
}

// Many shared waiters are poked together; the first to react must not make each release poke the others once more. As
// long as the waiter that is now first has not reacted, its poke is still under way. It takes kSlotPoked away before it
// takes POKED away (react), we set POKED before we look at kSlotPoked, all seq_cst: so either it comes to take POKED back
// itself, or we find that it has begun to react. Then whoever released in between has seen POKED, and poked nobody: we do.
template <class P>
void Arena<P>::keep_poked(const Latched& latched, uint32_t lock_index, const Slot<P>& next) {
  if ((next.flags.load(std::memory_order_seq_cst) & kSlotPoked) == 0) return;
  lock(lock_index).gate.fetch_or(kGatePoked, std::memory_order_seq_cst);
  if ((next.flags.load(std::memory_order_seq_cst) & kSlotPoked) == 0) poke_front(latched, lock_index);
}

// For the owner of the doorbell: takes the poked slots off the stack.
template <class P>
Status Arena<P>::take_poked(std::vector<uint32_t>* slots) {
  Latched latched(*this);
  if (!ok(latched.status())) return latched.status();
  Process<P>& own = process(self_);
  uint32_t left = used(slots_);
  for (uint32_t index = get(own.poked_head); index != 0 && !fault_; left--) {
    Slot<P>& entry = slot(index);
    const uint32_t next = get(entry.poked_next);
    if (left == 0) fault_ = true;  // more than there are
    if (fault_) break;
    entry.flags.fetch_and(~kSlotOnDoorbell, std::memory_order_relaxed);
    slots->push_back(index);
    index = next;
  }
  if (!slots->empty()) set(own.seldom, 0);  // Q3
  set(own.poked_head, 0);
  return latched.status();
}

// ---- waiters that do not react

// Was a waiter poked so long ago that it ought to have reacted? Needs no latch.
template <class P>
bool Arena<P>::is_overdue(uint32_t lock_index, PokeSeen* seen) const {
  const Lock<P>* found = find(locks_, lock_index);
  if (found == nullptr) return true;  // open_barrier_if_overdue() says what that means
  const Lock<P>& entry = *found;
  if (!is_poked(entry.gate.load(std::memory_order_relaxed))) return false;
  const uint32_t pokes = get(entry.pokes);
  const uint64_t now = P::monotonic_ns();
  if (pokes != seen->pokes || seen->since_ns == 0) {
    *seen = {pokes, now};
    return false;
  }
  return now - seen->since_ns >= kUnresponsiveNs;
}

// The waiters that were poked, and with them all asynchronous waits of their threads: a busy event loop serves none of them.
// If not even the process has reacted, which has taken nothing off its doorbell, or has a thread that sleeps in a wait and
// does not wake up, it is stopped, and all its waits are passed over.
template <class P>
void Arena<P>::pass_over(const Latched& latched, uint32_t lock_index) {
  struct Slow {
    uint32_t process, thread;
    bool whole;
    bool covers(uint32_t of, uint32_t by, bool async) const {
      return process == of && (whole || (async && thread == by));
    }
  };
  std::vector<Slow> slow;
  const auto is_slow = [&](const Slot<P>& waiter, uint32_t flags) {
    const uint32_t owner = owner_of(word_of(waiter));
    const uint32_t thread = get(waiter.thread);
    return std::any_of(slow.begin(), slow.end(),
                       [&](const Slow& one) { return one.covers(owner, thread, (flags & kSlotAsync) != 0); });
  };
  Lock<P>& entry = lock(lock_index);
  each_slot(entry.queue_head, kByQueue, [&](uint32_t, Slot<P>& waiter) {
    uint32_t flags = flags_of(waiter);
    // Passed over before: the front is behind it, eligible or not.
    if ((flags & kSlotPassedOver) != 0) return true;
    // Only together with POKED, in one step: its reaction takes POKED away, and with it learns that it was skipped. A
    // waiter that was skipped after it reacted would sleep, and nobody would poke it.
    while ((flags & kSlotPoked) != 0 &&
           !waiter.flags.compare_exchange_weak(flags, flags | kSlotSkipped, std::memory_order_relaxed)) {
    }
    if ((flags & kSlotPoked) != 0) {
      const bool whole = (flags & kSlotAsync) == 0 || (flags & kSlotOnDoorbell) != 0;
      const Slow one = {owner_of(word_of(waiter)), get(waiter.thread), whole};
      const bool known = std::any_of(slow.begin(), slow.end(), [&](const Slow& other) {
        return other.process == one.process && (other.whole || (!whole && other.thread == one.thread));
      });
      if (!known) slow.push_back(one);
    }
    return (flags & kSlotEligible) != 0 && slow.size() < kLookProcessesMax;
  });
  if (slow.empty()) return;
  each_slot(entry.queue_head, kByQueue, [&](uint32_t index, Slot<P>& waiter) {
    const uint32_t flags = flags_of(waiter);
    if ((flags & kSlotPassedOver) != 0 || !is_slow(waiter, flags)) return true;
    // Whatever it reacts to meanwhile, it is told once more after this, and comes back.
    waiter.flags.fetch_or(kSlotSkipped | kSlotPoked, std::memory_order_relaxed);
    tell(latched, index);
    return true;
  });
}

// Passes over the waiters that were poked and do not react, and pokes those behind them.
template <class P>
Status Arena<P>::open_barrier_if_overdue(uint32_t lock_index, PokeSeen* seen) {
  if (find(locks_, lock_index) == nullptr) return condemn();
  if (!is_overdue(lock_index, seen)) return Status::kOk;
  Latched latched(*this);
  if (!ok(latched.status()) || !is_overdue(lock_index, seen)) return latched.status();
  pass_over(latched, lock_index);
  front_changed(latched, lock_index);
  poke_front(latched, lock_index);
  return latched.status();
}

// A waiter that was passed over has reacted: it counts again. If its event loop has, so do the other asynchronous waits of its
// thread, or they would be granted in the order in which they happen to react. SKIPPED and POKED go together: one that is
// poked, and may not try, would be taken for one that is going to. `flags` are its own after that.
template <class P>
Status Arena<P>::come_back(const SlotRef& ref, uint32_t* flags) {
  Latched latched(*this);
  if (!ok(latched.status())) return latched.status();
  const auto is_back = [&, thread = get(ref.slot->thread)](const Slot<P>& waiter) {
    constexpr uint32_t kBack = kSlotSkipped | kSlotAsync;
    return (flags_of(waiter) & kBack) == kBack && owner_of(word_of(waiter)) == self_ &&
           get(waiter.thread) == thread;
  };
  constexpr uint32_t kGone = ~(kSlotSkipped | kSlotPoked);
  const uint32_t own = ref.slot->flags.fetch_and(kGone, std::memory_order_seq_cst);
  if ((own & kSlotAsync) != 0) {
    each_slot(ref.lock->queue_head, kByQueue, [&](uint32_t, Slot<P>& waiter) {
      if (is_back(waiter)) waiter.flags.fetch_and(kGone, std::memory_order_seq_cst);
      return true;
    });
  }
  front_changed(latched, ref.lock_index);
  poke_front(latched, ref.lock_index);
  *flags = ref.slot->flags.fetch_and(~kSlotPoked, std::memory_order_seq_cst);
  return latched.status();
}

// Has nothing happened to the queue for so long, by this watcher's clock, and is nothing under way? Needs no latch.
template <class P>
bool Arena<P>::is_quiet(uint32_t lock_index, PokeSeen* seen, uint64_t for_ns) const {
  const Lock<P>* entry = find(locks_, lock_index);
  if (entry == nullptr) return false;
  const uint32_t pokes = get(entry->pokes);
  const uint64_t now = P::monotonic_ns();
  if (pokes != seen->pokes || seen->since_ns == 0) *seen = {pokes, now};
  return !is_poked(entry->gate.load(std::memory_order_seq_cst)) && now - seen->since_ns >= for_ns;
}

// Q1. From now on this process looks seldom, if is_quiet() still says so after this. seq_cst on all, because: either the next
// poke finds this, or the watcher finds POKED.
template <class P>
void Arena<P>::announce_quiet(uint32_t lock_index) {
  Process<P>* own = entry_of(self_);
  Lock<P>* entry = find(locks_, lock_index);
  if (own == nullptr || entry == nullptr) return;
  own->seldom.store(1, std::memory_order_seq_cst);
  if (entry->unwatched.fetch_add(1, std::memory_order_seq_cst) + 1 == 0)
    entry->unwatched.fetch_add(1, std::memory_order_seq_cst);
}

}  // namespace proclock
