// Acquire without a wait, release, and all that is done to a hold.
#pragma once

#include "client_locks.h"

namespace proclock {

template <class P>
void Client<P>::report_token(uint64_t token) {
  report_->token_low = static_cast<int32_t>(token);
  report_->token_high = static_cast<int32_t>(token >> 32);
}

template <class P>
void Client<P>::fill_report(const Hold& hold, uint64_t token) {
  report_token(token);
  report_->abandoned = is_abandoned(hold.ref.lock->abandoned.load(std::memory_order_relaxed)) ? 1 : 0;
}

// The slot holds. Only now and then it is asked whether the segment still has its name.
template <class P>
inline Status Client<P>::granted(uint32_t index, Hold& hold, uint64_t token) {
  hold.state = State::kHeld;
  hold.lock->held++;
  fill_report(hold, token);
  const Status state =
      hold.lock->space->check(double_of(hold.ref.slot->since.load(std::memory_order_relaxed)));
  if (!ok(state)) release(index);
  return state;
}

template <class P>
int32_t Client<P>::try_acquire(uint32_t key) {
  OpenLock* lock = open_lock_at(key >> kKeyBits);
  if (lock == nullptr) return static_cast<int32_t>(Status::kClosed);
  uint32_t index = 0;
  Status status = take_idle(key >> kKeyBits, *lock, &index);
  if (status == Status::kStalled) status = Status::kBusy;
  if (!ok(status)) return static_cast<int32_t>(status);
  Hold& hold = holds_[index];
  hold.mode = static_cast<Mode>(key & kKeyExclusive);
  const Turn turn = (key & kKeyFair) != 0 ? Turn::kInOrder : Turn::kMayOvertake;
  Arena<P>& arena = lock->space->arena();
  uint64_t token = 0;
  const Entered entered(*this);
  Try tried = arena.try_acquire(hold.ref, hold.mode, turn, &token);
  for (int tries = 0; tried == Try::kRecovering && ok(status) && tries < Arena<P>::kTriesMax; tries++) {
    status = arena.finish_recovery(lock->index);
    if (ok(status)) tried = arena.try_acquire(hold.ref, hold.mode, turn, &token);
  }
  if (tried == Try::kAcquired) {
    lock->idle.pop_back();
    status = granted(index, hold, token);
    return ok(status) ? static_cast<int32_t>(index) : static_cast<int32_t>(status);
  }
  if (tried == Try::kOwing) {
    lock->idle.pop_back();
    hold.state = State::kEnding;
    owe(index, kReleaseDuty);
  }
  if (tried == Try::kCorrupt) return static_cast<int32_t>(arena.condemn());
  if (ok(status) || status == Status::kStalled) status = Status::kBusy;
  return static_cast<int32_t>(status);
}

template <class P>
int32_t Client<P>::steal(uint32_t key) {
  OpenLock* lock = open_lock_at(key >> kKeyBits);
  if (lock == nullptr) return static_cast<int32_t>(Status::kClosed);
  uint32_t index = 0;
  Status status = take_idle(key >> kKeyBits, *lock, &index);
  if (!ok(status)) return static_cast<int32_t>(status);
  Hold& hold = holds_[index];
  uint64_t token = 0;
  const Entered entered(*this);
  status = lock->space->arena().steal(hold.ref, &token);
  if (ok(status)) {
    lock->idle.pop_back();
    hold.mode = Mode::kExclusive;
    status = granted(index, hold, token);
  }
  return ok(status) ? static_cast<int32_t>(index) : static_cast<int32_t>(status);
}

template <class P>
Status Client<P>::listen(uint32_t index) {
  Hold* hold = hold_at(index, State::kHeld);
  if (hold == nullptr) return Status::kNotHeld;
  Space<P>& space = *hold->lock->space;
  hold->listens = true;
  space.add_async(hold->ref.slot_index, this, index);
  space.keep_listening();
  report_->unserved = !runtime_.attend();
  // After it was made known: a thief that came before did not find us.
  return check_hold(index);
}

template <class P>
Status Client<P>::check_hold(uint32_t index) {
  Hold* hold = hold_at(index, State::kHeld);
  if (hold == nullptr) return Status::kNotHeld;
  const Status state = hold->lock->space->state();
  return state == Status::kClosed ? state : hold->lock->space->arena().check_hold(hold->ref);
}

template <class P>
Status Client<P>::release(uint32_t index) {
  Hold* hold = hold_at(index, State::kHeld);
  if (hold == nullptr) return Status::kNotHeld;
  if (hold->upgrading) withdraw_upgrade(index, *hold);
  hold->lock->held--;
  if (hold->listens) {
    hold->lock->space->remove_async(hold->ref.slot_index);
    hold->listens = false;
  }
  if (hold->lock->space->state() == Status::kClosed) {
    give_idle(index, *hold);
    return Status::kClosed;
  }
  const Entered entered(*this);
  const Status status = hold->lock->space->arena().release(hold->ref);
  end_hold(index, *hold, status == Status::kStalled ? kReleaseDuty : 0);
  return status == Status::kStalled ? Status::kOk : status;
}

template <class P>
Status Client<P>::downgrade(uint32_t index) {
  Hold* hold = hold_at(index, State::kHeld);
  if (hold == nullptr) return Status::kNotHeld;
  if (hold->lock->space->state() == Status::kClosed) return Status::kClosed;
  const Entered entered(*this);
  Arena<P>& arena = hold->lock->space->arena();
  const Status status = patiently(arena, [&] { return arena.downgrade(hold->ref); });
  if (ok(status)) hold->mode = Mode::kShared;
  return status;
}

template <class P>
Status Client<P>::abandoned(uint32_t index, AbandonedInfo* info) const {
  if (index >= holds_.size() || holds_[index].state != State::kHeld) return Status::kNotHeld;
  if (holds_[index].lock->space->state() == Status::kClosed) return Status::kClosed;
  *info = holds_[index].lock->space->arena().abandoned(holds_[index].ref);
  return Status::kOk;
}

template <class P>
Status Client<P>::finish(uint32_t index, Finished what) {
  Hold* hold = hold_at(index, State::kHeld);
  if (hold == nullptr) return Status::kNotHeld;
  if (hold->lock->space->state() == Status::kClosed) return Status::kClosed;
  const Entered entered(*this);
  Arena<P>& arena = hold->lock->space->arena();
  return patiently(arena, [&] { return arena.finish(hold->ref, what); });
}

template <class P>
Status Client<P>::last_token(uint32_t id) {
  const OpenLock* lock = open_lock_at(id);
  if (lock == nullptr || lock->space->state() == Status::kClosed) return Status::kClosed;
  report_token(lock->space->arena().last_token(lock->index));
  return Status::kOk;
}

template <class P>
int32_t Client<P>::flights(uint32_t id) {
  const OpenLock* lock = open_lock_at(id);
  if (lock == nullptr || lock->space->state() == Status::kClosed)
    return static_cast<int32_t>(Status::kClosed);
  return static_cast<int32_t>(lock->space->arena().flights(lock->index));
}

// ---- what others do

template <class P>
Status Client<P>::check(uint32_t id) {
  OpenLock* lock = open_lock_at(id);
  return lock == nullptr ? Status::kClosed : lock->space->check_now(P::wall_ms());
}

// What the native thread does for those that wait: by a thread that is here anyway, and for its own lock.
template <class P>
void Client<P>::tick(OpenLock& lock) {
  Arena<P>& arena = lock.space->arena();
  arena.open_barrier_if_overdue(lock.index, &lock.seen);
  if (arena.want(lock.index, &lock.want_from, &lock.owed)) arena.poke_owed(lock.index);
  arena.tick(&lock.scan);
}

template <class P>
Status Client<P>::look(uint32_t id) {
  OpenLock* lock = open_lock_at(id);
  if (lock == nullptr || lock->space->state() == Status::kClosed) return Status::kClosed;
  const Entered entered(*this);
  // What we owe ourselves may be what keeps us out.
  if (!owed_.empty()) settle_owed();
  const double now_ms = P::wall_ms();
  if (now_ms - lock->looked_ms >= kTickNs / 1e6 || now_ms < lock->looked_ms) {
    lock->looked_ms = now_ms;
    tick(*lock);
  }
  const Status status = lock->space->arena().look(lock->index);
  return status == Status::kStalled ? Status::kOk : status;
}

template <class P>
Status Client<P>::query(uint32_t id, bool whole, std::vector<HolderInfo>* infos) {
  OpenLock* lock = open_lock_at(id);
  if (lock == nullptr) return Status::kClosed;
  const Status state = lock->space->check_now(P::wall_ms());
  if (!ok(state)) return state;
  const Entered entered(*this);
  Arena<P>& arena = lock->space->arena();
  const auto look = [&] { return arena.snapshot(lock->index, infos, whole); };
  return whole ? patiently(arena, look) : look();
}

template <class P>
Status Client<P>::query_all(uint32_t id, std::vector<HolderInfo>* infos,
                            std::unordered_map<uint32_t, LockName>* names) {
  OpenLock* lock = open_lock_at(id);
  if (lock == nullptr) return Status::kClosed;
  const Status state = lock->space->check_now(P::wall_ms());
  if (!ok(state)) return state;
  const Entered entered(*this);
  Arena<P>& arena = lock->space->arena();
  return patiently(arena, [&] { return arena.snapshot_all(infos, names); });
}

template <class P>
Status Client<P>::marks(uint32_t id, std::vector<MarkedLock>* marks) {
  OpenLock* lock = open_lock_at(id);
  if (lock == nullptr) return Status::kClosed;
  const Status state = lock->space->check_now(P::wall_ms());
  if (!ok(state)) return state;
  const Entered entered(*this);
  Arena<P>& arena = lock->space->arena();
  return patiently(arena, [&] { return arena.snapshot_marks(marks); });
}

template <class P>
int32_t Client<P>::place(uint32_t index) {
  const Hold* hold = waiting_at(index);
  if (hold == nullptr) return static_cast<int32_t>(Status::kNotHeld);
  const Status state = hold->lock->space->state();
  if (!ok(state)) return static_cast<int32_t>(state);
  const Entered entered(*this);
  uint32_t ahead = 0;
  const Status status = hold->lock->space->arena().place(hold->ref, &ahead);
  return ok(status) ? static_cast<int32_t>(ahead) : static_cast<int32_t>(status);
}

template <class P>
bool Client<P>::holds(const OpenLock& wanted) const {
  const auto is_wanted = [&](const OpenLock& open) {
    return open.held != 0 && open.index == wanted.index && open.space == wanted.space;
  };
  const bool had = std::any_of(locks_.begin(), locks_.end(),
                               [&](const auto& open) { return open != nullptr && is_wanted(*open); });
  // What was stolen is held no more.
  return had && std::any_of(holds_.begin(), holds_.end(), [&](const Hold& hold) {
           return hold.state == State::kHeld && is_wanted(*hold.lock) &&
                  wanted.space->state() != Status::kClosed && ok(wanted.space->arena().check_hold(hold.ref));
         });
}

template <class P>
bool Client<P>::held_by_thread(uint32_t id) {
  const OpenLock* lock = open_lock_at(id);
  if (lock == nullptr) return false;
  for (const Client* client = first_of_thread_; client != nullptr; client = client->next_of_thread_) {
    if (client->holds(*lock)) return true;
  }
  return false;
}

}  // namespace proclock
