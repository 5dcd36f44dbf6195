// What a thread does from its place in the queue to the grant, or until it gives up.
#pragma once

#include "sim_thread.h"

namespace sim {

inline bool Thread::wait(int n, const Request& request, uint64_t begun) {
  const SlotRef& ref = refs_[n];
  const uint64_t deadline =
      request.patience_ns == kForever ? kForever : the_machine.now_ns + request.patience_ns;
  const uint32_t flags =
      request.flags | (request.fair ? proclock::kSlotFair : 0) | (request.async ? proclock::kSlotAsync : 0);
  actor_->doing = request.mode == Mode::kExclusive ? "wait exclusive" : "wait shared";
  Status status = patiently([&] { return arena().enqueue(ref, request.mode, flags); });
  SIM_CHECK(ok(status) || status == Status::kAgain);
  the_world.waits(n, ref, request.mode, request.fair);
  if (request.twice) second_.begin(*this, n);
  uint64_t token = 0;
  bool told = ok(status);  // an asynchronous waiter reacts when it is told to
  uint64_t tick_ns = the_machine.now_ns + kTickNs;
  for (;;) {
    auto& bell = request.async ? *arena().doorbell() : ref.slot->wake;
    uint32_t seen = bell.load(std::memory_order_acquire);  // W1
    actor_->notified = false;
    if (request.async) {
      take_pokes();
      told = host_->was_told(ref.slot_index) || told;
      second_.serve(*this);
    }
    status = Status::kAgain;
    if (!request.async || told) {
      // As a synchronous waiter spins, if it belongs to the front.
      Try tried = Try::kBusy;
      for (uint32_t rounds = random.below(3); tried == Try::kBusy && rounds > 0; rounds--) {
        tried = arena().try_front(ref, request.mode, &token);
      }
      status = tried == Try::kAcquired ? Status::kOk : react(ref, request.mode, &token);
    }
    told = false;
    if (reads_wake_word_late) seen = bell.load(std::memory_order_acquire);
    if (ok(status)) break;
    SIM_CHECK(status == Status::kAgain);
    if (the_machine.now_ns >= deadline || (request.watcher != nullptr && request.watcher->ends(n))) {
      give_up(n, request.leaves);
      return false;
    }
    if (sleep_on(bell, seen, std::min(deadline, tick_ns)))
      tick_ns = std::min(tick_ns, the_machine.now_ns + kTickNs);
    actor_->doing = request.mode == Mode::kExclusive ? "wait exclusive" : "wait shared";
    if (the_machine.now_ns >= tick_ns) {
      const uint64_t period_ns = tick(n, request.async);
      tick_ns = the_machine.now_ns + (request.watcher != nullptr ? kTickNs : period_ns);
    }
  }
  // Before it settles: that another one reacts, and is in as well, needs nothing of us.
  the_world.waits_no_more(n);
  enter(n, request.mode, token, begun);
  owes_settle_ = arena().settle_grant(ref) == Status::kStalled;
  if (owes_settle_ && random.one_in(2)) {
    settle(n);
  }
  if (!owes_settle_) the_world.left(n);
  return true;
}

inline void Thread::give_up(int n, bool leaves) {
  the_world.waits_no_more(n);
  // Before the slot is given back: it may be another thread's by then.
  host_->was_told(refs_[n].slot_index);
  if (leaves) {
    leave(n);
  } else {
    actor_->doing = "withdraw";
    SIM_CHECK(patiently([&] { return arena().withdraw(refs_[n]); }) == Status::kOk);
  }
  the_world.left(n);
  the_world.counts.timeouts++;
}

inline bool Thread::upgrade(int n, uint64_t patience_ns) {
  const SlotRef& ref = refs_[n];
  if (owes_settle_) {
    settle(n);
    the_world.left(n);
  }
  actor_->doing = "upgrade";
  the_machine.begins();
  Truth& truth = the_world.truths[n];
  Truth::Hold& hold = truth.holds[actor_->id];
  hold.changes = true;
  // Who is refused is refused because of another one, which was there before, or came meanwhile.
  const uint64_t others = truth.upgrading++;
  const uint64_t begun = ++truth.upgrades_begun;
  uint64_t token = 0;
  Status status = patiently([&] { return arena().upgrade(ref, patience_ns != 0, &token); });
  if (status == Status::kAgain) {
    const uint64_t deadline = patience_ns == kForever ? kForever : the_machine.now_ns + patience_ns;
    status = wait_to_upgrade(n, deadline, &token);
  }
  hold.changes = false;
  truth.upgrading--;
  const bool alone = others == 0 && begun == truth.upgrades_begun;
  the_world.counts.upgrades_refused += status == Status::kUpgrading;
  SIM_CHECK(status != Status::kUpgrading || !alone || the_machine.deaths != 0 || the_world.anybody_left);
  SIM_CHECK(status != Status::kStolen || the_world.counts.steals != 0);
  SIM_CHECK(ok(status) || status == Status::kBusy || status == Status::kUpgrading ||
            status == Status::kStolen);
  if (!ok(status)) return false;
  enter(n, Mode::kExclusive, token, 0);
  the_world.counts.upgrades++;
  return true;
}

// As an event loop does it: tries again when it is told to. kBusy: the time is up.
inline Status Thread::wait_to_upgrade(int n, uint64_t deadline, uint64_t* token) {
  const SlotRef& ref = refs_[n];
  the_world.waits(n, ref, Mode::kExclusive, true);
  the_world.truths[n].waits[actor_->id].upgrades = true;
  Status status = Status::kAgain;
  uint64_t tick_ns = the_machine.now_ns + kTickNs;
  for (;;) {
    auto& bell = *arena().doorbell();
    const uint32_t seen = bell.load(std::memory_order_acquire);
    actor_->notified = false;
    take_pokes();
    if (host_->was_told(ref.slot_index))
      status = patiently([&] { return arena().upgrade(ref, true, token); });
    if (status != Status::kAgain) break;
    if (the_machine.now_ns >= deadline) {
      status = Status::kBusy;
      break;
    }
    if (sleep_on(bell, seen, std::min(deadline, tick_ns)))
      tick_ns = std::min(tick_ns, the_machine.now_ns + kTickNs);
    actor_->doing = "upgrade";
    if (the_machine.now_ns >= tick_ns) tick_ns = the_machine.now_ns + tick(n, true);
  }
  the_world.waits_no_more(n);
  if (!ok(status)) {
    host_->was_told(ref.slot_index);
    actor_->doing = "withdraw the upgrade";
    SIM_CHECK(patiently([&] { return arena().withdraw(ref); }) == Status::kOk);
  }
  the_world.left(n);
  return status;
}

// What a waiter does beside: passes over those that do not react, and looks for the dead in one of the two ways there are.
// The time until it does so again.
inline uint64_t Thread::tick(int n, bool async) {
  actor_->doing = "tick";
  const auto check = [](Status status) { SIM_CHECK(ok(status) || status == Status::kStalled); };
  const uint32_t lock = refs_[n].lock_index;
  proclock::PokeSeen& seen = seen_[n];
  check(arena().open_barrier_if_overdue(lock, &seen));
  if (takes_turns_) {
    arena().want(lock);
    check(arena().tick(&scan_));
  } else {
    check(arena().look(lock));
  }
  // Who waits synchronously ticks all the time, and so does who is told of no death.
  if (!async || the_world.slow_detection || !arena().is_quiet(lock, &seen, kQuietNs)) return kTickNs;
  arena().announce_quiet(lock);
  return arena().is_quiet(lock, &seen, kQuietNs) ? kSeldomTickNs : kTickNs;
}

// As the doorbell's thread does it.
inline void Thread::take_pokes() {
  std::vector<uint32_t> slots;
  SIM_CHECK(patiently([&] { return arena().take_poked(&slots); }) == Status::kOk);
  if (!slots.empty()) host_->poked(slots);
  actor_->notified = false;
}

// As the client's threads together: one sleeps on a word; a death is looked into by another, which does not wake it. True:
// something happened, and it was not the time that passed.
inline bool Thread::sleep_on(Platform::Atomic<uint32_t>& word, uint32_t seen, uint64_t until_ns) {
  Actor& self = *actor_;
  self.outside = true;
  the_machine.about_to_sleep();
  self.outside = false;
  the_machine.full_fence();
  the_machine.compared(&word, word.latest());
  self.listens_to = &word;
  self.woken = word.latest() != seen;
  the_world.serves[self.id] = &word == arena().doorbell();
  while (!self.woken && !self.notified && the_machine.now_ns < until_ns) {
    if (gone_seen_ == the_machine.gone || the_machine.plan().blind) {
      the_machine.sleep(&word, until_ns, true);
    } else {
      gone_seen_ = the_machine.gone;
      look_for_dead();
    }
  }
  self.listens_to = nullptr;
  the_world.serves[self.id] = false;
  the_machine.full_fence();
  return self.woken || self.notified;
}

}  // namespace sim
