// Waits. What a waiter does is in core/queue.h and core/wait.h; here it is done on the right thread, at the right time.
#pragma once

#include "client_cycles.h"

namespace proclock {

inline int spin_rounds(Spinning& spinning, bool can_spin) { return can_spin ? spinning.rounds() : 0; }

template <class P>
void pause_briefly() {
  for (int i = 0; i < kSpinPauses; i++) P::pause();
}

template <class P>
int32_t Client<P>::spin(uint32_t key, OpenLock& lock) {
  constexpr int32_t kBusy = static_cast<int32_t>(Status::kBusy);
  int32_t got = kBusy;
  for (int rounds = spin_rounds(lock.newcomer, P::can_spin()); rounds > 0 && got == kBusy; rounds--) {
    pause_briefly<P>();
    got = try_acquire(key);
  }
  lock.newcomer.ended(got >= 0);
  return got;
}

// Known to this process before it is in the queue: it may be poked at once. A synchronous wait has a wake word of its own, all
// others are told through the doorbell.
template <class P>
void Client<P>::begin_wait(uint32_t index, Hold& hold) {
  Space<P>& space = *hold.lock->space;
  space.add_wait(hold.lock->index);
  if (hold.state == State::kWaiting) return;
  async_waits_++;
  space.add_async(hold.ref.slot_index, this, index);
  if (space.is_to_be_told() || !runtime_.is_served()) report_->unserved = !runtime_.attend();
}

template <class P>
void Client<P>::end_wait(Hold& hold) {
  hold.lock->space->remove_wait(hold.lock->index);
  if (hold.state == State::kWaiting) return;
  if (!hold.listens) hold.lock->space->remove_async(hold.ref.slot_index);
  async_waits_--;
}

template <class P>
int32_t Client<P>::enqueue(uint32_t key, uint32_t how) {
  const bool async = (how & kAsync) != 0;
  report_->granted = 0;
  OpenLock* lock = open_lock_at(key >> kKeyBits);
  if (lock == nullptr) return static_cast<int32_t>(Status::kClosed);
  if (!async) {
    const int32_t got = spin(key, *lock);
    report_->granted = got >= 0;
    if (got != static_cast<int32_t>(Status::kBusy)) return got;
  }
  // Who blocks its thread anyway may wait for a stalled latch as long as for the lock: for a slot as well as for a place in the
  // queue, since its caller comes again at once, and would spin for as long as the latch is stalled.
  const auto patience_ns = [&] { return async ? Patience::until_ns() : P::monotonic_ns() + kTickNs; };
  uint32_t index = 0;
  Status status = Status::kOk;
  {
    const Patience patience(patience_ns());
    status = take_idle(key >> kKeyBits, *lock, &index);
  }
  if (!ok(status)) return static_cast<int32_t>(status);
  lock->idle.pop_back();
  Hold& hold = holds_[index];
  hold.mode = static_cast<Mode>(key & kKeyExclusive);
  hold.state = async ? State::kWaitingAsync : State::kWaiting;
  hold.cycle = {};
  begin_wait(index, hold);
  // Once more, now that we would be told: the namespace may have gone before.
  status = lock->space->state();
  if (!ok(status)) {
    end_wait(hold);
    give_idle(index, hold);
    return static_cast<int32_t>(status);
  }
  const uint32_t flags = (async ? kSlotAsync : 0) | ((key & kKeyFair) != 0 ? kSlotFair : 0) |
                         ((how & kEnds) != 0 ? kSlotEnds : 0) | ((how & kThrows) != 0 ? kSlotThrows : 0);
  const Entered entered(*this);
  {
    const Patience patience(patience_ns());
    status = lock->space->arena().enqueue(hold.ref, hold.mode, flags);
  }
  if (status == Status::kStalled) {  // not queued: the caller comes again
    end_wait(hold);
    give_idle(index, hold);
    return static_cast<int32_t>(status);
  }
  if (ok(status)) {
    status = react(index, async ? 0 : spin_rounds(lock->front, P::can_spin()));
    if (!async) lock->front.ended(ok(status));
  }
  if (status == Status::kAgain) {
    if (!async && lock->space->is_to_be_told()) runtime_.attend();
    return static_cast<int32_t>(index);
  }
  report_->granted = ok(status);
  if (waiting_at(index) != nullptr) withdraw(index);  // the queue was found corrupt
  return ok(status) ? static_cast<int32_t>(index) : static_cast<int32_t>(status);
}

template <class P>
Status Client<P>::react(uint32_t index, int spin_rounds) {
  Hold* hold = waiting_at(index);
  if (hold == nullptr) return Status::kNotHeld;
  Space<P>& space = *hold->lock->space;
  Status status = space.state();
  const Entered entered(*this);
  uint64_t token = 0;
  Try tried = Try::kBusy;
  for (int round = 0; ok(status) && tried == Try::kBusy && round < spin_rounds; round++) {
    if (round > 0) pause_briefly<P>();
    tried = space.arena().try_front(hold->ref, hold->mode, &token);
  }
  if (ok(status) && tried != Try::kAcquired) status = space.arena().react(hold->ref, hold->mode, &token);
  const Status settled = ok(status) ? space.arena().settle_grant(hold->ref) : Status::kOk;
  if (status == Status::kStalled) {
    owe(index, kReact);
    status = Status::kAgain;
  }
  if (status == Status::kAgain) {
    tell(*hold);
    return status;
  }
  if (!ok(status)) {
    if (status == Status::kCorrupt) space.arena().condemn();
    withdraw(index);
    return status;
  }
  end_wait(*hold);
  if (settled == Status::kStalled) owe(index, kSettleGrant);
  return granted(index, *hold, token);
}

// One slice of a synchronous wait, at most a tick long: JavaScript regains control in between, so that a worker that is
// terminated while it waits can end. kAgain: nothing was decided.
template <class P>
Status Client<P>::wait(uint32_t index, double timeout_ms) {
  const uint64_t slice_ns =
      timeout_ms * 1e6 < static_cast<double>(kTickNs) ? static_cast<uint64_t>(timeout_ms * 1e6) : kTickNs;
  const uint64_t deadline = P::monotonic_ns() + slice_ns;
  int spin_rounds = 0;
  for (;;) {
    Hold* hold = hold_at(index, State::kWaiting);
    if (hold == nullptr) return Status::kNotHeld;
    // W1. acquire: pairs with the poke.
    const uint32_t seen = hold->ref.slot->wake.load(std::memory_order_acquire);
    const Status status = react(index, spin_rounds);
    if (status != Status::kAgain || report_->told != 0) return status;
    if (P::monotonic_ns() >= deadline) {
      const Entered entered(*this);
      if (!owed_.empty()) settle_owed();
      if (ok(hold->lock->space->check_now(P::wall_ms()))) tick(*hold->lock);
      return Status::kAgain;
    }
    P::wait(&hold->ref.slot->wake, seen, deadline);
    // Whoever overtook us runs, and is done with it soon, if it is as short as most.
    const bool woken = hold->ref.slot->wake.load(std::memory_order_relaxed) != seen;
    spin_rounds = woken && P::can_spin() ? kSpinRounds : 0;
  }
}

template <class P>
Status Client<P>::react(uint32_t index) {
  Hold* upgrading = upgrading_at(index);
  return upgrading != nullptr ? react_upgrade(index, *upgrading) : react(index, 0);
}

template <class P>
int32_t Client<P>::next_ready(Status* tried) {
  uint32_t index = 0;
  {
    const Locked locked(ready_mutex_);
    const bool any = ready_taken_ < ready_.size();
    if (any) index = ready_[ready_taken_++];
    if (ready_taken_ == ready_.size()) {
      ready_.clear();
      ready_taken_ = 0;
    }
    notified_ = false;
    report_->ready = !ready_.empty();
    if (!any) return -1;
  }
  *tried = react(index);
  return static_cast<int32_t>(index);
}

template <class P>
Status Client<P>::withdraw(uint32_t index) {
  Hold* hold = upgrading_at(index);
  if (hold != nullptr) {
    withdraw_upgrade(index, *hold);
    return Status::kOk;
  }
  hold = waiting_at(index);
  if (hold == nullptr) return Status::kNotHeld;
  end_wait(*hold);
  Status status = Status::kOk;
  const Entered entered(*this);
  if (hold->lock->space->state() != Status::kClosed) status = hold->lock->space->arena().withdraw(hold->ref);
  waive(index, kReact);
  end_hold(index, *hold, status == Status::kStalled ? kWithdraw : 0);
  return Status::kOk;
}

}  // namespace proclock
