// Opening and closing, the slots that a lock has ready, what is owed, and the end of the thread.
#pragma once

#include "client.h"

namespace proclock {

template <class P>
Client<P>::Client(Runtime<P>& runtime, uint32_t thread, Report* report, Notify notify, void* data)
    : next_of_thread_(first_of_thread_),
      runtime_(runtime),
      thread_(thread),
      os_thread_(P::thread_id()),
      report_(report),
      notify_(notify),
      data_(data) {
  first_of_thread_ = this;
}

// All slots are marked as left (E1 to E3 in protocol.h), which waits for nobody. Then they are recovered, one entry into the
// latch for each namespace and one deadline for all; what could not be done by then others do.
template <class P>
Client<P>::~Client() {
  Client** link = &first_of_thread_;
  while (*link != this) link = &(*link)->next_of_thread_;
  *link = next_of_thread_;
  report_ = &own_report_;  // JavaScript's memory may be gone already
  std::vector<Space<P>*> left;
  for (Hold& hold : holds_) {
    if (hold.state == State::kFree) continue;
    Space<P>& space = *hold.lock->space;
    const bool waits = hold.state == State::kWaiting || hold.state == State::kWaitingAsync;
    if (waits || hold.upgrading) end_wait(hold);
    if (hold.listens) space.remove_async(hold.ref.slot_index);
    if (space.state() == Status::kClosed) continue;
    space.arena().leave(hold.ref);
    if (std::find(left.begin(), left.end(), &space) == left.end()) left.push_back(&space);
  }
  const Patience patience(P::monotonic_ns() + Arena<P>::kPatienceNs);
  for (Space<P>* space : left) {
    Arena<P>& arena = space->arena();
    patiently(arena, [&] { return arena.recover_left(); });
  }
  for (const auto& lock : locks_) {
    if (lock != nullptr) runtime_.exit(lock->space);
  }
}

template <class P>
Status Client<P>::open_lock(const std::string& space, int64_t group, const Name& name, uint32_t* id,
                            OpenFailure* failure, Opening opening) {
  auto lock = std::make_unique<OpenLock>();
  Status status = runtime_.enter(space, group, &lock->space, failure, opening);
  if (!ok(status)) return status;
  SlotRef ref;
  const Entered entered(*this);
  Arena<P>& arena = lock->space->arena();
  status = patiently(arena, [&] { return arena.open_lock(name, thread_, &ref); });
  report_->marks_dropped = static_cast<int32_t>(arena.marks_dropped());
  if (!ok(status)) {
    runtime_.exit(lock->space);
    return status;
  }
  lock->index = ref.lock_index;
  if (free_locks_.empty()) {
    *id = static_cast<uint32_t>(locks_.size());
    locks_.emplace_back();
  } else {
    *id = free_locks_.back();
    free_locks_.pop_back();
  }
  locks_[*id] = std::move(lock);
  add_hold(*id, *locks_[*id], ref);
  return Status::kOk;
}

template <class P>
Status Client<P>::close_lock(uint32_t id) {
  OpenLock* lock = open_lock_at(id);
  if (lock == nullptr) return Status::kClosed;
  lock->closed = true;
  end_lock(id);
  return Status::kOk;
}

// Gives back what a closed lock no longer uses; the rest follows as its holds end.
template <class P>
void Client<P>::end_lock(uint32_t id) {
  OpenLock& lock = *locks_[id];
  bool left = false;
  for (const uint32_t index : lock.idle) {
    const Hold& hold = holds_[index];
    // What can not be given back now is left behind, for whoever gets the latch next.
    if (lock.space->state() != Status::kClosed &&
        (left || lock.space->arena().unbind(hold.ref) == Status::kStalled)) {
      lock.space->arena().leave(hold.ref);
      left = true;
    }
    holds_[index] = Hold();
    free_holds_.push_back(index);
    lock.slots--;
  }
  lock.idle.clear();
  if (lock.slots != 0) return;
  runtime_.exit(lock.space);
  locks_[id].reset();
  free_locks_.push_back(id);
}

template <class P>
void Client<P>::add_hold(uint32_t id, OpenLock& lock, const SlotRef& ref) {
  uint32_t index = static_cast<uint32_t>(holds_.size());
  if (free_holds_.empty()) {
    holds_.emplace_back();
  } else {
    index = free_holds_.back();
    free_holds_.pop_back();
  }
  Hold& hold = holds_[index];
  hold.ref = ref;
  hold.lock = &lock;
  hold.lock_id = id;
  hold.state = State::kIdle;
  lock.slots++;
  lock.idle.push_back(index);
}

// A bound slot for the next acquire; it stays on the idle list until that succeeds.
template <class P>
inline Status Client<P>::take_idle(uint32_t id, OpenLock& lock, uint32_t* index) {
  if (!ok(lock.space->state())) return lock.space->check_now(P::wall_ms());
  if (lock.idle.empty()) {
    const Status status = bind_idle(id, lock);
    if (!ok(status)) return status;
  }
  *index = lock.idle.back();
  return Status::kOk;
}

template <class P>
Status Client<P>::bind_idle(uint32_t id, OpenLock& lock) {
  SlotRef ref;
  const Entered entered(*this);
  const Status status = lock.space->arena().bind(lock.index, thread_, &ref);
  if (ok(status)) add_hold(id, lock, ref);
  return status;
}

template <class P>
inline void Client<P>::give_idle(uint32_t index, Hold& hold) {
  OpenLock& lock = *hold.lock;
  const uint32_t id = hold.lock_id;
  hold.state = State::kIdle;
  lock.idle.push_back(index);
  if (lock.closed) return end_lock(id);
  if (lock.idle.size() > kIdleHoldsMax && ok(lock.space->state())) unbind_idle(index, hold);
}

template <class P>
void Client<P>::unbind_idle(uint32_t index, Hold& hold) {
  OpenLock& lock = *hold.lock;
  if (lock.space->arena().unbind(hold.ref) == Status::kStalled) return;
  lock.idle.pop_back();
  hold = Hold();
  free_holds_.push_back(index);
  lock.slots--;
}

// Its user is done with it; it is ready for the next one as soon as nothing is owed.
template <class P>
void Client<P>::end_hold(uint32_t index, Hold& hold, uint8_t owed) {
  if ((hold.owed | owed) == 0) return give_idle(index, hold);
  hold.state = State::kEnding;
  if (owed != 0) owe(index, owed);
}

// ---- what is owed

template <class P>
void Client<P>::owe(uint32_t index, uint8_t what) {
  if (holds_[index].owed == 0) owed_.push_back(index);
  holds_[index].owed = static_cast<uint8_t>(holds_[index].owed | what);
  report_->owed = static_cast<int32_t>(owed_.size());
  report_->ready = 1;
}

// It is not to be done any more: nothing that is not owed stays on the list, since the hold may be nobody's by the next time.
template <class P>
void Client<P>::waive(uint32_t index, uint8_t what) {
  Hold& hold = holds_[index];
  if ((hold.owed & what) == 0) return;
  hold.owed = static_cast<uint8_t>(hold.owed & ~what);
  if (hold.owed != 0) return;
  owed_.erase(std::remove(owed_.begin(), owed_.end(), index), owed_.end());
  report_->owed = static_cast<int32_t>(owed_.size());
}

// One hold's part of settle_owed(), in the order in which it came to be owed.
template <class P>
Status Client<P>::settle(uint32_t index) {
  Hold& hold = holds_[index];
  Arena<P>& arena = hold.lock->space->arena();
  Status status = Status::kOk;
  const auto pay = [&](uint8_t what, auto call) {
    if ((hold.owed & what) == 0 || status == Status::kStalled) return;
    status = call();
    if (status != Status::kStalled) hold.owed = static_cast<uint8_t>(hold.owed & ~what);
  };
  pay(kSettleGrant, [&] { return arena.settle_grant(hold.ref); });
  pay(kReleaseDuty, [&] { return arena.release_duty(hold.ref); });
  pay(kWithdraw, [&] { return arena.withdraw(hold.ref); });
  pay(kReact, [&] {
    if (hold.state == State::kWaitingAsync || hold.upgrading) notify_ready(index);
    return Status::kOk;
  });
  if (hold.owed == 0 && hold.state == State::kEnding) give_idle(index, hold);
  return status;
}

// A namespace that is stalled is not asked again in this round, and holds up no other one.
template <class P>
uint32_t Client<P>::settle_owed() {
  const Entered entered(*this);
  std::vector<uint32_t> owed;
  owed.swap(owed_);
  std::vector<const Space<P>*> stalled;
  for (const uint32_t index : owed) {
    const Space<P>* space = holds_[index].lock->space.get();
    if (space->state() != Status::kClosed &&
        std::find(stalled.begin(), stalled.end(), space) == stalled.end() &&
        settle(index) == Status::kStalled) {
      stalled.push_back(space);
    }
    if (holds_[index].owed != 0) owed_.push_back(index);
  }
  report_->owed = static_cast<int32_t>(owed_.size());
  return static_cast<uint32_t>(owed_.size());
}

template <class P>
bool Client<P>::serve() {
  const Entered entered(*this);
  const bool done = runtime_.serve();
  report_->unserved = !done;
  return done;
}

}  // namespace proclock
