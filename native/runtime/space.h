// One namespace as one process has it: its mapping, its arena, who waits in it. Shared by all threads of the process.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "../core/core.h"

namespace proclock {

template <class P>
class Client;
template <class P>
class Runtime;

constexpr uint64_t kTickNs = 50000000;  // how long an unusual state may go unnoticed
// The same where nothing has happened for so long to any lock that is waited for: who waits is to cost nothing.
constexpr uint64_t kQuietTickNs = 1000000000;
constexpr uint64_t kServePatienceNs = 2000000;  // of whoever serves all namespaces, with one of them
constexpr uint32_t kLingerTicks = 20;           // how long a namespace is served after the last wait in it
constexpr uint32_t kBlindTicks = 20;    // after so many it is tried again to watch whom we could not watch
constexpr size_t kWantedPerTick = 256;  // waited locks whose holders are pointed out to the detector, a tick

// For what has to be done now, or never. Nested calls share the deadline of the outermost one. With an owner of the latch for
// whom one call has waited in vain already there is less patience (latch.h); all of it again, if it turns out to go on.
template <class P, class Call>
Status patiently(Arena<P>& arena, Call call) {
  const uint64_t begun_ns = P::monotonic_ns();
  const uint64_t latest_ns =
      Patience::until_ns() != 0 ? Patience::until_ns() : begun_ns + Arena<P>::kPatienceNs;
  const uint64_t owner = arena.owner_inside();
  uint64_t until_ns = std::min(latest_ns, begun_ns + arena.patience_with(owner));
  for (;;) {
    const Patience patience(until_ns);
    Status status = call();
    while (status == Status::kStalled && P::monotonic_ns() < until_ns) status = call();
    if (status != Status::kStalled) return status;
    if (until_ns >= latest_ns || arena.is_stuck_with(owner)) break;
    until_ns = latest_ns;
  }
  arena.waited_in_vain(owner);
  return Status::kStalled;
}

template <class P>
class Space final : public PokeSink {
 public:
  Space(Runtime<P>& runtime, std::string name, uint32_t number, ProcessIdentity self)
      : runtime_(runtime), name_(std::move(name)), number_(number), self_(self) {}

  // Enters the segment, if this was not done yet. Several threads may come at once.
  Status open(int64_t group, OpenFailure* failure, Opening opening);
  void leave();              // all locks are closed: gives the process entry back
  void forget_after_fork();  // in the child: these are the parent's

  // Nobody finds it any more by its name: whoever still has it open keeps it.
  bool is_given_up() const { return given_up_.load(std::memory_order_relaxed); }
  void give_up() { given_up_.store(true, std::memory_order_relaxed); }

  bool is_open() const { return opened_.load(std::memory_order_acquire); }
  const std::string& name() const { return name_; }
  uint32_t number() const { return number_; }
  Arena<P>& arena() { return *arena_; }
  // Stays valid, though it may be another process's when this one has left: a ring too many does no harm.
  typename P::template Atomic<uint32_t>* doorbell() const { return doorbell_; }

  // Whether it can be kept for whoever comes next. Needs no system call.
  bool is_usable() const { return ok(state()) && !arena_->is_corrupt(); }
  // kOk, or why this namespace can not be used any more.
  Status state() const { return state_.load(std::memory_order_relaxed); }
  // Asks whether the segment is still there, and possible, at most once a tick.
  Status check(double now_ms) {
    const double last = checked_ms_.load(std::memory_order_relaxed);
    return now_ms - last < kTickNs / 1e6 && now_ms >= last ? state() : check_now(now_ms);
  }
  Status check_now(double now_ms);

  // Waits of this process.
  void add_wait(uint32_t lock);
  void remove_wait(uint32_t lock);
  void add_async(uint32_t slot, Client<P>* client, uint32_t hold);
  void remove_async(uint32_t slot);
  void keep_listening();  // from now on its doorbell is listened to, wait or no wait
  bool is_slow() const { return slow_.load(std::memory_order_seq_cst); }

  // Whether a wait that begins has to be said to whoever serves: it would see it late, or somebody has entered who is not watched yet,
  // and whose end would be seen late.
  bool is_to_be_told() const { return is_slow() || has_unwatched(); }

  void poked(const std::vector<uint32_t>& slots) override;
  void poke_all();  // the namespace is gone: let every waiter find out

  uint32_t locks_open = 0;  // behind the runtime's mutex

  // ---- of whoever serves the runtime, one thread at a time (serve.h)

  using Word = typename P::template Atomic<uint32_t>;
  // The doorbell, and what it said before it was answered, if somebody is to be told here; null otherwise.
  Word* listen(uint32_t* seen);
  // kStalled: not everything could be done.
  Status answer(uint64_t now_ns, uint64_t patience_ns);
  bool was_stalled() const { return was_stalled_; }
  uint64_t next_tick_ns() const { return tick_ns_ == 0 ? kNoDeadline : tick_ns_; }
  void watch_event(uint64_t number, bool ended);
  void unwatch_all();

 private:
  struct AsyncWait {
    Client<P>* client;
    uint32_t hold;
  };
  struct Waited {
    uint32_t waits = 0;
    PokeSeen seen;
    uint32_t want_from = 0;
    OwedSeen owed;
  };
  struct Ended {
    uint32_t process;
    uint64_t number;
  };
  using Locked = std::lock_guard<typename P::LocalMutex>;
  using Flag = typename P::template Atomic<bool>;
  static constexpr uint64_t kUnwatched = ~uint64_t{0};

  uint64_t attach_epoch() const { return arena_->header().attach_epoch.load(std::memory_order_acquire); }
  bool has_unwatched() const { return attach_epoch() != watched_epoch_.load(std::memory_order_relaxed); }
  void notice(uint64_t now_ns);
  Status take_pokes();
  void tick(uint64_t now_ns);
  void look_at_waited();
  bool becomes_slow(uint64_t now_ns);
  bool becomes_idle();
  bool is_quiet(bool announce);
  void refresh_watched();
  void recover_ended();

  Runtime<P>& runtime_;
  const std::string name_;
  const uint32_t number_;  // among this process's
  const ProcessIdentity self_;
  typename P::LocalMutex opening_;
  Flag given_up_{false};
  Flag opened_{false};  // written behind `opening_`; then there is an arena
  typename P::Memory memory_;
  std::unique_ptr<Arena<P>> arena_;
  Word* doorbell_ = nullptr;
  typename P::template Atomic<Status> state_{Status::kOk};
  std::atomic<double> checked_ms_{0};
  // The next tick is a long time off, if there is one: who makes something happen says so.
  Flag slow_{true};
  Flag stirred_{false};  // something was poked here, which no bell has announced
  // Who had entered when it was last seen to it that all are watched. Written by whoever serves.
  typename P::template Atomic<uint64_t> watched_epoch_{kUnwatched};

  typename P::LocalMutex mutex_;  // of what follows
  bool kept_ = false;             // listened to for the whole life
  uint32_t waits_ = 0;
  uint32_t waits_begun_ = 0;
  std::unordered_map<uint32_t, AsyncWait> async_;
  std::unordered_map<uint32_t, Waited> waited_;

  typename P::LocalMutex answering_;  // of whoever serves, and of who leaves: nobody serves what we have left
  bool has_left_ = false;

  // Of whoever serves.
  uint64_t tick_ns_ = 0;  // when the next one is due; 0: none is
  uint32_t begun_seen_ = 0;
  uint64_t begun_ns_ = 0;  // when a wait was last seen to have begun
  uint32_t idle_ticks_ = 0;
  uint32_t bell_seen_ = 0;
  size_t want_cursor_ = 0;
  ScanSeen scan_;
  std::vector<uint64_t>
      watched_;               // by process entry: the number of the process that is watched, 0 if none is
  std::vector<Ended> ended_;  // said to have ended, and still to be recovered
  bool blind_ = false;        // somebody can not be watched: the detector is all there is
  uint32_t blind_ticks_ = 0;
  uint64_t refreshed_ns_ = 0;
  bool was_stalled_ = false;  // when it was answered last
};

template <class P>
Status Space<P>::open(int64_t group, OpenFailure* failure, Opening opening) {
  const Locked locked(opening_);
  if (is_open()) return check_now(P::wall_ms());
  Status status = memory_.open(name_.c_str(), group, failure, opening);
  if (!ok(status)) return status;
  auto arena = std::make_unique<Arena<P>>(memory_, *this);
  status = patiently(*arena, [&] { return arena->attach(self_); });
  memory_.attached();
  if (!ok(status)) {
    memory_.reset();
    return status;
  }
  arena_ = std::move(arena);
  doorbell_ = arena_->doorbell();
  opened_.store(true, std::memory_order_release);
  return Status::kOk;
}

// What can not be given back now is found dead by others: our token goes with the descriptor.
template <class P>
void Space<P>::leave() {
  {
    const Locked answering(answering_);
    has_left_ = true;
  }
  arena_->detach();
}

template <class P>
void Space<P>::forget_after_fork() {
  new (&mutex_) typename P::LocalMutex();  // a thread of the parent may have been in it
  new (&answering_) typename P::LocalMutex();
  state_.store(Status::kClosed, std::memory_order_relaxed);
  memory_.reset_after_fork();
}

template <class P>
Status Space<P>::check_now(double now_ms) {
  checked_ms_.store(now_ms, std::memory_order_relaxed);
  if (state() == Status::kCorrupt) arena_->stay_out();
  if (!ok(state())) return state();
  Status found = memory_.check();
  if (ok(found) && arena_->is_corrupt()) found = Status::kCorrupt;
  if (ok(found)) return found;
  Status expected = Status::kOk;
  if (state_.compare_exchange_strong(expected, found, std::memory_order_seq_cst)) poke_all();
  return found;
}

// Either whoever serves sees that a wait has begun, or we see that it looks seldom, and say so (Client::attend).
template <class P>
void Space<P>::add_wait(uint32_t lock) {
  const Locked locked(mutex_);
  waited_[lock].waits++;
  waits_++;
  waits_begun_++;
}

template <class P>
void Space<P>::remove_wait(uint32_t lock) {
  const Locked locked(mutex_);
  const auto found = waited_.find(lock);
  if (found != waited_.end() && --found->second.waits == 0) waited_.erase(found);
  waits_--;
}

template <class P>
void Space<P>::add_async(uint32_t slot, Client<P>* client, uint32_t hold) {
  const Locked locked(mutex_);
  async_[slot] = {client, hold};
}

// After this returns, no other thread is going to call the client for this slot.
template <class P>
void Space<P>::remove_async(uint32_t slot) {
  const Locked locked(mutex_);
  async_.erase(slot);
}

template <class P>
void Space<P>::keep_listening() {
  const Locked locked(mutex_);
  kept_ = true;
}

template <class P>
void Space<P>::poked(const std::vector<uint32_t>& slots) {
  if (is_slow()) {
    stirred_.store(true, std::memory_order_seq_cst);
    runtime_.attend();
  }
  const Locked locked(mutex_);
  for (const uint32_t slot : slots) {
    const auto found = async_.find(slot);
    if (found != async_.end()) found->second.client->notify_ready(found->second.hold);
  }
}

template <class P>
void Space<P>::poke_all() {
  const Locked locked(mutex_);
  for (const auto& entry : async_) entry.second.client->notify_ready(entry.second.hold);
}

}  // namespace proclock
