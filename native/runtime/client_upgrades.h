// From shared to exclusive (core/upgrade.h). A hold that waits to be upgraded is held all the time, and a wait besides: it is
// ticked for, and becomes ready when it is poked.
#pragma once

#include "client_waits.h"

namespace proclock {

template <class P>
typename Client<P>::Hold* Client<P>::upgradable_at(uint32_t index) {
  Hold* hold = hold_at(index, State::kHeld);
  return hold != nullptr && !hold->upgrading && hold->mode == Mode::kShared ? hold : nullptr;
}

// At once or not at all: kBusy, if others hold as well.
template <class P>
Status Client<P>::try_upgrade(uint32_t index) {
  Hold* hold = upgradable_at(index);
  if (hold == nullptr) return Status::kNotHeld;
  const Status state = hold->lock->space->check(P::wall_ms());
  if (!ok(state)) return state;
  const Entered entered(*this);
  // It may have a place in the queue still: that of its grant, or of an upgrade that was given up.
  if (hold->owed != 0) settle_owed();
  if (hold->owed != 0) return Status::kStalled;
  uint64_t token = 0;
  const Status status = hold->lock->space->arena().upgrade(hold->ref, false, &token);
  return upgraded(*hold, status, token);
}

template <class P>
Status Client<P>::upgrade(uint32_t index) {
  const Status status = try_upgrade(index);
  if (status != Status::kBusy) return status;
  Hold& hold = holds_[index];
  hold.upgrading = true;
  hold.cycle = {};
  begin_wait(index, hold);
  return react_upgrade(index, hold);
}

template <class P>
Status Client<P>::react_upgrade(uint32_t index, Hold& hold) {
  Space<P>& space = *hold.lock->space;
  const Entered entered(*this);
  uint64_t token = 0;
  Status status = space.state();
  if (ok(status)) status = space.arena().upgrade(hold.ref, true, &token);
  if (status == Status::kStalled) {
    owe(index, kReact);
    status = Status::kAgain;
  }
  if (status == Status::kAgain) {
    tell(hold);
    return status;
  }
  if (ok(status)) {
    end_wait(hold);
    hold.upgrading = false;
  } else {
    withdraw_upgrade(index, hold);
  }
  return upgraded(hold, status, token);
}

template <class P>
Status Client<P>::upgraded(Hold& hold, Status status, uint64_t token) {
  if (!ok(status)) return status;
  hold.mode = Mode::kExclusive;
  fill_report(hold, token);
  return status;
}

// It goes on holding, shared; or what is left of it.
template <class P>
void Client<P>::withdraw_upgrade(uint32_t index, Hold& hold) {
  Space<P>& space = *hold.lock->space;
  end_wait(hold);
  hold.upgrading = false;
  waive(index, kReact);
  const Entered entered(*this);
  if (space.state() != Status::kClosed && space.arena().withdraw(hold.ref) == Status::kStalled)
    owe(index, kWithdraw);
}

}  // namespace proclock
