// What one process has of proclock: the namespaces that it has entered, and whoever serves them. Knows nothing of Node-API.
//
//   Runtime  one per process. One native thread, started with the first wait that needs it, sleeps on the doorbells of all
//            namespaces in which somebody waits, hands pokes to the right JavaScript thread, and has a tick for what no event
//            tells (serve.h). Where no thread can be made, the event loops that wait serve by a timer.
//   Space    one namespace (space.h).
//   Client   one JavaScript thread (client.h).
//   Watcher  of the platform: a second native thread that tells quickly when a process has ended.
//
// No latch, no open() and no client is ever entered with this class's mutex. One namespace that is stalled holds up nobody else:
// whoever serves has little patience with each, and comes back to it.
#pragma once

#include <pthread.h>

#include <algorithm>

#include "space.h"

namespace proclock {

template <class P>
class Runtime {
 public:
  Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;
  static Runtime& get();  // this process's

  // The space of this name, entered if it has not been; counts one open lock in it.
  std::string segment_in_use(const std::string& prefix, const std::string& suffix);
  Status enter(const std::string& name, int64_t group, std::shared_ptr<Space<P>>* space, OpenFailure* failure,
               Opening opening = Opening::kMake);
  void exit(const std::shared_ptr<Space<P>>& space);

  bool is_served() const { return runs_.load(std::memory_order_acquire); }
  // There is something new to serve. False: there is no thread for it, and serve() is to be called every few milliseconds.
  bool attend();
  // One round on this thread, unless the native one does it. True: it does by now, or there is nothing to serve.
  bool serve();

  void reset_after_fork();

 private:
  using Locked = std::lock_guard<typename P::LocalMutex>;
  using Sleep = typename P::Sleep;
  using SpacePointer = std::shared_ptr<Space<P>>;
  static constexpr size_t kUnusedSpacesMax = 8;  // namespaces without an open lock that stay mapped
  static constexpr uint64_t kStalledRetryNs = 5000000;
  // On a system that can not wait for many words: with one namespace, and with several.
  static constexpr uint64_t kOneDoorbellPollNs = kTickNs;
  static constexpr uint64_t kManyDoorbellsPollNs = 5000000;

  SpacePointer find_or_add(const std::string& name);
  void give_up(const SpacePointer& space);
  std::vector<SpacePointer> all_spaces();
  bool has_thread();
  void wake_server();
  static void* run(void* runtime);
  uint64_t round(std::vector<Sleep>* sleeps);
  void take_watch_events();

  typename P::LocalMutex mutex_;
  std::unordered_map<std::string, SpacePointer> spaces_;
  std::vector<SpacePointer> unused_;
  std::vector<std::weak_ptr<Space<P>>> left_;  // given up, with locks that are still open
  ProcessIdentity self_;
  uint32_t last_number_ = 0;
  typename P::template Atomic<bool> runs_{false};

  typename P::template Atomic<uint32_t> control_{0};  // futex of the native thread: there is something new
  typename P::template Atomic<bool> can_wait_many_{true};
  typename P::Watcher watcher_;

  typename P::LocalMutex serving_;  // of what follows
  std::vector<SpacePointer> served_;
  size_t rounds_ = 0;

  friend class Space<P>;
};

// Never destroyed: its threads may run while the process ends.
template <class P>
Runtime<P>& Runtime<P>::get() {
  static Runtime* runtime = [] {
    auto* fresh = new Runtime();
    // Nobody changes the list of spaces while the process is copied.
    pthread_atfork([] { get().mutex_.lock(); }, [] { get().mutex_.unlock(); },
                   [] {
                     Client<P>::count_fork();
                     get().reset_after_fork();
                     get().mutex_.unlock();
                   });
    return fresh;
  }();
  return *runtime;
}

template <class P>
Runtime<P>::Runtime()
    : watcher_([](void* runtime) { static_cast<Runtime*>(runtime)->wake_server(); }, this) {}

// In the child of a raw fork(): one thread, the parent's namespaces, and locks that are the parent's. Nothing of that is
// ours; namespaces are entered anew by the next lock that is opened. Memory that the parent's threads were working on
// is left alone.
template <class P>
void Runtime<P>::reset_after_fork() {
  for (auto& entry : spaces_) entry.second->forget_after_fork();
  for (auto& left : left_) {
    if (const SpacePointer space = left.lock()) space->forget_after_fork();
  }
  new (&serving_) typename P::LocalMutex();
  new (&spaces_) std::unordered_map<std::string, SpacePointer>();
  new (&unused_) std::vector<SpacePointer>();
  new (&left_) std::vector<std::weak_ptr<Space<P>>>();
  new (&served_) std::vector<SpacePointer>();
  watcher_.reset_after_fork();
  runs_.store(false, std::memory_order_relaxed);
  self_ = {};  // found out when it is needed: most children call exec() next
}

template <class P>
typename Runtime<P>::SpacePointer Runtime<P>::find_or_add(const std::string& name) {
  const Locked locked(mutex_);
  if (self_.pid == 0) self_ = P::self();
  SpacePointer& space = spaces_[name];
  if (space == nullptr) space = std::make_shared<Space<P>>(*this, name, ++last_number_, self_);
  if (space->locks_open++ == 0)
    unused_.erase(std::remove(unused_.begin(), unused_.end(), space), unused_.end());
  return space;
}

// It could not be opened, and nobody else tries to; or it can not be used any more, and is left to those who still have locks
// open in it.
template <class P>
void Runtime<P>::give_up(const SpacePointer& space) {
  const Locked locked(mutex_);
  if (--space->locks_open != 0 && ok(space->state())) return;
  const auto found = spaces_.find(space->name());
  if (found == spaces_.end() || found->second != space) return;
  spaces_.erase(found);
  space->give_up();
  const auto is_over = [](const std::weak_ptr<Space<P>>& left) { return left.expired(); };
  left_.erase(std::remove_if(left_.begin(), left_.end(), is_over), left_.end());
  left_.push_back(space);
}

template <class P>
Status Runtime<P>::enter(const std::string& name, int64_t group, SpacePointer* space, OpenFailure* failure,
                         Opening opening) {
  for (;;) {
    *space = find_or_add(name);
    const bool was_open = (*space)->is_open();  // and gone since, maybe: then it is entered anew
    const Status status = (*space)->open(group, failure, opening);
    if (ok(status)) return status;
    give_up(*space);
    if (is_served()) attend();  // as in exit()
    if (!was_open) return status;
  }
}

template <class P>
void Runtime<P>::exit(const SpacePointer& space) {
  SpacePointer leaving;
  {
    const Locked locked(mutex_);
    if (--space->locks_open != 0) return;
    const auto found = spaces_.find(space->name());
    if (found == spaces_.end() || found->second != space) {
      leaving = space;
    } else if (!space->is_usable()) {
      // Whoever finds nobody in it can make it anew.
      leaving = space;
      spaces_.erase(found);
      space->give_up();
    } else {
      unused_.push_back(space);
      if (unused_.size() <= kUnusedSpacesMax) return;
      leaving = unused_.front();
      unused_.erase(unused_.begin());
      spaces_.erase(leaving->name());
      leaving->give_up();
    }
  }
  if (leaving->state() != Status::kClosed) leaving->leave();
  if (is_served()) attend();  // its thread lets go of it
}

template <class P>
std::vector<std::shared_ptr<Space<P>>> Runtime<P>::all_spaces() {
  const Locked locked(mutex_);
  std::vector<SpacePointer> spaces;
  spaces.reserve(spaces_.size());
  for (const auto& entry : spaces_) spaces.push_back(entry.second);
  return spaces;
}

// The segment in which a thread of this process has locks open whose name consists of these two and a number in between. Empty:
// there is none.
template <class P>
std::string Runtime<P>::segment_in_use(const std::string& prefix, const std::string& suffix) {
  const Locked locked(mutex_);
  for (const auto& entry : spaces_) {
    const std::string& name = entry.first;
    if (entry.second->locks_open == 0 || name.size() <= prefix.size() + suffix.size()) continue;
    const size_t digits = name.size() - prefix.size() - suffix.size();
    if (name.compare(0, prefix.size(), prefix) == 0 &&
        name.compare(prefix.size() + digits, suffix.size(), suffix) == 0 &&
        name.find_first_not_of("0123456789", prefix.size()) == prefix.size() + digits) {
      return name;
    }
  }
  return {};
}

}  // namespace proclock
