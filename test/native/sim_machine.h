// A simulated machine in one thread: actors (threads of simulated processes) that run as fibers, one at a time, and are
// switched, stopped or killed between any two of their steps in shared memory. Every choice comes from one seed, or, when
// all schedules are enumerated, from a list of decisions: the same seed is the same run.
//
// Memory is as weak as the C++ model lets it be, short of reading from the future: each location keeps its last values, and
// an actor may read an old one unless a newer one happens before its read. What orders reads: release and acquire, the
// total order of the sequentially consistent operations and fences, a process's own mutexes, and the kernel (a futex call is
// a fence; what a process did has arrived everywhere when it is gone). Nothing orders a relaxed read, not
// even a locked instruction before it. So an order that is missing in the source is missing here, on whatever processor.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <deque>
#include <utility>
#include <vector>

#include "harness.h"
#include "sim_fiber.h"

namespace sim {

constexpr int kActorsMax = 12;
constexpr int kSleepsMax = 4;  // words on which an actor may sleep at once
constexpr uint64_t kForever = ~uint64_t{0};

// Where in the source a step is.
struct Site {
  const char* function;
  const char* file;
  int line;
  static constexpr Site here(const char* function = __builtin_FUNCTION(), const char* file = __builtin_FILE(),
                             int line = __builtin_LINE()) {
    return {function, file, line};
  }
};

class Random {
 public:
  explicit Random(uint64_t seed = 0) : state_(seed * 0x9e3779b97f4a7c15u + 0x1234567u) { next(); }
  uint64_t next() {
    state_ += 0x9e3779b97f4a7c15u;
    uint64_t z = state_;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
  }
  uint32_t below(uint32_t n) { return static_cast<uint32_t>((next() >> 32) * n >> 32); }
  bool one_in(uint32_t n) { return below(n) == 0; }
  // Of every magnitude alike.
  uint64_t up_to_power(uint32_t bits) { return 1 + (next() & ((uint64_t{1} << below(bits + 1)) - 1)); }

 private:
  uint64_t state_;
};

// A vector clock: how much of what each actor did is known.
struct Clock {
  uint32_t at[kActorsMax] = {};
  void join(const Clock& other) {
    for (int i = 0; i < kActorsMax; i++) at[i] = at[i] > other.at[i] ? at[i] : other.at[i];
  }
  bool covers(const Clock& other) const {
    for (int i = 0; i < kActorsMax; i++) {
      if (at[i] < other.at[i]) return false;
    }
    return true;
  }
};

enum class State { kUnused, kReady, kAsleep, kStopped, kDone, kDead };

struct Process;

struct Actor {
  Fiber fiber;
  State state = State::kUnused;
  int id = 0;
  Process* process = nullptr;
  void (*body)(Actor&, void*) = nullptr;
  void* argument = nullptr;
  std::array<const void*, kSleepsMax> sleeps_on = {};
  uint64_t until_ns = 0;
  bool idle = false;  // sleeps as a waiter does, not in the middle of an operation
  const void* listens_to =
      nullptr;  // a word on which a thread of the process still sleeps, while this one does another's work
  bool woken = false;     // that thread was woken
  bool outside = false;   // of any operation of the core, though it runs
  bool notified = false;  // what its process told it inside of itself, or the kernel about a death
  uint64_t dies_at = kForever;
  uint32_t fuse = 0;  // dies before this many changes of what others can see; 0: does not
  int mutexes = 0;    // of its process that it has locked
  uint32_t priority = 0;
  std::array<uint64_t, 2> thread_locals = {};  // while it does not run
  uint64_t period_ends_ns = 0;                 // and how many steps it has taken since that began
  uint64_t steps = 0;
  bool sleeps_on_word(const void* word) const {
    return std::find(sleeps_on.begin(), sleeps_on.end(), word) != sleeps_on.end();
  }
  // Memory.
  Clock known;       // happens before its next step
  Clock fenced;      // was known at its last fence
  Clock acquirable;  // would be known after a fence
  uint64_t fenced_at = 0;
  const char* doing = "";
};

// A process: what the kernel knows of it.
struct Process {
  int number = 0;
  bool open = false;        // it lives, and has its token
  bool token_kept = false;  // it is gone, and a child that shares its open files has the token still
  bool dying = false;
  bool execs = false;  // it is gone in that its pid is another program by now
  uint64_t gone_at = kForever;
  int threads = 0;
  uint64_t stopped_until_ns = 0;  // as a whole
  uint64_t stopped_ns = 0;        // when it was last
};

// What may happen in a schedule, apart from switches.
struct Plan {
  bool weak = false;
  uint32_t stale_one_in = 4;  // how often a read that may be old is old
  bool by_priority = false;   // switch only where the priorities change, or somebody has to wait
  uint32_t switch_mean = 64;  // in ticks, if not by priority
  uint32_t priority_changes = 0;
  uint32_t deaths = 0;
  uint32_t stops = 0;
  uint32_t magnitude = 12;  // deaths and stops come after up to 2^magnitude ticks
  bool in_latch = false;    // whoever dies, dies inside the latch
  bool stops_in_latch = false;
  bool long_stops = false;  // long enough to be passed over, and for others to be tired of waiting
  uint64_t longest_stop_ns = 400000000;  // about
  bool spins = false;                    // there are processors enough
  bool blind = false;                    // nobody is told of a death: it has to be asked about
  bool whole_stops = false;              // of processes, rather than of threads
  // Where everybody sleeps, before the time passes, somebody is killed or stopped once in so many times; 0: never.
  uint32_t disturb_one_in = 0;
  bool at_rest = false;  // and never otherwise
  uint64_t shortest_stop_ns = 0;
  uint32_t timer_bits = 0;        // what sleeps until a time sleeps up to 2^timer_bits ns longer
  uint32_t exec_one_in = 0;       // so many of the deaths are another program in the same process
  uint64_t steps_per_period = 0;  // more than so many in 50 ms are a fault; 0: that is not counted
  bool keeps_token = false;       // whoever is gone may have left its token to a child
};

// A list of decisions that is counted through: the next run takes the last one that has alternatives another way.
class Decisions {
 public:
  void begin() { next_ = 0; }
  uint32_t take(uint32_t alternatives) {
    if (next_ == taken_.size()) taken_.push_back({0, alternatives});
    Decision& decision = taken_[next_++];
    if (decision.alternatives != alternatives) {
      fprintf(stderr, "  the same decisions led elsewhere\n");
      abort();
    }
    return decision.chosen;
  }
  // False: all were made.
  bool advance() {
    taken_.resize(next_);
    while (!taken_.empty() && taken_.back().chosen + 1 == taken_.back().alternatives) taken_.pop_back();
    if (taken_.empty()) return false;
    taken_.back().chosen++;
    return true;
  }

 private:
  struct Decision {
    uint32_t chosen, alternatives;
  };
  std::vector<Decision> taken_;
  size_t next_ = 0;
};

// One memory order of the source, made weaker on purpose.
struct Weakening {
  const char* file = nullptr;
  int line = 0;
};

struct OrderSite {
  Site site;
  std::memory_order order;
  char kind;  // as in the trace
};

class Machine {
 public:
  static constexpr uint32_t kHot = 16;  // ticks of a step that others look at without the latch
  static constexpr uint32_t kCold = 1;  // and of one in a list, behind it
  static constexpr uint64_t kStepNs = 25;
  static constexpr uint64_t kStepsMax = 2000000;
  static constexpr uint64_t kLongRestNs = 500000000;
  static constexpr uint64_t kTimeTicks = 4096;  // so often it is looked whose time has come while others run

  // The world that runs on the machine.
  class Observer {
   public:
    virtual void gone(Process& process) = 0;  // it has just ended, and its token was dropped
    // Has it a table entry, which tells of its pid? Otherwise its token is all that tells of it.
    virtual bool is_entered(const Process& process) = 0;
    virtual bool is_inside(const Actor& actor) = 0;  // the latch
    virtual void busy() = 0;                         // everybody sleeps, and somebody does so in an operation
    // Everybody who lives sleeps, outside of any operation; but for those that are stopped.
    virtual void quiet() = 0;
    virtual void dying(Actor& actor) = 0;

   protected:
    ~Observer() = default;
  };

  // ---- a run

  void begin(const Plan& plan, uint64_t seed, Decisions* decisions, Observer* observer) {
    plan_ = plan;
    random = Random(seed);
    decisions_ = decisions;
    observer_ = observer;
    actors_ = 0;
    running_ = nullptr;
    now_ns = 1000000;
    ticks_ = steps = 0;
    traced_ = 0;
    deaths = stops = switches = gone = 0;
    last_fault_ns = 0;
    deaths_left_ = plan.deaths;
    stops_left_ = plan.stops;
    preemptions_left = 0;
    kills_left = 0;
    switch_at_ = death_at_ = stop_at_ = kForever;
    processes_.clear();
    fences_ = Clock();
    generation_++;
    locations_used_ = 0;
    storages_.clear();
  }

  Actor& add_actor(Process& process, void (*body)(Actor&, void*), void* argument) {
    if (actors_ == kActorsMax) fail("too many actors");
    Actor& actor = actor_[actors_];
    Fiber keep = actor.fiber;
    actor = Actor();
    actor.fiber = keep;
    actor.id = actors_++;
    actor.process = &process;
    actor.body = body;
    actor.argument = argument;
    actor.state = State::kReady;
    actor.priority = random.below(1u << 16) + 1000;
    actor.fiber.prepare(&Machine::enter, &actor);
    process.threads++;
    if (process.threads == 1) processes_.push_back(&process);
    return actor;
  }

  bool has_room() const { return actors_ < kActorsMax; }
  // A thread that the running one starts: it knows what that one knows.
  Actor& start_actor(Process& process, void (*body)(Actor&, void*), void* argument) {
    Actor& actor = add_actor(process, body, argument);
    tick(*running_);
    actor.known = actor.fenced = running_->known;
    if (plan_.by_priority) event_at_ = 0;
    return actor;
  }

  // Runs until everybody is done or dead.
  void run() {
    plan_switch();
    plan_death(plan_.magnitude);
    if (plan_.stops != 0 && !plan_.long_stops && !plan_.at_rest)
      stop_at_ = random.up_to_power(plan_.magnitude);
    plan_next();
    Actor* next = pick();
    if (next == nullptr) return;
    running_ = next;
    give_thread_locals(*next);
    fiber_switch(main_, next->fiber);
    running_ = nullptr;
  }

  // What the source has once for each thread, and here once for each actor.
  std::array<void*, 2> thread_locals = {};

  // Looks at what the actors share, between two of their steps.
  template <class Look>
  auto peek(Look look) {
    Actor* const self = running_;
    running_ = nullptr;
    const auto seen = look();
    running_ = self;
    return seen;
  }

  bool running() const { return running_ != nullptr; }
  Actor& current() { return *running_; }

  // ---- steps

  void step(uint32_t weight, char kind, const Site& site) {
    if (running_ == nullptr) return;
    trace(kind, site);
    now_ns += kStepNs;
    ticks_ += weight;
    if (++steps > kStepsMax) fail("does not end");
    if (plan_.steps_per_period != 0) count_step();
    if (running_->fuse != 0 && changes(kind) && --running_->fuse == 0) return kill_running();
    if (decisions_ != nullptr) {
      if (weight == kHot) decide_step();
    } else if (ticks_ >= event_at_) {
      events();
    }
  }
  // At the beginning of an operation: whoever begins it may die soon after.
  void begins() {
    if (deaths_left_ == 0 || plan_.at_rest || plan_.in_latch || !random.one_in(4)) return;
    death_at_ = ticks_ + random.up_to_power(9);
    event_at_ = std::min(event_at_, death_at_);
  }
  // Where a waiter sleeps, or is stopped for so long that it is passed over.
  void about_to_sleep(const Site& site = Site::here()) {
    step(kHot, 'w', site);
    if (plan_.long_stops && stops_left_ != 0 && random.one_in(3)) {
      // Until about the time at which the others look around, or longer.
      stop_running(random.below(4) * 50000000 +
                   (random.one_in(3) ? plan_.longest_stop_ns : 50000000 + random.below(4000) - 2000));
    }
  }
  // Is this a step before which to die is another matter than to die before the next one?
  static bool changes(char kind) { return strchr("smcuikpq", kind) != nullptr; }
  // Outside of any operation, where an actor may rest as well.
  void yield(const Site& site = Site::here()) { step(kHot, 'y', site); }

  // Sleeps until woken or notified, or until the time has come.
  void sleep(const void* word, uint64_t until_ns, bool idle) { sleep_on({word}, until_ns, idle); }
  void sleep_on(const std::array<const void*, kSleepsMax>& words, uint64_t until_ns, bool idle) {
    Actor& self = *running_;
    self.sleeps_on = words;
    self.until_ns = until_ns;
    self.idle = idle;
    self.state = State::kAsleep;
    leave();
    self.sleeps_on = {};
    self.idle = false;
  }
  void wake_all(const void* word) {
    for (Actor& actor : actors()) {
      if (actor.listens_to == word) actor.woken = true;
      if (actor.state == State::kAsleep && actor.sleeps_on_word(word)) make_ready(actor);
    }
  }
  void wake_one(const void* word) {
    Actor* found[kActorsMax];
    uint32_t count = 0;
    for (Actor& actor : actors()) {
      if (actor.state == State::kAsleep && actor.sleeps_on_word(word)) found[count++] = &actor;
    }
    if (count != 0) make_ready(*found[decide(count)]);
  }
  void notify(Actor& actor) {
    actor.notified = true;
    if (actor.state == State::kAsleep && actor.idle) make_ready(actor);
  }

  uint32_t decide(uint32_t alternatives) {
    if (alternatives <= 1) return 0;
    return decisions_ != nullptr ? decisions_->take(alternatives) : random.below(alternatives);
  }

  // The running actor's process is killed. Its other threads get a little further, each for itself.
  void kill_running() {
    deaths++;
    last_fault_ns = now_ns;

    if (plan_.exec_one_in != 0) running_->process->execs = random.one_in(plan_.exec_one_in);
    end_process();
  }
  // The running actor's process ends.
  void end_process() {
    Actor& self = *running_;
    Process& process = *self.process;
    process.dying = true;
    for (Actor& other : actors()) {
      if (other.process != &process || &other == &self) continue;
      if (other.state == State::kReady && !is_stopped(other)) {
        other.dies_at = ticks_ + random.below(64) * kHot;
        event_at_ = 0;
      } else if (other.state != State::kDone && other.state != State::kDead) {
        end_thread(other);
      }
    }
    end_thread(self);
    leave();
  }

  // The process closes its segment, or is ended by somebody who drives it.
  void close(Process& process) { process.open = false; }

  // ---- mutexes between the threads of a process

  struct LocalMutex {
    int owner = -1;
    Clock released;
  };
  void lock(LocalMutex& mutex, const Site& site) {
    if (running_ == nullptr) return;
    step(kCold, '(', site);
    while (mutex.owner >= 0) sleep(&mutex, kForever, false);
    Actor& self = *running_;
    mutex.owner = self.id;
    self.mutexes++;
    self.known.join(mutex.released);
  }
  void unlock(LocalMutex& mutex, const Site& site) {
    if (running_ == nullptr) return;
    step(kCold, ')', site);
    Actor& self = *running_;
    if (mutex.owner != self.id) fail("a mutex is unlocked by somebody who has not got it");
    tick(self);
    mutex.released = self.known;
    mutex.owner = -1;
    self.mutexes--;
    wake_one(&mutex);
  }

  // ---- memory

  bool weak() const { return running_ != nullptr && plan_.weak; }

  void fence(const Site& site) {
    step(kHot, 'f', site);
    if (running_ == nullptr) return;
    note_order(site, std::memory_order_seq_cst, 'f');
    if (weakened(site)) return;
    full_fence();
  }
  // What the kernel does when it is entered and left.
  void full_fence() {
    if (!weak()) return;
    Actor& self = *running_;
    self.known.join(self.acquirable);
    self.known.join(fences_);
    tick(self);
    fences_ = self.known;
    self.fenced = self.known;
    self.fenced_at = ticks_;
  }

  // `latest` is what the location says now; the answer what the actor reads.
  uint64_t load(const void* address, uint64_t latest, std::memory_order order) {
    Location& location = find(address, latest);
    Actor& self = *running_;
    uint32_t oldest = location.oldest_for(self);
    if (order == std::memory_order_seq_cst) oldest = std::max(oldest, location.oldest_sc(fences_));
    uint32_t chosen = location.last;
    if (oldest != location.last && random.one_in(plan_.stale_one_in)) {
      chosen = oldest + random.below(location.last - oldest);
      stale_reads++;
    }
    location.seen[self.id] = chosen;
    read(self, location.at(chosen), order);
    return location.at(chosen).value;
  }
  void store(const void* address, uint64_t before, uint64_t value, std::memory_order order) {
    Location& location = find(address, before);
    append(location, value, order, nullptr);
  }
  // A read-modify-write reads the latest value there is.
  void modify(const void* address, uint64_t before, uint64_t value, std::memory_order order) {
    Location& location = find(address, before);
    const Value last = location.at(location.last);
    location.seen[running_->id] = location.last;
    read(*running_, last, order);
    append(location, value, order, &last);
  }
  void modify_failed(const void* address, uint64_t latest, std::memory_order order) {
    Location& location = find(address, latest);
    location.seen[running_->id] = location.last;
    read(*running_, location.at(location.last), order);
  }

  // The kernel compares a futex word with what it is now; nothing older is read after that.
  void compared(const void* address, uint64_t latest) {
    if (!weak()) return;
    Location& location = find(address, latest);
    location.seen[running_->id] = location.last;
  }

  std::memory_order effective(const Site& site, std::memory_order order, char kind) {
    if (order == std::memory_order_relaxed || running_ == nullptr) return order;
    note_order(site, order, kind);
    if (!weakened(site)) return order;
    switch (order) {
      case std::memory_order_seq_cst:
        return weaken_to_relaxed ? std::memory_order_relaxed : std::memory_order_acq_rel;
      default:
        return std::memory_order_relaxed;
    }
  }

  // ---- rwlocks

  // A word that begins to exist, where another one may have been.
  void begin_word(const void* address, uint64_t value) {
    if (!weak()) return;
    Location& location = find(address, value);
    location.first = location.last = 0;
    location.seen.fill(0);
    location.values[0] = Value();
    location.values[0].value = value;
  }

  // What is known of one beyond its word: for checks alone.
  struct Lock {
    bool initialised = false;
    Clock by;         // its initialisation
    Clock used;       // every access since
    int writer = -1;  // the actor that has it exclusively; -1: nobody, -2: somebody outside of the run
  };
  Lock& lock_state(const void* rwlock) {
    for (auto& entry : storages_) {
      if (entry.first == rwlock) return entry.second;
    }
    storages_.push_back({rwlock, Lock()});
    return storages_.back().second;
  }
  void use(Lock& lock) {
    if (!lock.initialised) fail("a storage is used that was never initialised");
    if (running_ == nullptr || !plan_.weak) return;
    Actor& self = *running_;
    if (!self.known.covers(lock.by)) fail("a storage is used, and its initialisation may not be visible yet");
    tick(self);
    lock.used.at[self.id] = self.known.at[self.id];
  }
  void renew(Lock& lock) {
    if (running_ != nullptr && plan_.weak) {
      Actor& self = *running_;
      if (!self.known.covers(lock.used))
        fail("a storage is initialised while an access to it may not be over");
      tick(self);
      lock.by = self.known;
    }
    lock.initialised = true;
    lock.writer = -1;
  }

  // ---- failures

  [[noreturn]] void fail(const char* what);
  const char* (*describe)() = nullptr;  // the run, for the message of a failure

  // The actors of this run.
  struct Range {
    Actor* first;
    Actor* last;
    Actor* begin() const { return first; }
    Actor* end() const { return last; }
  };
  Range actors() { return {actor_.data(), actor_.data() + actors_}; }
  const Plan& plan() const { return plan_; }
  uint64_t ticks() const { return ticks_; }

  Random random;
  uint64_t now_ns = 0;
  uint64_t steps = 0;
  uint32_t deaths = 0, stops = 0, switches = 0;
  uint64_t stale_reads = 0;
  uint64_t steps_most = 0;     // of an actor in a period
  uint32_t gone = 0;           // processes
  uint64_t last_fault_ns = 0;  // when somebody last died, or was stopped, or went on
  Weakening weakening;
  bool weaken_to_relaxed = true;
  std::vector<OrderSite>* order_sites = nullptr;  // collected if not null
  // For an enumeration: how many switches that nobody had to make, and how many deaths, there may still be.
  uint32_t preemptions_left = 0;
  uint32_t kills_left = 0;
  bool verbose = false;

 private:
  // ---- who runs

  static void enter(void* argument) {
    Actor& self = *static_cast<Actor*>(argument);
    self.fiber.entered();
    self.body(self, self.argument);
    machine().end_running();
  }
  void end_running() {
    Actor& self = *running_;
    self.state = State::kDone;
    Process& process = *self.process;
    if (--process.threads == 0) drop(process);
    leave();
  }

  void make_ready(Actor& actor) {
    actor.state = State::kReady;
    if (plan_.by_priority) event_at_ = 0;
  }

  // The next one to run; null if everybody is done or dead.
  Actor* pick() {
    for (;;) {
      Actor* ready[kActorsMax];
      uint32_t count = 0;
      Actor* highest = nullptr;
      for (Actor& actor : actors()) {
        if (actor.state != State::kReady || is_stopped(actor)) continue;
        ready[count++] = &actor;
        if (highest == nullptr || actor.priority > highest->priority) highest = &actor;
      }
      if (count != 0) return plan_.by_priority ? highest : ready[decide(count)];
      if (!pass_time()) return nullptr;
    }
  }

  // Nobody can run: what the kernel still has to do, then the next deadline.
  bool pass_time() {
    bool gone = false;
    for (Actor& actor : actors()) {
      if (actor.dies_at == kForever || actor.state == State::kDead || actor.state == State::kDone) continue;
      end_thread(actor);
      gone = true;
    }
    for (Process* process : processes_) {
      if (process->gone_at == kForever) continue;
      drop(*process);
      gone = true;
    }
    if (gone) return true;
    Actor* next = nullptr;
    uint64_t next_ns = kForever;
    bool quiet = true;
    bool anybody = false;
    for (Actor& actor : actors()) {
      const bool stopped = is_stopped(actor);
      if (actor.state != State::kAsleep && actor.state != State::kStopped && !stopped) continue;
      anybody = true;
      if (actor.state == State::kAsleep ? !actor.idle : !actor.outside) quiet = false;
      // A stopped process goes on first, whatever its threads wait for.
      const uint64_t until_ns = stopped ? actor.process->stopped_until_ns : actor.until_ns;
      if (until_ns < next_ns) {
        next_ns = until_ns;
        next = &actor;
      }
    }
    if (!anybody) return false;
    if (quiet) {
      observer_->quiet();
    } else {
      observer_->busy();
    }
    if (next == nullptr) fail("everybody sleeps for ever");
    const bool disturbs = plan_.disturb_one_in != 0 && deaths_left_ + stops_left_ != 0;
    // In a long rest rather than before one of many short ones.
    const uint32_t one_in = next_ns - now_ns > kLongRestNs ? 3 : plan_.disturb_one_in;
    if (disturbs && random.one_in(one_in) && disturb(next_ns)) return true;
    now_ns = std::max(now_ns, next_ns);
    if (plan_.timer_bits != 0) now_ns += random.up_to_power(plan_.timer_bits);
    settle_memory();
    if (next->process->stopped_until_ns != 0) {
      go_on(*next->process);
    } else {
      make_ready(*next);
    }
    if (plan_.timer_bits != 0) wake_sleepers();
    return true;
  }
  void wake_sleepers() {
    for (Actor& actor : actors()) {
      const bool sleeps = actor.state == State::kStopped || actor.state == State::kAsleep;
      if (sleeps && now_ns >= actor.until_ns) make_ready(actor);
    }
  }

  bool is_stopped(const Actor& actor) const {
    return actor.process->stopped_until_ns != 0 && actor.state != State::kDone && actor.state != State::kDead;
  }
  // Or it is killed without ever having gone on.
  void go_on(Process& process) {
    process.stopped_until_ns = 0;
    last_fault_ns = now_ns;
    if (plan_.by_priority) event_at_ = 0;
    if (deaths_left_ != 0 && !process.dying && random.one_in(4)) kill_at_rest(process);
  }
  void kill_at_rest(Process& process) {
    if (--deaths_left_ == 0) death_at_ = kForever;
    deaths++;
    last_fault_ns = now_ns;
    process.dying = true;
    if (plan_.exec_one_in != 0) process.execs = random.one_in(plan_.exec_one_in);
    for (Actor& actor : actors()) {
      if (actor.process == &process && actor.state != State::kDone && actor.state != State::kDead)
        end_thread(actor);
    }
  }
  // Of a process: up to two seconds.
  uint64_t long_stop_ns() {
    return plan_.shortest_stop_ns +
           (random.one_in(4) ? random.up_to_power(20) : 1000000 * random.up_to_power(11));
  }
  // While everybody sleeps, until `next_ns` at the latest, a process is killed or stopped. False: it is not there any more.
  bool disturb(uint64_t next_ns) {
    Process& process = *processes_[random.below(static_cast<uint32_t>(processes_.size()))];
    if (process.dying || process.stopped_until_ns != 0 || process.threads == 0) return false;
    if (next_ns > now_ns && random.one_in(2)) now_ns += random.next() % (next_ns - now_ns);
    if (deaths_left_ != 0 && (stops_left_ == 0 || random.one_in(2))) {
      kill_at_rest(process);
    } else {
      if (--stops_left_ == 0) stop_at_ = kForever;
      stops++;
      last_fault_ns = process.stopped_ns = now_ns;

      process.stopped_until_ns = now_ns + long_stop_ns();
    }
    return true;
  }

  void count_step() {
    Actor& self = *running_;
    if (now_ns >= self.period_ends_ns) {
      self.period_ends_ns = now_ns + 50000000;
      steps_most = std::max(steps_most, self.steps);
      self.steps = 0;
    }
    if (++self.steps > plan_.steps_per_period) fail("a thread spins");
  }

  void take_thread_locals(Actor& from) {
    for (size_t n = 0; n < thread_locals.size(); n++) {
      if (thread_locals[n] != nullptr) memcpy(&from.thread_locals[n], thread_locals[n], sizeof(uint64_t));
    }
  }
  void give_thread_locals(const Actor& to) {
    for (size_t n = 0; n < thread_locals.size(); n++) {
      if (thread_locals[n] != nullptr) memcpy(thread_locals[n], &to.thread_locals[n], sizeof(uint64_t));
    }
  }

  // Away from the running actor; returns when it runs again.
  void leave() {
    Actor* self = running_;
    Actor* next = pick();
    if (next == self) return;
    switches++;
    take_thread_locals(*self);
    running_ = next;
    static const Actor nobody;
    give_thread_locals(next == nullptr ? nobody : *next);
    Fiber& to = next == nullptr ? main_ : next->fiber;
    if (self->state == State::kDead || self->state == State::kDone) {
      fiber_leave_for_good(self->fiber, to);
    } else {
      fiber_switch(self->fiber, to);
    }
  }

  void plan_switch() {
    if (plan_.by_priority) {
      switch_at_ = plan_.priority_changes == 0 ? kForever : ticks_ + random.up_to_power(12);
    } else {
      switch_at_ = ticks_ + 1 + random.below(2 * plan_.switch_mean);
    }
  }
  void plan_death(uint32_t magnitude) {
    death_at_ = deaths_left_ == 0 || plan_.at_rest ? kForever : ticks_ + random.up_to_power(magnitude);
    in_latch_ = plan_.in_latch && random.one_in(2);
  }
  void plan_next() {
    event_at_ = std::min(switch_at_, std::min(death_at_, stop_at_));
    for (Actor& actor : actors()) event_at_ = std::min(event_at_, actor.dies_at);
    for (const Process* process : processes_) event_at_ = std::min(event_at_, process->gone_at);
    if (plan_.steps_per_period != 0) event_at_ = std::min(event_at_, ticks_ + kTimeTicks);
  }

  // Before a step of the running actor, when something is due.
  void events() {
    Actor& self = *running_;
    for (Process* process : processes_) {
      if (ticks_ >= process->gone_at) drop(*process);
      if (process->stopped_until_ns != 0 && now_ns >= process->stopped_until_ns) go_on(*process);
    }
    if (ticks_ >= self.dies_at) {
      self.dies_at = kForever;
      end_thread(self);
      plan_next();
      return leave();
    }
    for (Actor& actor : actors()) {  // not running now, and dead before it runs again
      if (ticks_ < actor.dies_at) continue;
      actor.dies_at = kForever;
      if (actor.state != State::kDead && actor.state != State::kDone) end_thread(actor);
    }
    if (ticks_ >= death_at_ && (!in_latch_ || (observer_->is_inside(self) && random.one_in(16)))) {
      deaths_left_--;
      plan_death(random.one_in(2) ? 8 : plan_.magnitude);
      if (!self.process->dying) {
        plan_next();
        return kill_running();
      }
    }
    if (ticks_ >= stop_at_ && (!plan_.stops_in_latch || is_stopped_inside(self))) {
      stop_at_ = stops_left_ == 1 ? kForever : ticks_ + random.up_to_power(plan_.magnitude);
      return stop_running(plan_.whole_stops ? long_stop_ns() : random.up_to_power(27));
    }
    wake_sleepers();
    if (ticks_ >= switch_at_) {
      if (plan_.by_priority) {
        plan_.priority_changes--;
        self.priority = plan_.priority_changes;  // below all others
      }
      plan_switch();
      plan_next();
      return leave();
    }
    plan_next();
    if (plan_.by_priority) leave();  // maybe somebody more important was woken
  }

  // Anywhere inside of the latch, not where it was just entered.
  bool is_stopped_inside(const Actor& actor) {
    return observer_->is_inside(actor) && (!plan_.whole_stops || random.one_in(16));
  }
  void stop_running(uint64_t ns) {
    Actor& self = *running_;
    stops++;
    stops_left_--;
    last_fault_ns = self.process->stopped_ns = now_ns;
    trace('S', Site::here());
    if (plan_.whole_stops) {
      self.process->stopped_until_ns = now_ns + ns;
    } else {
      self.state = State::kStopped;
      self.until_ns = now_ns + ns;
    }
    plan_next();
    leave();
  }

  // Before a step, when all schedules are enumerated: on, or another one, or dead.
  void decide_step() {
    Actor& self = *running_;
    Actor* others[kActorsMax];
    uint32_t count = 0;
    if (preemptions_left != 0) {
      for (Actor& actor : actors()) {
        if (&actor != &self && actor.state == State::kReady) others[count++] = &actor;
      }
    }
    const bool may_die = kills_left != 0 && !self.process->dying && self.process->number == 1;
    const uint32_t choice = decide(1 + count + may_die);
    if (choice == 0) return;
    if (choice > count) {
      kills_left--;
      return kill_running();
    }
    preemptions_left--;
    switches++;
    running_ = others[choice - 1];
    fiber_switch(self.fiber, running_->fiber);
  }

  // ---- death

  void end_thread(Actor& actor) {
    trace_for(actor, 'X', Site::here());
    observer_->dying(actor);
    actor.state = State::kDead;
    actor.dies_at = kForever;
    Process& process = *actor.process;
    if (--process.threads == 0) {
      process.gone_at = ticks_ + (decisions_ != nullptr ? 0 : random.below(16) * kHot);
      if (decisions_ != nullptr) drop(process);
      event_at_ = 0;
    }
  }

  void drop(Process& process) {
    process.gone_at = kForever;
    process.token_kept = process.open && !process.execs && plan_.keeps_token &&
                         observer_->is_entered(process) && random.one_in(2);
    process.open = false;
    gone++;
    observer_->gone(process);
    // What it stored has arrived long before the kernel was through with it.
    Clock all;
    for (Actor& actor : actors()) {
      if (actor.process == &process) all.join(actor.known);
    }
    for (Actor& actor : actors()) {
      if (actor.state == State::kDead || actor.state == State::kDone) continue;
      actor.known.join(all);
      if (actor.state == State::kAsleep && actor.idle && !plan_.blind) make_ready(actor);
    }
  }

  // ---- memory

  static constexpr uint32_t kHistory = 4;
  static constexpr uint32_t kLocationsMax = 1 << 13;

  struct Value {
    uint64_t value = 0;
    Clock released;         // what becomes known to who acquires it
    uint32_t by_clock = 0;  // its place in what its writer did; 0: was there before the run
    uint8_t by = 0;
    bool releases = false;
    bool sc = false;
    uint64_t at = 0;  // tick, if sc
  };
  struct Location {
    uint32_t last = 0;  // running numbers of values; the oldest that is kept
    uint32_t first = 0;
    std::array<uint32_t, kActorsMax> seen = {};
    Value values[kHistory];

    Value& at(uint32_t number) { return values[number % kHistory]; }
    // The oldest value that this actor may read.
    uint32_t oldest_for(const Actor& actor) {
      const uint32_t floor = std::max(first, seen[actor.id]);
      for (uint32_t n = last; n > floor; n--) {
        const Value& value = at(n);
        if (actor.known.at[value.by] >= value.by_clock) return n;
        if (value.sc && value.at <= actor.fenced_at) return n;
      }
      return floor;
    }
    uint32_t oldest_sc(const Clock& fences) {
      for (uint32_t n = last; n > first; n--) {
        const Value& value = at(n);
        if (value.sc || fences.at[value.by] >= value.by_clock) return n;
      }
      return first;
    }
  };

  Location& find(const void* address, uint64_t latest) {
    const uintptr_t key = reinterpret_cast<uintptr_t>(address);
    uint32_t place = static_cast<uint32_t>(key * 0x9e3779b97f4a7c15u >> 40) & (2 * kLocationsMax - 1);
    while (index_[place].generation == generation_) {
      if (index_[place].key == key) return locations_[index_[place].location];
      place = (place + 1) & (2 * kLocationsMax - 1);
    }
    if (locations_used_ == kLocationsMax) fail("too many locations");
    index_[place] = {key, generation_, locations_used_};
    Location& location = locations_[locations_used_++];
    location.first = location.last = 0;
    location.seen.fill(0);
    location.values[0] = Value();
    location.values[0].value = latest;
    return location;
  }
  void tick(Actor& actor) { actor.known.at[actor.id]++; }
  static void read(Actor& self, const Value& value, std::memory_order order) {
    if (!value.releases) return;
    if (order == std::memory_order_relaxed || order == std::memory_order_release) {
      self.acquirable.join(value.released);
    } else {
      self.known.join(value.released);
    }
  }
  void append(Location& location, uint64_t to, std::memory_order order, const Value* before) {
    Actor& self = *running_;
    tick(self);
    location.last++;
    if (location.last - location.first == kHistory) location.first++;
    Value& value = location.at(location.last);
    value.value = to;
    value.by = static_cast<uint8_t>(self.id);
    value.by_clock = self.known.at[self.id];
    value.sc = order == std::memory_order_seq_cst;
    value.at = ticks_;
    value.releases = true;
    value.released =
        order == std::memory_order_relaxed || order == std::memory_order_acquire ? self.fenced : self.known;
    if (before != nullptr && before->releases) value.released.join(before->released);
    location.seen[self.id] = location.last;
  }
  // Everybody slept: whatever was on its way has arrived.
  void settle_memory() {
    if (!plan_.weak) return;
    Clock all;
    for (Actor& actor : actors()) all.join(actor.known);
    for (Actor& actor : actors()) actor.known = all;
  }

  bool weakened(const Site& site) const {
    return weakening.line == site.line && weakening.file != nullptr && strcmp(weakening.file, site.file) == 0;
  }
  void note_order(const Site& site, std::memory_order order, char kind) {
    if (order_sites == nullptr) return;
    for (const OrderSite& known : *order_sites) {
      if (known.site.line == site.line && strcmp(known.site.file, site.file) == 0) return;
    }
    order_sites->push_back({site, order, kind});
  }

  // ---- the trace

  struct Traced {
    uint8_t actor;
    char kind;
    uint64_t now_ns;
    Site site;
    const char* doing;
  };
  void trace(char kind, const Site& site) { trace_for(*running_, kind, site); }
  void trace_for(const Actor& actor, char kind, const Site& site) {
    Traced& entry = traces_[traced_++ % kTraces];
    entry = {static_cast<uint8_t>(actor.id), kind, now_ns, site, actor.doing};
    if (verbose) print_trace(entry);
  }
  void print_trace(const Traced& entry) {
    const char* name = strrchr(entry.site.file, '/');
    fprintf(stderr, "  %10llu actor %d %c %s %s:%d (%s)\n", static_cast<unsigned long long>(entry.now_ns),
            entry.actor, entry.kind, entry.site.function, name == nullptr ? entry.site.file : name + 1,
            entry.site.line, entry.doing);
  }

  static Machine& machine();

  static constexpr uint32_t kTraces = 256;
  struct Index {
    uintptr_t key;
    uint32_t generation;
    uint32_t location;
  };

  Plan plan_;
  Decisions* decisions_ = nullptr;
  Observer* observer_ = nullptr;
  std::array<Actor, kActorsMax> actor_;
  int actors_ = 0;
  Actor* running_ = nullptr;
  Fiber main_;
  std::vector<Process*> processes_;
  uint64_t ticks_ = 0;
  uint64_t switch_at_ = 0, death_at_ = 0, stop_at_ = 0, event_at_ = 0;
  uint32_t deaths_left_ = 0, stops_left_ = 0;
  bool in_latch_ = false;  // the next death is one inside the latch
  Clock fences_;
  std::deque<std::pair<const void*, Lock>> storages_;  // stay where they are
  uint32_t generation_ = 0;
  uint32_t locations_used_ = 0;
  std::vector<Location> locations_ = std::vector<Location>(kLocationsMax);
  std::vector<Index> index_ = std::vector<Index>(2 * kLocationsMax);
  Traced traces_[kTraces];
  uint64_t traced_ = 0;
};

inline Machine the_machine;
inline Machine& Machine::machine() { return the_machine; }

inline void Machine::fail(const char* what) {
  fflush(stdout);
  fprintf(stderr, "  %s%s%s\n", what, describe == nullptr ? "" : ": ", describe == nullptr ? "" : describe());
  if (!verbose) {
    const uint64_t from = traced_ > 60 ? traced_ - 60 : 0;
    for (uint64_t n = from; n < traced_; n++) print_trace(traces_[n % kTraces]);
  }
  fflush(nullptr);
  _exit(harness::kFailed);
}

#define SIM_CHECK(condition)                                          \
  do {                                                                \
    if (!(condition)) sim::the_machine.fail("not true: " #condition); \
  } while (0)

}  // namespace sim
