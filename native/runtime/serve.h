// Who serves the namespaces of a process: answers their doorbells, ticks, and has ended processes recovered.
//
// One thread at a time does it: the native one, which sleeps until a doorbell rings or a tick is due; or, as long as there is none,
// an event loop that waits, by a timer. A round answers each namespace once, with little patience: what a stalled one has not let us do
// is done in the next round.
//
// A tick looks for waiters that do not react (queue.h), points out whom we wait for to the detector and takes its turn
// (detect.h), and has processes that have entered watched. A namespace in which nothing happens ticks once a second, unless
// somebody in it can not be watched. Whoever makes something happen there sees that (is_slow), and says so (attend): seq_cst on
// both sides, so that either side sees the other. A wait that begins while somebody is in who is not watched yet says so as well
// (is_to_be_told): it may wait for just that one, whose end would be seen by a tick at the earliest.
#pragma once

#include "client.h"

namespace proclock {

// ---- Space

template <class P>
typename Space<P>::Word* Space<P>::listen(uint32_t* seen) {
  if (!is_open() || state() == Status::kClosed) return nullptr;
  {
    const Locked locked(mutex_);
    if (!kept_ && waits_ == 0 && tick_ns_ == 0) return nullptr;
  }
  Word* bell = doorbell_;
  // acquire: what was put on the stack before it rang.
  *seen = bell->load(std::memory_order_acquire);
  return bell;
}

template <class P>
Status Space<P>::answer(uint64_t now_ns, uint64_t patience_ns) {
  const Locked answering(answering_);
  if (has_left_) return Status::kOk;
  const Patience patience(now_ns + patience_ns);
  notice(now_ns);
  const Status status = take_pokes();
  recover_ended();
  if (tick_ns_ != 0 && now_ns >= tick_ns_) tick(now_ns);
  was_stalled_ = status == Status::kStalled || !ended_.empty();
  return was_stalled_ ? Status::kStalled : status;
}

// Has a wait begun, or the bell rung, or was one of our own threads poked?
template <class P>
void Space<P>::notice(uint64_t now_ns) {
  const uint32_t bell = doorbell_->load(std::memory_order_relaxed);
  bool begun = false;
  {
    const Locked locked(mutex_);
    begun = waits_begun_ != begun_seen_;
    begun_seen_ = waits_begun_;
  }
  if (begun) {
    begun_ns_ = now_ns;
    idle_ticks_ = 0;
    if (has_unwatched()) refresh_watched();
  }
  const bool stirred = stirred_.exchange(false, std::memory_order_seq_cst);
  const bool happened = stirred || bell != bell_seen_;
  bell_seen_ = bell;
  if (!begun && (!happened || tick_ns_ == 0)) return;
  slow_.store(false, std::memory_order_seq_cst);
  tick_ns_ = std::min(next_tick_ns(), now_ns + kTickNs);
}

template <class P>
Status Space<P>::take_pokes() {
  if (!arena_->has_poked()) return Status::kOk;
  std::vector<uint32_t> slots;
  const Status status = arena_->take_poked(&slots);
  if (!slots.empty()) poked(slots);
  return status;
}

template <class P>
void Space<P>::tick(uint64_t now_ns) {
  const bool was_slow = is_slow();
  tick_ns_ = now_ns + kTickNs;
  {
    const Locked locked(mutex_);
    idle_ticks_ = waits_ == 0 ? idle_ticks_ + 1 : 0;
  }
  if (!ok(check_now(P::wall_ms())) || (idle_ticks_ > kLingerTicks && becomes_idle())) {
    unwatch_all();
    tick_ns_ = 0;
    return;
  }
  const bool again = blind_ && ++blind_ticks_ >= kBlindTicks;
  if (again || has_unwatched()) refresh_watched();
  look_at_waited();
  arena_->tick(&scan_, was_slow ? kQuietTickNs / kTickNs : 1);
  if (becomes_slow(now_ns)) tick_ns_ = now_ns + kQuietTickNs;
}

// Said first, and then looked at once more, as in becomes_slow().
template <class P>
bool Space<P>::becomes_idle() {
  slow_.store(true, std::memory_order_seq_cst);
  const Locked locked(mutex_);
  return waits_begun_ == begun_seen_;
}

template <class P>
void Space<P>::look_at_waited() {
  struct Overdue {
    uint32_t lock;
    PokeSeen seen;
  };
  std::vector<Overdue> overdue;
  std::vector<uint32_t> owed;
  {
    const Locked locked(mutex_);
    size_t place = 0;
    size_t wanted = 0;
    for (auto& entry : waited_) {
      if (arena_->is_overdue(entry.first, &entry.second.seen))
        overdue.push_back({entry.first, entry.second.seen});
      if (place++ < want_cursor_ || wanted == kWantedPerTick) continue;
      if (arena_->want(entry.first, &entry.second.want_from, &entry.second.owed)) owed.push_back(entry.first);
      wanted++;
    }
    want_cursor_ = want_cursor_ + wanted < place ? want_cursor_ + wanted : 0;
  }
  for (Overdue& entry : overdue) arena_->open_barrier_if_overdue(entry.lock, &entry.seen);
  for (const uint32_t lock : owed) arena_->poke_owed(lock);
}

// May the next tick be a long time off? Said first, to this process and to the others, and then looked at once more.
template <class P>
bool Space<P>::becomes_slow(uint64_t now_ns) {
  // Not before the watcher has said whom it can not watch.
  const bool is_fresh = now_ns < refreshed_ns_ + kTickNs;
  if (blind_ || is_fresh || now_ns - begun_ns_ < kQuietTickNs || !is_quiet(false)) return false;
  slow_.store(true, std::memory_order_seq_cst);
  const bool slow = is_quiet(true);
  if (!slow) slow_.store(false, std::memory_order_seq_cst);
  return slow;
}

template <class P>
bool Space<P>::is_quiet(bool announce) {
  const Locked locked(mutex_);
  if (waits_ == 0 || waits_begun_ != begun_seen_) return false;
  return std::all_of(waited_.begin(), waited_.end(), [&](auto& entry) {
    if (announce) arena_->announce_quiet(entry.first);
    return arena_->is_quiet(entry.first, &entry.second.seen, kQuietTickNs);
  });
}

// ---- watching

template <class P>
void Space<P>::refresh_watched() {
  const uint64_t epoch = attach_epoch();
  const uint32_t used = arena_->processes_used();
  blind_ = false;
  blind_ticks_ = 0;
  watched_.resize(std::max<size_t>(watched_.size(), used + 1));
  for (uint32_t process = 1; process <= used; process++) {
    ProcessIdentity identity;
    uint64_t number = 0;
    if (!arena_->read_process(process, &identity, &number) || process == arena_->self()) number = 0;
    if (number == watched_[process]) continue;
    if (watched_[process] != 0) runtime_.watcher_.forget({number_, watched_[process]});
    watched_[process] = 0;
    if (number == 0) continue;
    const bool comparable = self_.start_time != 0 && self_.same_clock(identity);
    const uint64_t start_time = comparable ? identity.start_time : 0;
    if (self_.same_namespace(identity) && identity.pid > 0 &&
        runtime_.watcher_.watch({number_, number}, identity.pid, start_time)) {
      watched_[process] = number;
    } else {
      blind_ = true;
    }
  }
  watched_epoch_.store(epoch, std::memory_order_relaxed);
  refreshed_ns_ = P::monotonic_ns();
}

template <class P>
void Space<P>::unwatch_all() {
  for (uint32_t process = 1; process < watched_.size(); process++) {
    if (watched_[process] != 0) runtime_.watcher_.forget({number_, watched_[process]});
  }
  watched_.clear();
  watched_epoch_.store(kUnwatched, std::memory_order_relaxed);
  blind_ = false;
}

template <class P>
void Space<P>::watch_event(uint64_t number, bool ended) {
  const auto found = std::find(watched_.begin(), watched_.end(), number);
  if (found == watched_.end()) return;  // not watched any more
  if (ended) {
    ended_.push_back({static_cast<uint32_t>(found - watched_.begin()), number});
  } else {
    blind_ = true;
    slow_.store(false, std::memory_order_seq_cst);
    if (tick_ns_ != 0) tick_ns_ = std::min(tick_ns_, P::monotonic_ns() + kTickNs);
  }
  *found = 0;
}

template <class P>
void Space<P>::recover_ended() {
  std::vector<Ended> left;
  for (const Ended& one : ended_) {
    if (!left.empty() || arena_->recover_dead(one.process, one.number) == Status::kStalled)
      left.push_back(one);
  }
  ended_.swap(left);
}

// ---- Runtime

template <class P>
bool Runtime<P>::has_thread() {
  if (is_served()) return true;
  const Locked locked(mutex_);
  if (!is_served()) runs_.store(P::start_thread(&Runtime::run, this), std::memory_order_release);
  return is_served();
}

template <class P>
bool Runtime<P>::attend() {
  if (!has_thread()) return false;
  wake_server();
  return true;
}

// Starts no thread: the watcher's, which calls this as well, has descriptors of its own, and so would any that it makes.
template <class P>
void Runtime<P>::wake_server() {
  control_.fetch_add(1, std::memory_order_release);
  P::wake(&control_);
  if (can_wait_many_.load(std::memory_order_relaxed)) return;
  for (const auto& space : all_spaces()) {
    if (!space->is_open()) continue;
    space->doorbell()->fetch_add(1, std::memory_order_release);
    P::wake(space->doorbell());
  }
}

template <class P>
bool Runtime<P>::serve() {
  if (attend()) return true;
  std::vector<Sleep> sleeps;
  round(&sleeps);
  return sleeps.size() == 1;
}

template <class P>
void* Runtime<P>::run(void* argument) {
  P::name_thread("proclock-bell");
  Runtime& self = *static_cast<Runtime*>(argument);
  std::vector<Sleep> sleeps;
  for (;;) {
    const uint64_t deadline_ns = self.round(&sleeps);
    if (!P::wait_for_any(sleeps, deadline_ns)) self.can_wait_many_.store(false, std::memory_order_relaxed);
  }
}

// Returns when the next one is due. Each word that is slept on is read before what it announces: a change in between makes the
// sleep return at once.
template <class P>
uint64_t Runtime<P>::round(std::vector<Sleep>* sleeps) {
  const Locked serving(serving_);
  sleeps->clear();
  const Sleep control = {&control_, control_.load(std::memory_order_acquire)};
  const std::vector<SpacePointer> spaces = all_spaces();
  for (SpacePointer& known : served_) {
    if (known->is_given_up()) known->unwatch_all();
  }
  served_.clear();
  take_watch_events();
  uint64_t deadline_ns = kNoDeadline;
  // Those that are stalled are waited for in turn, one in a round.
  const size_t turn = spaces.empty() ? 0 : rounds_++ % spaces.size();
  for (size_t n = 0; n < spaces.size(); n++) {
    const SpacePointer& space = spaces[n];
    uint32_t seen;
    auto* bell = space->listen(&seen);
    if (bell == nullptr) continue;
    served_.push_back(space);
    sleeps->push_back({bell, seen});
    const uint64_t now = P::monotonic_ns();
    const uint64_t patience_ns = space->was_stalled() && n != turn ? 0 : kServePatienceNs;
    if (space->answer(now, patience_ns) == Status::kStalled)
      deadline_ns = std::min(deadline_ns, now + kStalledRetryNs);
    deadline_ns = std::min(deadline_ns, space->next_tick_ns());
  }
  // Nobody wakes this thread for those that it does not sleep on.
  const bool polls = !can_wait_many_.load(std::memory_order_relaxed) || sleeps->size() >= P::kSleepsMax;
  if (polls && !sleeps->empty()) {
    const uint64_t poll_ns = sleeps->size() == 1 ? kOneDoorbellPollNs : kManyDoorbellsPollNs;
    deadline_ns = std::min(deadline_ns, P::monotonic_ns() + poll_ns);
  }
  sleeps->push_back(control);
  return deadline_ns;
}

template <class P>
void Runtime<P>::take_watch_events() {
  const auto events = watcher_.take_events();
  if (events.empty()) return;
  const std::vector<SpacePointer> spaces = all_spaces();
  for (const auto& event : events) {
    const auto found = std::find_if(spaces.begin(), spaces.end(), [&](const SpacePointer& space) {
      return space->number() == event.key.space;
    });
    if (found != spaces.end()) (*found)->watch_event(event.key.process, event.ended);
  }
}

}  // namespace proclock
