// What a JavaScript thread asks of its client: locks, waits, holds, and the end of the thread in the middle of all that.
#pragma once

#include "sim_runtime_loop.h"

namespace sim {

// False: it can not be opened now.
inline bool Loop::open(int lock) {
  if (opened_[lock] >= 0) return true;
  doing("open");
  const std::string text = World::name(lock);
  uint32_t id = 0;
  proclock::OpenFailure failure;
  const Status status = client_->open_lock(World::space_of(lock), -1, name_of(text), &id, &failure);
  SIM_CHECK(ok(status) || status == Status::kSystem || status == Status::kStalled);
  if (ok(status)) opened_[lock] = id;
  return ok(status);
}

inline void Loop::close(int lock) {
  const auto is_unqueued = [&](const Wait& wait) { return wait.lock == lock && wait.index < 0; };
  if (opened_[lock] < 0 || std::any_of(waits_.begin(), waits_.end(), is_unqueued)) return;
  client_->close_lock(static_cast<uint32_t>(opened_[lock]));
  opened_[lock] = -1;
  settle();
}

inline void Loop::request() {
  const int space = static_cast<int>(random_.below(static_cast<uint32_t>(habits_.namespaces)));
  const int lock = space * kNamesEach + static_cast<int>(random_.below(static_cast<uint32_t>(habits_.names)));
  if (!open(lock)) return;
  const Mode mode = odds(habits_.exclusive) ? Mode::kExclusive : Mode::kShared;
  const uint32_t key = static_cast<uint32_t>(opened_[lock]) << Client::kKeyBits |
                       (mode == Mode::kExclusive ? kExclusive : 0) |
                       (odds(habits_.fair) ? Client::kKeyFair : 0);
  the_machine.begins();
  if (odds(habits_.steal)) {
    request_async({-1, lock, key | kExclusive, kForever, true, false});
    return;
  }
  doing("try");
  const int32_t tried = client_->try_acquire(key);
  if (tried >= 0) {
    granted(static_cast<uint32_t>(tried), lock, mode);
  } else if (tried == static_cast<int32_t>(Status::kBusy)) {
    refused(lock, key, mode);
  } else {
    SIM_CHECK(tried == static_cast<int32_t>(Status::kStalled));
  }
  if (odds(habits_.closes)) close(lock);
  settle();
}

inline void Loop::refused(int lock, uint32_t key, Mode mode) {
  settle();
  const bool times_out = odds(habits_.timeout);
  if (!odds(habits_.waits)) {
    the_world.counts.refused++;
    if (odds(habits_.looks)) {
      doing("look");
      SIM_CHECK(ok(client_->look(static_cast<uint32_t>(opened_[lock]))));
    }
  } else if (odds(habits_.blocks)) {
    // Who blocks while it holds something may wait for somebody who waits for that.
    const bool for_ever = holds_.empty() && !times_out;
    request_sync(lock, key, mode, for_ever ? kForever : deadline());
  } else {
    request_async({-1, lock, key, times_out ? deadline() : kForever, false, false});
  }
}

inline void Loop::request_async(Wait wait) {
  if (enqueue(wait)) retry_later();
  if (!wait.ended) waits_.push_back(wait);
  settle();
}

// Wait.enqueue: does it have to come again?
inline bool Loop::enqueue(Wait& wait) {
  doing(wait.steals ? "steal" : "enqueue");
  Truth& truth = the_world.truths[wait.lock];
  if (wait.steals) {
    the_world.counts.steals++;
    truth.thieves.push_back(this);
  }
  const int32_t index = wait.steals ? client_->steal(wait.key) : client_->enqueue(wait.key, true);
  if (wait.steals) truth.thieves.erase(std::find(truth.thieves.begin(), truth.thieves.end(), this));
  if (index == static_cast<int32_t>(Status::kStalled)) return true;
  SIM_CHECK(index >= 0);
  if (!wait.steals && report_.granted == 0) {
    wait.index = index;
    serve_if_needed();
    return false;
  }
  wait.ended = true;
  granted(static_cast<uint32_t>(index), wait.lock, mode_of(wait.key));
  return false;
}

inline void Loop::tried(Wait& wait, Status status) {
  if (status == Status::kAgain) return;
  SIM_CHECK(ok(status));
  wait.ended = true;
  granted(static_cast<uint32_t>(wait.index), wait.lock, mode_of(wait.key));
}

inline void Loop::time_out(Wait& wait) {
  if (wait.index >= 0) {
    doing("react");
    tried(wait, client_->react(static_cast<uint32_t>(wait.index)));
  }
  if (wait.ended) return;
  doing("withdraw");
  the_world.counts.timeouts++;
  wait.ended = true;
  if (wait.index >= 0) SIM_CHECK(ok(client_->withdraw(static_cast<uint32_t>(wait.index))));
}

// blockUntil of wait.ts
inline void Loop::request_sync(int lock, uint32_t key, Mode mode, uint64_t deadline_ns) {
  doing("block");
  set_busy(true);
  int32_t index = client_->enqueue(key, false);
  while (index == static_cast<int32_t>(Status::kStalled) && now() < deadline_ns)
    index = client_->enqueue(key, false);
  if (index >= 0) {
    Status status = report_.granted != 0 ? Status::kOk : Status::kAgain;
    while (status == Status::kAgain && now() < deadline_ns) {
      status = client_->wait(static_cast<uint32_t>(index), static_cast<double>(deadline_ns - now()) / 1e6);
    }
    set_busy(false);
    if (ok(status)) {
      granted(static_cast<uint32_t>(index), lock, mode);
    } else {
      SIM_CHECK(status == Status::kAgain);
      the_world.counts.timeouts++;
      SIM_CHECK(ok(client_->withdraw(static_cast<uint32_t>(index))));
    }
  }
  set_busy(false);
  settle();
}

inline void Loop::granted(uint32_t index, int lock, Mode mode) {
  const uint64_t token = static_cast<uint64_t>(static_cast<uint32_t>(report_.token_high)) << 32 |
                         static_cast<uint32_t>(report_.token_low);
  the_world.granted(lock, *this, index, mode, token, report_.abandoned != 0);
  uint64_t rests_ns = odds(habits_.rests) ? random_.up_to_power(24) : 0;
  if (odds(habits_.slow_rests)) rests_ns = kMs * random_.up_to_power(8);
  if (odds(habits_.long_rests)) rests_ns = proclock::kQuietTickNs + random_.up_to_power(32);
  holds_.push_back({index, lock, mode, now() + rests_ns, false});
  doing("hold");
  if (odds(habits_.listens)) listen(index);
  if (mode == Mode::kExclusive && odds(habits_.clear)) clear(index, lock);
  if (mode == Mode::kExclusive && odds(habits_.downgrade)) downgrade(holds_.size() - 1);
  if (mode == Mode::kShared && odds(habits_.upgrade)) upgrade(holds_.size() - 1);
}

inline void Loop::release(size_t n) {
  const Hold hold = holds_[n];
  holds_.erase(holds_.begin() + static_cast<ptrdiff_t>(n));
  doing("release");
  the_machine.begins();
  the_world.leaves(hold.lock, *this, hold.index);
  unlisten(hold.index);
  if (hold.upgrading && random_.one_in(2)) SIM_CHECK(ok(client_->withdraw(hold.index)));
  const Status status = client_->release(hold.index);
  SIM_CHECK(ok(status) || (status == Status::kStolen && the_world.counts.steals != 0));
  the_world.counts.robbed += status == Status::kStolen;
  settle();
}

inline void Loop::downgrade(size_t n) {
  Hold& hold = holds_[n];
  const uint32_t index = hold.index;
  const int lock = hold.lock;
  the_world.hold_of(lock, *this, index)->changes = true;
  const Status status = change_mark(lock, [&] { return client_->downgrade(index); });
  Truth::Hold* truth = the_world.hold_of(lock, *this, index);
  truth->changes = false;
  if (!ok(status)) return;
  hold.mode = truth->mode = Mode::kShared;
  the_world.counts.downgrades++;
}

inline void Loop::upgrade(size_t n) {
  doing("upgrade");
  const Status status = client_->upgrade(holds_[n].index);
  if (status != Status::kAgain) return upgrade_ended(n, status);
  holds_[n].upgrading = true;
  holds_[n].until_ns = random_.one_in(2) ? kForever : deadline();
  serve_if_needed();
}

// Shared as before, where another one is to be upgraded, or the latch was stalled.
inline void Loop::upgrade_ended(size_t n, Status status) {
  Hold& hold = holds_[n];
  hold.upgrading = false;
  if (hold.until_ns == kForever) hold.until_ns = now() + random_.up_to_power(24);
  SIM_CHECK(ok(status) || status == Status::kUpgrading || status == Status::kStalled ||
            (status == Status::kStolen && the_world.counts.steals != 0));
  if (!ok(status)) return;
  const uint64_t token = static_cast<uint64_t>(static_cast<uint32_t>(report_.token_high)) << 32 |
                         static_cast<uint32_t>(report_.token_low);
  hold.mode = Mode::kExclusive;
  the_world.leaves(hold.lock, *this, hold.index);
  the_world.granted(hold.lock, *this, hold.index, hold.mode, token, report_.abandoned != 0);
  the_world.counts.upgrades++;
}

inline void Loop::listen(uint32_t index) {
  doing("listen");
  if (client_->listen(index) == Status::kStolen) {
    the_world.counts.told_stolen++;
    return;
  }
  listened_.push_back(index);
  serve_if_needed();
}

// The thread ends, with all that it holds and waits for, and another one begins in its place.
inline void Loop::end_thread() {
  doing("thread ends");
  the_machine.begins();
  the_world.counts.ends++;

  for (const Hold& hold : holds_) {
    Truth& truth = the_world.truths[hold.lock];
    if (hold.mode == Mode::kExclusive && !is_robbed(hold.index) && truth.abandoned != Truth::Mark::kYes)
      truth.abandoned = Truth::Mark::kEither;
  }
  struct Left {
    int lock;
    uint64_t looks;
  };
  std::vector<Left> left;
  for (const Hold& hold : holds_) {
    if (hold.mode == Mode::kExclusive && !is_robbed(hold.index))
      left.push_back({hold.lock, the_world.truths[hold.lock].looks});
    the_world.leaves(hold.lock, *this, hold.index);
  }
  const uint64_t begun_ns = now();
  client_.reset();
  // One deadline for all namespaces.
  if (host_.stopped_ns < begun_ns &&
      now() - begun_ns > proclock::Arena<RuntimePlatform>::kPatienceNs + kPromptNs)
    the_machine.fail("a thread takes too long to end");
  for (const Left& one : left) {
    Truth& truth = the_world.truths[one.lock];
    // Who robs it at this moment has taken a lock that nobody left; who came since has looked.
    if (truth.looks == one.looks && truth.thieves.empty() && !truth.thief_died)
      truth.abandoned = Truth::Mark::kYes;
  }
  the_machine.last_fault_ns = now();
  holds_.clear();
  waits_.clear();
  listened_.clear();
  serve_ns_ = retry_ns_ = kForever;
  report_ = {};
  notified_ = false;
  begin();
}

}  // namespace sim
