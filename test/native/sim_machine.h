// A simulated machine in one thread: actors (threads of simulated processes) that run as fibers, one at a time, and are
// switched, stopped or killed between any two of their steps in shared memory. Every choice comes from one seed, or, when
// all schedules are enumerated, from a list of decisions: the same seed is the same run.
//
// Memory is as weak as the C++ model lets it be, short of reading from the future: each location keeps its last values, and
// an actor may read an old one unless a newer one happens before its read. What orders reads: release and acquire, the
// total order of the sequentially consistent operations and fences, a process's own mutexes, and the kernel (a futex call is
// a fence; what a process did has arrived everywhere when it is gone). Nothing orders a relaxed read, not
// even a locked instruction before it. So an order that is missing in the source is missing here, on whatever processor.
// sim_actor.h has the words, sim_stage.h the actors and the trace, sim_memory.h what they read, sim_choices.h who runs.
#pragma once

#include "sim_memory.h"

namespace sim {

class Machine final : public WeakMemory {
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
    begin_memory();
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

  void fence(const Site& site) {
    step(kHot, 'f', site);
    if (running_ == nullptr) return;
    note_order(site, std::memory_order_seq_cst, 'f');
    if (weakened(site)) return;
    full_fence();
  }

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

  uint64_t steps = 0;
  uint32_t deaths = 0, stops = 0, switches = 0;
  uint64_t steps_most = 0;     // of an actor in a period
  uint32_t gone = 0;           // processes
  uint64_t last_fault_ns = 0;  // when somebody last died, or was stopped, or went on
  // For an enumeration: how many switches that nobody had to make, and how many deaths, there may still be.
  uint32_t preemptions_left = 0;
  uint32_t kills_left = 0;

 private:
  static void enter(void* argument);
  void end_running();
  void make_ready(Actor& actor);
  Actor* pick();
  bool pass_time();
  void wake_sleepers();
  bool is_stopped(const Actor& actor) const;
  void go_on(Process& process);
  void kill_at_rest(Process& process);
  uint64_t long_stop_ns();
  bool disturb(uint64_t next_ns);
  void count_step();
  void take_thread_locals(Actor& from);
  void give_thread_locals(const Actor& to);
  void leave();
  void plan_switch();
  void plan_death(uint32_t magnitude);
  void plan_next();
  void events();
  bool is_stopped_inside(const Actor& actor);
  void stop_running(uint64_t ns);
  void decide_step();

  void end_thread(Actor& actor);
  void drop(Process& process);

  static Machine& machine();

  Decisions* decisions_ = nullptr;
  Observer* observer_ = nullptr;
  Fiber main_;
  std::vector<Process*> processes_;
  uint64_t switch_at_ = 0, death_at_ = 0, stop_at_ = 0, event_at_ = 0;
  uint32_t deaths_left_ = 0, stops_left_ = 0;
  bool in_latch_ = false;  // the next death is one inside the latch
};

inline Machine the_machine;
inline Machine& Machine::machine() { return the_machine; }

#define SIM_CHECK(condition)                                          \
  do {                                                                \
    if (!(condition)) sim::the_machine.fail("not true: " #condition); \
  } while (0)

}  // namespace sim

#include "sim_choices.h"
