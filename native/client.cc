#include "runtime.h"

#ifdef __linux__

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

namespace proclock {

namespace {

// Between two tries.
constexpr int kSpinPauses = 16;

bool can_spin() {
  static const bool several = sysconf(_SC_NPROCESSORS_ONLN) > 1;
  return several;
}

int spin_rounds(Spinning& spinning) { return can_spin() ? spinning.rounds() : 0; }

void pause_briefly() {
  for (int i = 0; i < kSpinPauses; i++) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }
}

}  // namespace

thread_local Client* Client::first_of_thread_ = nullptr;

Client::Client(uint32_t thread, Report* report, Notify notify, void* data)
    : next_of_thread_(first_of_thread_),
      thread_(thread),
      os_thread_(pthread_self()),
      report_(report),
      notify_(notify),
      data_(data) {
  first_of_thread_ = this;
  Runtime::get();  // it counts the forks
}

Client::~Client() {
  Client** link = &first_of_thread_;
  while (*link != this) link = &(*link)->next_of_thread_;
  *link = next_of_thread_;
  report_ = &own_report_;  // JavaScript's memory may be gone already
  for (uint32_t index = 0; index < holds_.size(); index++) {
    Hold& hold = holds_[index];
    if (hold.state == State::kWaiting || hold.state == State::kWaitingAsync) withdraw(index);
    if (hold.state != State::kHeld) continue;
    // Not a release: whoever held exclusively may have been in the middle of a change.
    if (hold.mode == Mode::kExclusive && hold.lock->space->state() != Status::kClosed) {
      patiently([&] { return hold.lock->space->arena().set_abandoned(hold.ref, true); });
    }
    release(index);
  }
  // What is still owed after that is recovered when the process ends.
  patiently([this] { return settle_owed() == 0 ? Status::kOk : Status::kStalled; });
  for (uint32_t id = 0; id < locks_.size(); id++) {
    if (locks_[id] != nullptr) end_lock(id);
  }
}

// JavaScript's memory may not be in the child at all: most builds of V8 map it with MADV_DONTFORK. Then no JavaScript
// runs here, and there is nobody to tell.
void Client::count_fork() {
  const uintptr_t page_size = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  for (Client* client = first_of_thread_; client != nullptr; client = client->next_of_thread_) {
    const uintptr_t counter = reinterpret_cast<uintptr_t>(&client->report_->forks);
    unsigned char resident;
    if (mincore(reinterpret_cast<void*>(counter & ~(page_size - 1)), 1, &resident) == 0)
      client->report_->forks++;
  }
}

Client::OpenLock* Client::open_lock_at(uint32_t id) {
  return id < locks_.size() && locks_[id] != nullptr && !locks_[id]->closed ? locks_[id].get() : nullptr;
}

Client::Hold* Client::hold_at(uint32_t index, State state) {
  return index < holds_.size() && holds_[index].state == state ? &holds_[index] : nullptr;
}

Client::Hold* Client::waiting_at(uint32_t index) {
  Hold* hold = hold_at(index, State::kWaiting);
  return hold != nullptr ? hold : hold_at(index, State::kWaitingAsync);
}

Status Client::open_lock(const std::string& space, int64_t group, const Name& name, uint32_t* id,
                         OpenFailure* failure) {
  auto lock = std::make_unique<OpenLock>();
  Status status = Runtime::get().enter(space, group, &lock->space, failure);
  if (!ok(status)) return status;
  LinuxArena::SlotRef ref;
  status = patiently([&] { return lock->space->arena().open_lock(name, thread_, &ref); });
  if (!ok(status)) {
    Runtime::get().exit(lock->space);
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
  return add_hold(*id, *locks_[*id], ref);
}

void Client::close_lock(uint32_t id) {
  OpenLock* lock = open_lock_at(id);
  if (lock == nullptr) return;
  lock->closed = true;
  end_lock(id);
}

// Gives back what a closed lock no longer uses; the rest follows as its holds end.
void Client::end_lock(uint32_t id) {
  OpenLock& lock = *locks_[id];
  for (const uint32_t index : lock.idle) {
    const Hold& hold = holds_[index];
    // A slot that can not be given back stays bound until the process ends, and harms nobody.
    if (lock.space->state() != Status::kClosed)
      patiently([&] { return lock.space->arena().unbind(hold.ref); });
    holds_[index] = Hold();
    free_holds_.push_back(index);
    lock.slots--;
  }
  lock.idle.clear();
  if (lock.slots != 0) return;
  Runtime::get().exit(lock.space);
  locks_[id].reset();
  free_locks_.push_back(id);
}

Status Client::add_hold(uint32_t id, OpenLock& lock, const LinuxArena::SlotRef& ref) {
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
  return Status::kOk;
}

// A bound slot for the next acquire; it stays on the idle list until that succeeds.
Status Client::take_idle(uint32_t id, OpenLock& lock, uint32_t* index) {
  const Status state = lock.space->state();
  if (!ok(state)) return state;
  if (lock.idle.empty()) {
    LinuxArena::SlotRef ref;
    const Status status = lock.space->arena().bind(lock.index, thread_, &ref);
    if (!ok(status)) return status;
    add_hold(id, lock, ref);
  }
  *index = lock.idle.back();
  return Status::kOk;
}

void Client::give_idle(uint32_t index, Hold& hold) {
  OpenLock& lock = *hold.lock;
  const uint32_t id = hold.lock_id;
  hold.state = State::kIdle;
  lock.idle.push_back(index);
  if (lock.closed) return end_lock(id);
  if (lock.idle.size() <= kIdleHoldsMax || !ok(lock.space->state())) return;
  if (lock.space->arena().unbind(hold.ref) == Status::kStalled) return;
  lock.idle.pop_back();
  hold = Hold();
  free_holds_.push_back(index);
  lock.slots--;
}

// Its user is done with it; it is ready for the next one as soon as nothing is owed.
void Client::end_hold(uint32_t index, Hold& hold, uint8_t owed) {
  if ((hold.owed | owed) == 0) return give_idle(index, hold);
  hold.state = State::kEnding;
  if (owed != 0) owe(index, owed);
}

void Client::fill_report(const Hold& hold, uint64_t token) {
  const Lock<LinuxPlatform>& entry = *hold.ref.lock;
  report_->token_low = static_cast<int32_t>(token);
  report_->token_high = static_cast<int32_t>(token >> 32);
  report_->abandoned = static_cast<int32_t>(entry.abandoned.load(std::memory_order_relaxed));
}

void Client::owe(uint32_t index, uint8_t what) {
  if (holds_[index].owed == 0) owed_.push_back(index);
  holds_[index].owed = static_cast<uint8_t>(holds_[index].owed | what);
  report_->owed = static_cast<int32_t>(owed_.size());
  report_->ready = 1;
}

// One hold's part of settle_owed(), in the order in which it came to be owed.
Status Client::settle(uint32_t index) {
  Hold& hold = holds_[index];
  LinuxArena& arena = hold.lock->space->arena();
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
    if (hold.state == State::kWaitingAsync) notify_ready(index);
    return Status::kOk;
  });
  if (hold.owed == 0 && hold.state == State::kEnding) give_idle(index, hold);
  return status;
}

uint32_t Client::settle_owed() {
  entered_ = true;
  std::vector<uint32_t> owed;
  owed.swap(owed_);
  bool stalled = false;
  for (const uint32_t index : owed) {
    // One that is stalled is enough to know; not all of them have to wait for it.
    if (!stalled && holds_[index].lock->space->state() != Status::kClosed)
      stalled = !ok(settle(index)) || stalled;
    if (holds_[index].owed != 0) owed_.push_back(index);
  }
  entered_ = false;
  report_->owed = static_cast<int32_t>(owed_.size());
  return static_cast<uint32_t>(owed_.size());
}

// The slot holds. Only now and then it is asked whether the segment still has its name.
Status Client::granted(uint32_t index, Hold& hold, uint64_t token) {
  hold.state = State::kHeld;
  hold.lock->held++;
  fill_report(hold, token);
  const Status state =
      hold.lock->space->check(double_of(hold.ref.slot->since.load(std::memory_order_relaxed)));
  if (!ok(state)) release(index);
  return state;
}

int32_t Client::try_acquire(uint32_t key) {
  OpenLock* lock = open_lock_at(key >> kKeyBits);
  if (lock == nullptr) return static_cast<int32_t>(Status::kClosed);
  uint32_t index;
  Status status = take_idle(key >> kKeyBits, *lock, &index);
  if (status == Status::kStalled) status = Status::kBusy;
  if (!ok(status)) return static_cast<int32_t>(status);
  Hold& hold = holds_[index];
  hold.mode = static_cast<Mode>(key & kKeyExclusive);
  const Turn turn = (key & kKeyFair) != 0 ? Turn::kInOrder : Turn::kMayOvertake;
  uint64_t token = 0;
  entered_ = true;
  Try tried = lock->space->arena().try_acquire(hold.ref, hold.mode, turn, &token);
  while (tried == Try::kRecovering && ok(status)) {
    status = lock->space->arena().finish_recovery(lock->index);
    if (ok(status)) tried = lock->space->arena().try_acquire(hold.ref, hold.mode, turn, &token);
  }
  entered_ = false;
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
  if (status == Status::kStalled) status = Status::kBusy;
  if (ok(status)) status = tried == Try::kCorrupt ? Status::kCorrupt : Status::kBusy;
  return static_cast<int32_t>(status);
}

int32_t Client::steal(uint32_t key) {
  OpenLock* lock = open_lock_at(key >> kKeyBits);
  if (lock == nullptr) return static_cast<int32_t>(Status::kClosed);
  uint32_t index;
  Status status = take_idle(key >> kKeyBits, *lock, &index);
  if (!ok(status)) return static_cast<int32_t>(status);
  Hold& hold = holds_[index];
  uint64_t token = 0;
  entered_ = true;
  status = lock->space->arena().steal(hold.ref, &token);
  entered_ = false;
  if (ok(status)) {
    lock->idle.pop_back();
    hold.mode = Mode::kExclusive;
    status = granted(index, hold, token);
  }
  return ok(status) ? static_cast<int32_t>(index) : static_cast<int32_t>(status);
}

Status Client::listen(uint32_t index) {
  Hold* hold = hold_at(index, State::kHeld);
  if (hold == nullptr) return Status::kNotHeld;
  Space& space = *hold->lock->space;
  hold->listens = true;
  space.add_async(hold->ref.slot_index, this, index);
  if (space.keep_listening()) Runtime::get().doorbell();
  // After it was made known: a thief that came before did not find us.
  return check_hold(index);
}

Status Client::check_hold(uint32_t index) {
  Hold* hold = hold_at(index, State::kHeld);
  if (hold == nullptr) return Status::kNotHeld;
  const Status state = hold->lock->space->state();
  return state == Status::kClosed ? state : hold->lock->space->arena().check_hold(hold->ref);
}

int32_t Client::spin(uint32_t key, OpenLock& lock) {
  constexpr int32_t kBusy = static_cast<int32_t>(Status::kBusy);
  int32_t got = kBusy;
  for (int rounds = spin_rounds(lock.newcomer); rounds > 0 && got == kBusy; rounds--) {
    pause_briefly();
    got = try_acquire(key);
  }
  lock.newcomer.ended(got >= 0);
  return got;
}

int32_t Client::enqueue(uint32_t key, bool async) {
  report_->granted = 0;
  OpenLock* lock = open_lock_at(key >> kKeyBits);
  if (lock == nullptr) return static_cast<int32_t>(Status::kClosed);
  if (!async) {
    const int32_t got = spin(key, *lock);
    report_->granted = got >= 0;
    if (got != static_cast<int32_t>(Status::kBusy)) return got;
  }
  uint32_t index;
  Status status = take_idle(key >> kKeyBits, *lock, &index);
  if (!ok(status)) return static_cast<int32_t>(status);
  lock->idle.pop_back();
  Hold& hold = holds_[index];
  hold.mode = static_cast<Mode>(key & kKeyExclusive);
  hold.state = async ? State::kWaitingAsync : State::kWaiting;
  Space& space = *lock->space;
  // Known to this process before it is in the queue: it may be poked at once.
  space.add_wait(lock->index);
  if (async) {
    async_waits_++;
    if (space.add_async(hold.ref.slot_index, this, index)) Runtime::get().doorbell();
  }
  const int flags = (async ? kSlotAsync : 0) | ((key & kKeyFair) != 0 ? kSlotFair : 0);
  entered_ = true;
  status = space.arena().enqueue(hold.ref, hold.mode, static_cast<uint16_t>(flags));
  entered_ = false;
  if (status == Status::kStalled) {  // not queued: the caller comes again
    end_wait(hold);
    give_idle(index, hold);
    return static_cast<int32_t>(status);
  }
  if (ok(status)) {
    status = react(index, async ? 0 : spin_rounds(lock->front));
    if (!async) lock->front.ended(ok(status));
  }
  if (status == Status::kAgain) {
    if (space.wants_watch()) Runtime::get().watch();
    Runtime::get().watch_closely();
    return static_cast<int32_t>(index);
  }
  report_->granted = ok(status);
  if (waiting_at(index) != nullptr) withdraw(index);  // the queue was found corrupt
  return ok(status) ? static_cast<int32_t>(index) : static_cast<int32_t>(status);
}

void Client::end_wait(Hold& hold) {
  hold.lock->space->remove_wait(hold.lock->index);
  if (hold.state != State::kWaitingAsync) return;
  hold.lock->space->remove_async(hold.ref.slot_index);
  async_waits_--;
}

Status Client::check(uint32_t id) {
  OpenLock* lock = open_lock_at(id);
  return lock == nullptr ? Status::kClosed : lock->space->check_now(LinuxPlatform::wall_ms());
}

Status Client::look(uint32_t id) {
  OpenLock* lock = open_lock_at(id);
  if (lock == nullptr) return Status::kClosed;
  // What we owe ourselves may be what keeps us out.
  if (!owed_.empty()) settle_owed();
  entered_ = true;
  Status status = lock->space->arena().look(lock->index);
  if (ok(status)) status = lock->space->arena().open_barrier_if_overdue(lock->index);
  entered_ = false;
  return status == Status::kStalled ? Status::kOk : status;
}

Status Client::react(uint32_t index, int spin_rounds) {
  Hold* hold = waiting_at(index);
  if (hold == nullptr) return Status::kNotHeld;
  Space& space = *hold->lock->space;
  Status status = space.state();
  entered_ = true;
  uint64_t token = 0;
  Try tried = Try::kBusy;
  for (int round = 0; ok(status) && tried == Try::kBusy && round < spin_rounds; round++) {
    if (round > 0) pause_briefly();
    tried = space.arena().try_front(hold->ref, hold->mode, &token);
  }
  if (ok(status) && tried != Try::kAcquired) status = space.arena().react(hold->ref, hold->mode, &token);
  const Status settled = ok(status) ? space.arena().settle_grant(hold->ref) : Status::kOk;
  entered_ = false;
  if (status == Status::kStalled) {
    owe(index, kReact);
    status = Status::kAgain;
  }
  if (status == Status::kAgain) {
    if (space.wants_watch()) Runtime::get().watch();
    return status;
  }
  if (!ok(status)) {
    withdraw(index);
    return status;
  }
  end_wait(*hold);
  if (settled == Status::kStalled) owe(index, kSettleGrant);
  return granted(index, *hold, token);
}

// One slice of a synchronous wait, at most a tick long: JavaScript regains control in between, so that a worker that is
// terminated while it waits can end. kAgain: nothing was decided.
Status Client::wait(uint32_t index, double timeout_ms) {
  const uint64_t slice_ns =
      timeout_ms * 1e6 < static_cast<double>(kTickNs) ? static_cast<uint64_t>(timeout_ms * 1e6) : kTickNs;
  const uint64_t deadline = LinuxPlatform::monotonic_ns() + slice_ns;
  int spin_rounds = 0;
  for (;;) {
    Hold* hold = hold_at(index, State::kWaiting);
    if (hold == nullptr) return Status::kNotHeld;
    // W1. acquire: pairs with the poke.
    const uint32_t seen = hold->ref.slot->wake.load(std::memory_order_acquire);
    const Status status = react(index, spin_rounds);
    if (status != Status::kAgain) return status;
    if (LinuxPlatform::monotonic_ns() >= deadline) {
      Space& space = *hold->lock->space;
      if (!owed_.empty()) settle_owed();
      space.check_now(LinuxPlatform::wall_ms());
      space.arena().open_barrier_if_overdue(hold->lock->index);
      return Status::kAgain;
    }
    LinuxPlatform::wait(&hold->ref.slot->wake, seen, deadline);
    // Whoever overtook us runs, and is done with it soon, if it is as short as most.
    const bool woken = hold->ref.slot->wake.load(std::memory_order_relaxed) != seen;
    spin_rounds = woken && can_spin() ? kSpinRounds : 0;
  }
}

Status Client::withdraw(uint32_t index) {
  Hold* hold = waiting_at(index);
  if (hold == nullptr) return Status::kNotHeld;
  end_wait(*hold);
  Status status = Status::kOk;
  entered_ = true;
  if (hold->lock->space->state() != Status::kClosed) status = hold->lock->space->arena().withdraw(hold->ref);
  entered_ = false;
  hold->owed = static_cast<uint8_t>(hold->owed & ~kReact);
  end_hold(index, *hold, status == Status::kStalled ? kWithdraw : 0);
  return Status::kOk;
}

Status Client::release(uint32_t index) {
  Hold* hold = hold_at(index, State::kHeld);
  if (hold == nullptr) return Status::kNotHeld;
  hold->lock->held--;
  if (hold->listens) {
    hold->lock->space->remove_async(hold->ref.slot_index);
    hold->listens = false;
  }
  if (hold->lock->space->state() == Status::kClosed) {
    give_idle(index, *hold);
    return Status::kClosed;
  }
  entered_ = true;
  const Status status = hold->lock->space->arena().release(hold->ref);
  entered_ = false;
  end_hold(index, *hold, status == Status::kStalled ? kReleaseDuty : 0);
  return status == Status::kStalled ? Status::kOk : status;
}

Status Client::downgrade(uint32_t index) {
  Hold* hold = hold_at(index, State::kHeld);
  if (hold == nullptr) return Status::kNotHeld;
  if (hold->lock->space->state() == Status::kClosed) return Status::kClosed;
  entered_ = true;
  const Status status = patiently([&] { return hold->lock->space->arena().downgrade(hold->ref); });
  entered_ = false;
  if (ok(status)) hold->mode = Mode::kShared;
  return status;
}

Status Client::abandoned(uint32_t index, AbandonedInfo* info) const {
  if (index >= holds_.size() || holds_[index].state != State::kHeld) return Status::kNotHeld;
  if (holds_[index].lock->space->state() == Status::kClosed) return Status::kClosed;
  *info = holds_[index].lock->space->arena().abandoned(holds_[index].ref);
  return Status::kOk;
}

Status Client::clear_abandoned(uint32_t index) {
  Hold* hold = hold_at(index, State::kHeld);
  if (hold == nullptr || hold->mode != Mode::kExclusive) return Status::kNotHeld;
  if (hold->lock->space->state() == Status::kClosed) return Status::kClosed;
  return patiently([&] { return hold->lock->space->arena().set_abandoned(hold->ref, false); });
}

Status Client::query(uint32_t id, bool patient, std::vector<HolderInfo>* infos) {
  OpenLock* lock = open_lock_at(id);
  if (lock == nullptr) return Status::kClosed;
  const Status state = lock->space->check_now(LinuxPlatform::wall_ms());
  if (!ok(state)) return state;
  entered_ = true;
  const auto look = [&] { return lock->space->arena().snapshot(lock->index, infos); };
  const Status status = patient ? patiently(look) : look();
  entered_ = false;
  return status;
}

Status Client::query_all(uint32_t id, std::vector<HolderInfo>* infos,
                         std::unordered_map<uint32_t, LockName>* names) {
  OpenLock* lock = open_lock_at(id);
  if (lock == nullptr) return Status::kClosed;
  const Status state = lock->space->check_now(LinuxPlatform::wall_ms());
  if (!ok(state)) return state;
  entered_ = true;
  const Status status = patiently([&] { return lock->space->arena().snapshot_all(infos, names); });
  entered_ = false;
  return status;
}

bool Client::holds(const OpenLock& wanted) const {
  const auto is_wanted = [&](const OpenLock& open) {
    return open.held != 0 && open.index == wanted.index && open.space == wanted.space;
  };
  const bool had = std::any_of(locks_.begin(), locks_.end(),
                               [&](const auto& open) { return open != nullptr && is_wanted(*open); });
  // What was stolen is held no more.
  return had && std::any_of(holds_.begin(), holds_.end(), [&](const Hold& hold) {
           return hold.state == State::kHeld && is_wanted(*hold.lock) &&
                  ok(wanted.space->arena().check_hold(hold.ref));
         });
}

bool Client::held_by_thread(uint32_t id) {
  const OpenLock* lock = open_lock_at(id);
  if (lock == nullptr) return false;
  for (const Client* client = first_of_thread_; client != nullptr; client = client->next_of_thread_) {
    if (client->holds(*lock)) return true;
  }
  return false;
}

void Client::notify_ready(uint32_t hold) {
  std::lock_guard<std::mutex> lock(ready_mutex_);
  ready_.push_back(hold);
  // In a call of ours, on our own thread: the caller sees it when the call returns, and no other thread is needed.
  if (pthread_equal(pthread_self(), os_thread_) && entered_) {
    report_->ready = 1;
    return;
  }
  if (notified_) return;
  notified_ = true;
  notify_(data_);
}

std::vector<uint32_t> Client::take_ready() {
  std::lock_guard<std::mutex> lock(ready_mutex_);
  std::vector<uint32_t> ready;
  ready.swap(ready_);
  notified_ = false;
  report_->ready = 0;
  return ready;
}

}  // namespace proclock

#endif  // __linux__
