// The platform of the runtime on the simulated machine: several namespaces, threads that are started or refused, the watcher
// of processes, and for each process a clock of its own.
#pragma once

#include "sim_platform.h"
// After the core.
#ifdef SIM_MUTANTS
#include "../../build/mutants/runtime/client_upgrades.h"
#include "../../build/mutants/runtime/serve.h"
#else
#include "../../native/runtime/client_upgrades.h"
#include "../../native/runtime/serve.h"
#endif

namespace sim {

constexpr int kNamespacesMax = 2;
constexpr uint64_t kTickNs = proclock::kTickNs;

// What the system refuses to a process, and how it treats it.
struct Conditions {
  bool no_threads = false;        // none at all,
  uint32_t threads_refused = 0;   // or not the first ones that are asked for
  bool no_wait_for_many = false;  // one word can be slept on, not several
  bool no_watcher = false;        // its watch thread can not be had,
  uint32_t watches = ~0u;         // or ends after so many orders
  uint32_t pidfds_refused = 0;    // so many of four
  uint32_t late_bits = 0;         // its pidfds tell of an end up to 2^late_bits ns late; 0: at once
  bool silent = false;            // they never do
  bool elsewhere = false;         // in another PID namespace than the others
  uint64_t clock_ahead_ns = 0;
  uint32_t opens_refused = 0;  // so often in a row it can not open a namespace
};

struct RuntimePlatform : Platform {
  class Memory;
  class Watcher;
  using Segment = BasicSegment<RuntimePlatform>;

  static uint64_t monotonic_ns();
  template <class T>
  static void wait(Atomic<T>* word, uint32_t seen, uint64_t deadline_ns, Site site = Site::here()) {
    Platform::wait(word, seen, machine_time(deadline_ns), site);
  }

  struct Sleep {
    Atomic<uint32_t>* word;
    uint32_t seen;
  };
  static constexpr size_t kSleepsMax = sim::kSleepsMax;
  static bool wait_for_any(const std::vector<Sleep>& sleeps, uint64_t deadline_ns, Site site = Site::here());
  static bool start_thread(void* (*run)(void*), void* argument);
  static void name_thread(const char* name) { the_machine.current().doing = name; }
  static const void* thread_id() { return the_machine.running() ? &the_machine.current() : nullptr; }
  static bool is_mapped(const void*) { return true; }
  static ProcessIdentity self();

  static uint64_t machine_time(uint64_t own_ns);
  static Segment& segment(int n) {
    static Segment segments[kNamespacesMax];
    return segments[n];
  }

 private:
  struct Start {
    void* (*run)(void*);
    void* argument;
  };
  static void begin_thread(Actor&, void* argument) {
    const Start start = *static_cast<Start*>(argument);
    delete static_cast<Start*>(argument);
    start.run(start.argument);
  }
};

using Runtime = proclock::Runtime<RuntimePlatform>;
using Client = proclock::Client<RuntimePlatform>;

// A process with a runtime.
struct Host final : Process {
  Host(int n, const Conditions& given);
  static Host& of_running() { return static_cast<Host&>(*the_machine.current().process); }
  ProcessIdentity identity() const {
    ProcessIdentity self;
    self.pid = kFirstPid + number;
    self.start_time = 1;
    self.pid_ns = conditions.elsewhere ? 2 : 1;
    return self;
  }
  // Is this its process, as far as `other` can tell?
  bool is_seen_by(const Host& other) const { return conditions.elsewhere == other.conditions.elsewhere; }

  static constexpr int32_t kFirstPid = 100;
  Conditions conditions;
  // As in a process, it is never destroyed. What the stacks of killed threads refer to is lost with it, which is
  // why few schedules run in one process of ours.
  Runtime* const runtime;
  RuntimePlatform::Watcher* watcher = nullptr;
  bool knows_no_wait_for_many = false;
  int loops = 0;  // JavaScript threads that have not ended
};

// A mutant of the platform: it finds out that it can not wait for several words, and has slept on one of them before it says so.
inline bool sleeps_before_it_says = false;

// Those that there are.
inline std::vector<Host*> the_hosts;

inline uint64_t RuntimePlatform::monotonic_ns() {
  return the_machine.now_ns + (the_machine.running() ? Host::of_running().conditions.clock_ahead_ns : 0);
}

inline uint64_t RuntimePlatform::machine_time(uint64_t own_ns) {
  if (own_ns == kForever || !the_machine.running()) return own_ns;
  const uint64_t ahead_ns = Host::of_running().conditions.clock_ahead_ns;
  return own_ns > ahead_ns ? own_ns - ahead_ns : 0;
}

inline ProcessIdentity RuntimePlatform::self() { return Host::of_running().identity(); }

inline bool RuntimePlatform::wait_for_any(const std::vector<Sleep>& sleeps, uint64_t deadline_ns, Site site) {
  the_machine.step(Machine::kHot, 'w', site);
  const bool all = sleeps.size() == 1 || !Host::of_running().conditions.no_wait_for_many;
  if (!all && !Host::of_running().knows_no_wait_for_many && !sleeps_before_it_says) {
    Host::of_running().knows_no_wait_for_many = true;
    return false;
  }
  const size_t count = all ? sleeps.size() : 1;
  SIM_CHECK(count <= kSleepsMax);
  the_machine.full_fence();
  std::array<const void*, kSleepsMax> words = {};
  bool changed = false;
  for (size_t n = 0; n < count; n++) {
    words[n] = sleeps[n].word;
    the_machine.compared(words[n], sleeps[n].word->latest());
    changed = changed || sleeps[n].word->latest() != sleeps[n].seen;
  }
  if (!changed) the_machine.sleep_on(words, machine_time(deadline_ns), true);
  the_machine.full_fence();
  return all;
}

inline bool RuntimePlatform::start_thread(void* (*run)(void*), void* argument) {
  the_machine.yield();
  Conditions& conditions = Host::of_running().conditions;
  if (conditions.no_threads || !the_machine.has_room() || Host::of_running().dying) return false;
  if (conditions.threads_refused != 0) {
    conditions.threads_refused--;
    return false;
  }
  the_machine.start_actor(Host::of_running(), &begin_thread, new Start{run, argument});
  return true;
}

// ---- memory

class RuntimePlatform::Memory {
 public:
  Memory() = default;
  // For whoever looks at a namespace when all is over.
  Memory(Host& host, int n) : host_(&host), segment_(&segment(n)) {}
  ~Memory() { reset(); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  Status open(const char* name, int64_t, proclock::OpenFailure*, proclock::Opening) {
    the_machine.yield();
    Host& host = Host::of_running();
    if (host.conditions.opens_refused != 0) {
      host.conditions.opens_refused--;
      return Status::kSystem;
    }
    reset();
    host_ = &host;
    segment_ = &segment(name[0] - 'a');
    return Status::kOk;
  }
  void attached() {}
  Status check() const { return Status::kOk; }
  void reset() {
    if (number_ != 0) segment_->give_back(number_);
    number_ = 0;
  }
  void reset_after_fork() {}

  char* base() const { return segment_->base(); }
  Status reserve(size_t offset, size_t bytes, Site site = Site::here()) {
    the_machine.step(Machine::kHot, 'p', site);
    return segment_->reserve(offset, bytes);
  }
  bool claim(uint64_t number, Site site = Site::here()) {
    the_machine.step(Machine::kHot, 'q', site);
    if (segment_->owner(number) != nullptr) return false;
    segment_->give(number, *host_);
    number_ = number;
    return true;
  }
  void number_without_token(uint64_t number) { number_ = number; }
  uint64_t number() const { return number_; }
  bool can_ask() const { return true; }
  Liveness liveness(uint64_t number, Site site = Site::here()) const {
    the_machine.step(Machine::kHot, '?', site);
    const Process* owner = segment_->owner(number);
    return owner != nullptr && (owner->open || owner->token_kept) ? Liveness::kAlive : Liveness::kDead;
  }
  // A pid lives on where its process has become another program.
  Liveness liveness(const ProcessIdentity& identity, Site site = Site::here()) const {
    the_machine.step(Machine::kHot, '?', site);
    if (!host_->identity().same_namespace(identity)) return Liveness::kAlive;
    const Host* host = the_hosts[static_cast<size_t>(identity.pid - Host::kFirstPid)];
    return host->open || host->execs ? Liveness::kAlive : Liveness::kDead;
  }

 private:
  Host* host_ = nullptr;
  Segment* segment_ = nullptr;
  uint64_t number_ = 0;
};

// ---- the watcher

// As that of Linux: a thread that carries out orders, and sleeps until one of its pidfds tells of an end.
class RuntimePlatform::Watcher {
 public:
  struct Key {
    uint32_t space;
    uint64_t process;
    bool operator==(const Key& other) const { return space == other.space && process == other.process; }
  };
  struct Event {
    Key key;
    bool ended;
  };
  Watcher(void (*notify)(void* data), void* data) : notify_(notify), data_(data) {}

  bool watch(Key key, int32_t pid, uint64_t) {
    const std::lock_guard<LocalMutex> locked(mutex_);
    return (runs_ || start()) && tell({key, pid});
  }
  void forget(Key key) {
    const std::lock_guard<LocalMutex> locked(mutex_);
    if (runs_) tell({key, 0});
  }
  std::vector<Event> take_events() {
    const std::lock_guard<LocalMutex> locked(mutex_);
    std::vector<Event> events;
    events.swap(events_);
    return events;
  }
  void reset_after_fork() {}

  // The kernel's side: this process has ended.
  void process_ended(const Host& host) {
    Host& own = *host_;
    for (Watched& one : watched_) {
      if (one.host != &host || own.conditions.silent) continue;
      one.due_ns =
          the_machine.now_ns +
          (own.conditions.late_bits == 0 ? 0 : the_machine.random.up_to_power(own.conditions.late_bits));
    }
    the_machine.wake_all(&orders_word_);
  }

 private:
  struct Order {
    Key key;
    int32_t pid;
  };
  struct Watched {
    Key key;
    const Host* host;
    uint64_t due_ns;
  };

  bool tell(const Order& order) {
    orders_.push_back(order);
    orders_word_.fetch_add(1, std::memory_order_release);
    Platform::wake(&orders_word_);
    return true;
  }
  bool start() {
    host_ = &Host::of_running();
    if (host_->conditions.no_watcher) return false;
    runs_ = start_thread(&Watcher::run, this);
    if (runs_) host_->watcher = this;
    return runs_;
  }
  static void* run(void* self) {
    name_thread("watch");
    static_cast<Watcher*>(self)->loop();
    return nullptr;
  }
  void loop() {
    for (;;) {
      const uint32_t seen = orders_word_.load(std::memory_order_acquire);
      std::vector<Order> orders;
      {
        const std::lock_guard<LocalMutex> locked(mutex_);
        orders.swap(orders_);
      }
      std::vector<Event> events;
      for (const Order& order : orders) {
        if (host_->conditions.watches-- == 0) return end(orders, &order, std::move(events));
        carry_out(order, &events);
      }
      uint64_t next_ns = kForever;
      for (size_t n = watched_.size(); n-- > 0;) {
        if (watched_[n].due_ns <= the_machine.now_ns) {
          events.push_back({watched_[n].key, true});
          watched_.erase(watched_.begin() + static_cast<ptrdiff_t>(n));
        } else {
          next_ns = std::min(next_ns, watched_[n].due_ns);
        }
      }
      report(events);
      if (!events.empty()) continue;
      the_machine.step(Machine::kHot, 'w', Site::here());
      next_ns = kForever;
      for (const Watched& one : watched_) next_ns = std::min(next_ns, one.due_ns);
      the_machine.full_fence();
      if (orders_word_.latest() == seen && next_ns > the_machine.now_ns)
        the_machine.sleep(&orders_word_, next_ns, true);
      the_machine.full_fence();
    }
  }
  void carry_out(const Order& order, std::vector<Event>* events) {
    the_machine.yield();
    const auto known = std::find_if(watched_.begin(), watched_.end(),
                                    [&](const Watched& one) { return one.key == order.key; });
    if (known != watched_.end()) watched_.erase(known);
    if (order.pid == 0) return;
    const Host* host = the_hosts[static_cast<size_t>(order.pid - Host::kFirstPid)];
    if (the_machine.random.below(4) < host_->conditions.pidfds_refused) {
      events->push_back({order.key, false});
    } else if (!host->open && !host->execs && !host_->conditions.silent) {
      events->push_back({order.key, true});
    } else {
      watched_.push_back({order.key, host, kForever});
    }
  }
  void report(const std::vector<Event>& events) {
    if (events.empty()) return;
    {
      const std::lock_guard<LocalMutex> locked(mutex_);
      events_.insert(events_.end(), events.begin(), events.end());
    }
    notify_(data_);
  }
  // What was watched is not watched any more, and what was ordered is not either.
  void end(const std::vector<Order>& orders, const Order* left, std::vector<Event> events) {
    host_->conditions.watches = ~0u;
    for (const Watched& one : watched_) events.push_back({one.key, false});
    watched_.clear();
    for (; left != orders.data() + orders.size(); left++) {
      if (left->pid != 0) events.push_back({left->key, false});
    }
    {
      const std::lock_guard<LocalMutex> locked(mutex_);
      for (const Order& order : orders_) {
        if (order.pid != 0) events.push_back({order.key, false});
      }
      orders_.clear();
      runs_ = false;
      host_->watcher = nullptr;
    }
    report(events);
  }

  void (*const notify_)(void* data);
  void* const data_;
  LocalMutex mutex_;
  bool runs_ = false;
  std::vector<Order> orders_;
  std::vector<Event> events_;
  Atomic<uint32_t> orders_word_{0};
  Host* host_ = nullptr;
  std::vector<Watched> watched_;  // the thread's alone
};

inline Host::Host(int n, const Conditions& given) : conditions(given), runtime(new Runtime()) {
  number = n;
  open = true;
}

}  // namespace sim
