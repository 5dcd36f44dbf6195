#include "runtime.h"

#ifdef __linux__

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

namespace proclock {

namespace {

// struct futex_waitv of linux/futex.h, which kernels before 5.16 do not have.
struct FutexWait {
  uint64_t value;
  uint64_t address;
  uint32_t flags;
  uint32_t reserved;
};
constexpr uint32_t kFutex32 = 2;
constexpr size_t kFutexWaitsMax = 128;
// On a kernel that can not wait for many futexes: with one namespace, and with several.
constexpr uint64_t kOneDoorbellPollNs = kTickNs;
constexpr uint64_t kManyDoorbellsPollNs = 5000000;

// No signal of the host program is to be handled on a thread that it does not know.
bool start_thread(void* (*run)(void*), void* argument, const char* name) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_attr_t attr;
  pthread_attr_init(&attr);
  pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attr, 256 * 1024);
  pthread_t thread;
  const bool started = pthread_create(&thread, &attr, run, argument) == 0;
  pthread_attr_destroy(&attr);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (started) pthread_setname_np(thread, name);
  return started;
}

}  // namespace

// ---- Space

Status Space::open(int64_t group, OpenFailure* failure) {
  Status status = memory_.open(name_.c_str(), group, failure);
  if (!ok(status)) return status;
  arena_ = std::make_unique<LinuxArena>(memory_, *this);
  status = patiently([this] { return arena_->attach(self_); });
  memory_.attached();
  return status;
}

void Space::leave() { arena_->detach(); }

void Space::forget_after_fork() {
  new (&mutex_) std::mutex();  // a thread of the parent may have been in it
  state_.store(Status::kClosed, std::memory_order_relaxed);
  memory_.reset();
}

Status Space::check_now(double now_ms) {
  checked_ms_.store(now_ms, std::memory_order_relaxed);
  if (!ok(state())) return state();
  const Status found = memory_.check();
  if (ok(found)) return found;
  Status expected = Status::kOk;
  if (state_.compare_exchange_strong(expected, found)) poke_all();
  return found;
}

void Space::add_wait(uint32_t lock) {
  std::lock_guard<std::mutex> hold(mutex_);
  waited_[lock]++;
  waits_.fetch_add(1, std::memory_order_relaxed);
  // seq_cst: with wants_watch() after it, against set_watched() before was_waited_in() in the watch thread. Either that
  // sees the wait, or the waiter sees that nobody watches, and says so.
  waits_begun_.fetch_add(1, std::memory_order_seq_cst);
}

void Space::remove_wait(uint32_t lock) {
  std::lock_guard<std::mutex> hold(mutex_);
  const auto found = waited_.find(lock);
  if (found != waited_.end() && --found->second == 0) waited_.erase(found);
  waits_.fetch_sub(1, std::memory_order_relaxed);
}

bool Space::add_async(uint32_t slot, Client* client, uint32_t hold) {
  std::lock_guard<std::mutex> lock(mutex_);
  async_[slot] = {client, hold};
  return !listens_;
}

// After this returns, no other thread is going to call the client for this slot.
void Space::remove_async(uint32_t slot) {
  std::lock_guard<std::mutex> lock(mutex_);
  async_.erase(slot);
}

bool Space::keep_listening() {
  std::lock_guard<std::mutex> lock(mutex_);
  kept_ = true;
  return !listens_;
}

bool Space::listens() {
  std::lock_guard<std::mutex> lock(mutex_);
  listens_ = kept_ || !async_.empty();
  return listens_;
}

std::vector<uint32_t> Space::waited_locks() {
  std::lock_guard<std::mutex> hold(mutex_);
  std::vector<uint32_t> locks;
  locks.reserve(waited_.size());
  for (const auto& entry : waited_) locks.push_back(entry.first);
  return locks;
}

bool Space::was_waited_in() {
  const uint32_t begun = waits_begun_.load(std::memory_order_seq_cst);
  const bool waited = begun != waits_seen_ || waits_.load(std::memory_order_relaxed) != 0;
  waits_seen_ = begun;
  return waited;
}

bool Space::is_quiet() {
  const uint64_t now = LinuxPlatform::monotonic_ns();
  const uint32_t begun = waits_begun_.load(std::memory_order_seq_cst);
  if (begun != begun_seen_) begun_ns_ = now;
  begun_seen_ = begun;
  if (blind || waits_.load(std::memory_order_relaxed) == 0 || now - begun_ns_ < kQuietTickNs) return false;
  const std::vector<uint32_t> locks = waited_locks();
  return std::all_of(locks.begin(), locks.end(),
                     [&](uint32_t lock) { return arena_->is_quiet(lock, kQuietTickNs); });
}

void Space::poked(const std::vector<uint32_t>& slots) {
  Runtime::get().watch_closely();
  std::lock_guard<std::mutex> lock(mutex_);
  for (const uint32_t slot : slots) {
    const auto found = async_.find(slot);
    if (found != async_.end()) found->second.client->notify_ready(found->second.hold);
  }
}

void Space::poke_all() {
  std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& entry : async_) entry.second.client->notify_ready(entry.second.hold);
}

// ---- Runtime

// Never destroyed: its threads may run while the process ends.
Runtime& Runtime::get() {
  static Runtime* runtime = new Runtime();
  return *runtime;
}

Runtime::Runtime() {
  pthread_atfork(nullptr, nullptr, [] { Runtime::get().reset_after_fork(); });
}

// In the child of a raw fork(): one thread, the parent's namespaces, and locks that are the parent's. Nothing of that is
// ours; namespaces are entered anew by the next lock that is opened. Memory that the parent's threads were working on
// is left alone.
void Runtime::reset_after_fork() {
  Client::count_fork();
  for (auto& entry : spaces_) entry.second->forget_after_fork();
  new (&mutex_) std::mutex();
  new (&spaces_) std::unordered_map<std::string, std::shared_ptr<Space>>();
  new (&unused_) std::vector<std::shared_ptr<Space>>();
  if (watch_epoll_ >= 0) close(watch_epoll_);
  if (watch_event_ >= 0) close(watch_event_);
  watch_epoll_ = watch_event_ = -1;
  watched_ = 0;
  doorbell_runs_ = watch_runs_ = false;
  self_ = {};  // found out when it is needed: most children call exec() next
}

Status Runtime::enter(const std::string& name, int64_t group, std::shared_ptr<Space>* space,
                      OpenFailure* failure) {
  std::lock_guard<std::mutex> hold(mutex_);
  const auto found = spaces_.find(name);
  if (found != spaces_.end()) {
    // One that was removed is left to those who still have locks open in it.
    if (ok(found->second->check_now(LinuxPlatform::wall_ms()))) {
      *space = found->second;
      if ((*space)->locks_open++ == 0) unused_.erase(std::find(unused_.begin(), unused_.end(), *space));
      return Status::kOk;
    }
    const auto unused = std::find(unused_.begin(), unused_.end(), found->second);
    if (unused != unused_.end()) unused_.erase(unused);
    spaces_.erase(found);
  }
  if (self_.pid == 0) self_ = LinuxPlatform::self();
  auto fresh = std::make_shared<Space>(name, self_);
  const Status status = fresh->open(group, failure);
  if (!ok(status)) return status;
  fresh->locks_open = 1;
  spaces_[name] = fresh;
  *space = fresh;
  return Status::kOk;
}

void Runtime::exit(const std::shared_ptr<Space>& space) {
  std::lock_guard<std::mutex> hold(mutex_);
  if (--space->locks_open != 0) return;
  const auto found = spaces_.find(space->name());
  if (found == spaces_.end() || found->second != space) {
    if (space->state() != Status::kClosed) space->leave();
    return;
  }
  unused_.push_back(space);
  if (unused_.size() <= kUnusedSpacesMax) return;
  spaces_.erase(unused_.front()->name());
  unused_.front()->leave();
  unused_.erase(unused_.begin());
}

std::vector<std::shared_ptr<Space>> Runtime::all_spaces() {
  std::lock_guard<std::mutex> hold(mutex_);
  std::vector<std::shared_ptr<Space>> spaces;
  for (const auto& entry : spaces_) spaces.push_back(entry.second);
  return spaces;
}

// ---- the doorbell thread

void Runtime::doorbell() {
  {
    std::lock_guard<std::mutex> hold(mutex_);
    if (!doorbell_runs_) doorbell_runs_ = start_thread(run_doorbell, this, "proclock-bell");
  }
  control_.fetch_add(1, std::memory_order_release);
  LinuxPlatform::wake(&control_);
  if (can_wait_many_.load(std::memory_order_relaxed)) return;
  for (const auto& space : all_spaces()) {
    space->arena().doorbell()->fetch_add(1, std::memory_order_release);
    LinuxPlatform::wake(space->arena().doorbell());
  }
}

void* Runtime::run_doorbell(void* runtime) {
  static_cast<Runtime*>(runtime)->ring_loop();
  return nullptr;
}

void Runtime::ring_loop() {
  std::vector<uint32_t> seen;
  std::vector<uint32_t> slots;
  for (;;) {
    // Each word is read before what it announces: a change in between makes the sleep return at once.
    const uint32_t control = control_.load(std::memory_order_acquire);
    std::vector<std::shared_ptr<Space>> spaces = all_spaces();
    spaces.erase(
        std::remove_if(spaces.begin(), spaces.end(), [](const auto& space) { return !space->listens(); }),
        spaces.end());
    seen.clear();
    for (const auto& space : spaces) {
      seen.push_back(space->arena().doorbell()->load(std::memory_order_acquire));
      slots.clear();
      while (space->arena().take_poked(&slots) == Status::kStalled) {
      }
      if (!slots.empty()) space->poked(slots);
    }
    sleep_on_doorbells(control, spaces, seen);
  }
}

void Runtime::sleep_on_doorbells(uint32_t control, const std::vector<std::shared_ptr<Space>>& spaces,
                                 const std::vector<uint32_t>& seen) {
  if (spaces.empty()) return LinuxPlatform::wait(&control_, control, kNoDeadline);
  if (can_wait_many_.load(std::memory_order_relaxed) && spaces.size() < kFutexWaitsMax) {
    FutexWait waits[kFutexWaitsMax];
    uint32_t count = 0;
    waits[count++] = {control, reinterpret_cast<uint64_t>(&control_), kFutex32, 0};
    for (size_t i = 0; i < spaces.size(); i++) {
      waits[count++] = {seen[i], reinterpret_cast<uint64_t>(spaces[i]->arena().doorbell()), kFutex32, 0};
    }
    if (syscall(SYS_futex_waitv, waits, count, 0, nullptr, 0) >= 0 || errno == EAGAIN || errno == EINTR)
      return;
    can_wait_many_.store(false, std::memory_order_relaxed);
    return;  // look again: until now, nobody rang our doorbells for a change of the set
  }
  const uint64_t poll_ns = spaces.size() == 1 ? kOneDoorbellPollNs : kManyDoorbellsPollNs;
  LinuxPlatform::wait(spaces[0]->arena().doorbell(), seen[0], LinuxPlatform::monotonic_ns() + poll_ns);
}

// ---- the watch thread

void Runtime::watch() {
  {
    std::lock_guard<std::mutex> hold(mutex_);
    if (!watch_runs_) {
      watch_epoll_ = epoll_create1(EPOLL_CLOEXEC);
      watch_event_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
      epoll_event event = {};
      event.events = EPOLLIN;
      event.data.u64 = 0;
      epoll_ctl(watch_epoll_, EPOLL_CTL_ADD, watch_event_, &event);
      watch_runs_ = start_thread(run_watch, this, "proclock-watch");
    }
  }
  const uint64_t one = 1;
  if (write(watch_event_, &one, sizeof one) < 0) return;  // EAGAIN: it is awake already
}

void* Runtime::run_watch(void* runtime) {
  static_cast<Runtime*>(runtime)->watch_loop();
  return nullptr;
}

// An event's data: the number of the space in this round's list plus one, then the process index.
void Runtime::watch_loop() {
  std::vector<std::shared_ptr<Space>> watched;
  uint64_t next_tick = 0;
  for (;;) {
    for (const auto& space : all_spaces()) {
      const bool known = std::find(watched.begin(), watched.end(), space) != watched.end();
      if (known || !space->was_waited_in()) continue;
      const auto hole = std::find(watched.begin(), watched.end(), nullptr);
      if (hole == watched.end()) {
        watched.push_back(space);
      } else {
        *hole = space;
      }
    }
    bool any = false;
    for (uint32_t number = 0; number < watched.size(); number++) {
      if (watched[number] == nullptr) continue;
      any = true;
      refresh_watched(*watched[number], number + 1);
    }
    const uint64_t tick_ns = slows_down(watched) ? kQuietTickNs : kTickNs;
    const uint64_t now = LinuxPlatform::monotonic_ns();
    if (next_tick <= now || next_tick > now + tick_ns) next_tick = now + tick_ns;
    const int timeout_ms = any ? static_cast<int>((next_tick - now) / 1000000) + 1 : -1;
    epoll_event events[32];
    const int count = epoll_wait(watch_epoll_, events, 32, timeout_ms);
    for (int i = 0; i < count; i++) {
      const uint64_t data = events[i].data.u64;
      if (data == 0) {
        uint64_t drained;
        if (read(watch_event_, &drained, sizeof drained) < 0) continue;
        continue;
      }
      const auto& space = watched[(data >> 32) - 1];
      if (space == nullptr) continue;
      // Stalled: the event is still there in the next round.
      if (space->arena().recover_if_dead(static_cast<uint32_t>(data)) == Status::kStalled) continue;
      // Gone, and its token is not: somebody has a copy of its descriptor. Ticks ask until that is closed as well.
      ProcessIdentity left;
      if (space->arena().process_identity(static_cast<uint32_t>(data), &left)) space->blind = true;
      unwatch(*space, static_cast<uint32_t>(data));
    }
    if (LinuxPlatform::monotonic_ns() < next_tick) continue;
    for (auto& space : watched) {
      if (space == nullptr) continue;
      tick(*space);
      space->quiet_ticks = space->was_waited_in() ? 0 : space->quiet_ticks + 1;
      if (space->quiet_ticks <= kWatchLingerTicks) continue;
      space->set_watched(~uint64_t{0});
      for (uint32_t process = 0; process < space->watched.size(); process++) unwatch(*space, process);
      space->quiet_ticks = 0;
      space = nullptr;
    }
  }
}

// May the next tick be a long time off? Said before it is found out, seq_cst both here and in watch_closely(), because: what
// happens while we look is either seen by us, or whoever makes it happen sees what we have said, and wakes us.
bool Runtime::slows_down(const std::vector<std::shared_ptr<Space>>& watched) {
  slow_.store(true, std::memory_order_seq_cst);
  LinuxPlatform::fence();
  const bool slow = std::all_of(watched.begin(), watched.end(),
                                [](const auto& space) { return space == nullptr || space->is_quiet(); });
  slow_.store(slow, std::memory_order_relaxed);
  return slow;
}

void Runtime::unwatch(Space& space, uint32_t process) {
  if (process >= space.watched.size() || space.watched[process].pidfd < 0) return;
  close(space.watched[process].pidfd);  // which takes it out of the epoll set as well
  space.watched[process] = {};
  watched_--;
}

void Runtime::refresh_watched(Space& space, uint32_t number) {
  if (!space.wants_watch()) return;
  const uint64_t epoch = space.attach_epoch();
  const uint32_t used = space.arena().processes_used();
  space.blind = false;
  space.watched.resize(std::max<size_t>(space.watched.size(), used + 1));
  for (uint32_t process = 1; process <= used; process++) {
    ProcessIdentity identity;
    Space::Watched& watched = space.watched[process];
    const bool live = space.arena().process_identity(process, &identity);
    const bool same = watched.pidfd >= 0 && watched.identity.pid == identity.pid &&
                      watched.identity.start_time == identity.start_time;
    if (live && same) continue;
    unwatch(space, process);
    if (!live || process == space.arena().self()) continue;
    int pidfd = -1;
    if (watched_ < kWatchedMax && space.self().same_namespace(identity)) {
      pidfd = static_cast<int>(syscall(SYS_pidfd_open, identity.pid, 0));
    }
    // Alive after the pidfd was opened: then the pid was still its own, and the pidfd is.
    if (space.memory().liveness(process, identity) == Liveness::kDead) {
      if (pidfd >= 0) close(pidfd);
      while (space.arena().recover_if_dead(process) == Status::kStalled) {
      }
      continue;
    }
    if (pidfd < 0) {
      space.blind = true;
      continue;
    }
    epoll_event event = {};
    event.events = EPOLLIN;
    event.data.u64 = static_cast<uint64_t>(number) << 32 | process;
    epoll_ctl(watch_epoll_, EPOLL_CTL_ADD, pidfd, &event);
    watched.pidfd = pidfd;
    watched.identity = identity;
    watched_++;
  }
  space.set_watched(epoch);
}

void Runtime::tick(Space& space) {
  if (!ok(space.check_now(LinuxPlatform::wall_ms()))) return;
  size_t looked = 0;
  for (const uint32_t lock : space.waited_locks()) {
    space.arena().open_barrier_if_overdue(lock);
    if (space.blind && looked++ < kLookedPerTick) space.arena().look(lock);
  }
}

}  // namespace proclock

#endif  // __linux__
