// What the processes of a schedule do, what their systems refuse, and how a schedule is made of a seed.
#pragma once

#include "sim_runtime_loop.h"

namespace sim {

// What may go wrong, each in percent of the processes, or as a number at most.
struct Faults {
  uint32_t deaths = 0;
  uint32_t execs = 0;  // one in so many of them
  uint32_t stops = 0;
  bool stops_inside = false;  // the latch, all of them
  bool long_stops = false;
  int no_threads = 0;   // never
  int few_threads = 0;  // not the first ones
  int no_wait_for_many = 0;
  int no_watcher = 0;
  int watcher_ends = 0;
  int pidfds_refused = 0;
  int late = 0;
  int silent = 0;
  int elsewhere = 0;
  int clocks = 0;
  int opens_refused = 0;
};

struct Scenario {
  const char* name;
  int hosts;
  int threads;  // JavaScript threads of each
  Habits habits;
  Faults faults;
};

inline Habits habits_of(void (*change)(Habits&)) {
  Habits habits;
  change(habits);
  return habits;
}
inline Faults faults_of(void (*change)(Faults&)) {
  Faults faults;
  change(faults);
  return faults;
}

inline const Scenario kScenarios[] = {
    {"event loops", 3, 1, {}, {}},
    {"event loops of two threads", 2, 2, habits_of([](Habits& h) { h.many = 60; }), {}},
    {"two namespaces",
     3,
     1,
     habits_of([](Habits& h) {
       h.namespaces = 2;
       h.many = 80;
       h.rounds = 4;
     }),
     {}},
    {"some block",
     3,
     1,
     habits_of([](Habits& h) {
       h.blocks = 60;
       h.many = 30;
     }),
     {}},
    {"names that are opened and closed",
     3,
     1,
     habits_of([](Habits& h) {
       h.namespaces = h.names = 2;
       h.closes = 70;
       h.many = 50;
     }),
     {}},
    {"busy event loops",
     3,
     1,
     habits_of([](Habits& h) {
       h.busy = 30;
       h.many = 50;
     }),
     {}},
    {"thefts",
     3,
     1,
     habits_of([](Habits& h) {
       h.steal = 30;
       h.listens = 60;
       h.long_rests = 20;
       h.downgrade = 20;
       h.clear = 30;
     }),
     {}},
    {"upgrades",
     3,
     1,
     habits_of([](Habits& h) {
       h.exclusive = 20;
       h.upgrade = 60;
       h.downgrade = 20;
       h.many = 40;
     }),
     {}},
    {"upgrades, thefts, and threads that end",
     2,
     2,
     habits_of([](Habits& h) {
       h.exclusive = 20;
       h.upgrade = 60;
       h.steal = 10;
       h.listens = 30;
       h.ends = 10;
       h.many = 40;
       h.busy = 10;
     }),
     {}},
    {"upgrades, deaths and stops", 3, 1, habits_of([](Habits& h) {
       h.exclusive = 20;
       h.upgrade = 60;
       h.many = 40;
     }),
     faults_of([](Faults& f) {
       f.deaths = 2;
       f.stops = 2;
       f.stops_inside = true;
     })},
    {"long rests",
     3,
     1,
     habits_of([](Habits& h) {
       h.long_rests = 60;
       h.timeout = 5;
       h.many = 40;
     }),
     {}},
    {"threads end",
     2,
     2,
     habits_of([](Habits& h) {
       h.ends = 15;
       h.many = 40;
       h.rounds = 4;
       h.clear = 40;
     }),
     {}},
    {"deaths", 3, 1, habits_of([](Habits& h) {
       h.many = 40;
       h.clear = 40;
       h.long_rests = 10;
     }),
     faults_of([](Faults& f) { f.deaths = 2; })},
    {"deaths of which nothing tells", 3, 1, habits_of([](Habits& h) {
       h.many = 40;
       h.clear = 40;
       h.long_rests = 20;
     }),
     faults_of([](Faults& f) {
       f.deaths = 2;
       f.execs = 2;
       f.no_watcher = f.watcher_ends = f.pidfds_refused = f.late = f.silent = f.elsewhere = 30;
     })},
    {"deaths while all is quiet", 3, 1, habits_of([](Habits& h) {
       h.many = 20;
       h.waits = h.long_rests = 100;
       h.timeout = 0;
       h.rounds = 2;
     }),
     faults_of([](Faults& f) {
       f.deaths = 1;
       f.stops = 1;
       f.execs = 2;
       f.silent = f.pidfds_refused = f.watcher_ends = 20;
     })},
    {"stops", 3, 1, habits_of([](Habits& h) {
       h.many = 50;
       h.slow_rests = 20;
     }),
     faults_of([](Faults& f) {
       f.stops = 3;
       f.long_stops = true;
     })},
    {"stops in two namespaces", 3, 1, habits_of([](Habits& h) {
       h.namespaces = 2;
       h.many = 80;
       h.ends = 5;
       h.blocks = 20;
       h.clear = 30;
     }),
     faults_of([](Faults& f) { f.stops = 3; })},
    {"stops inside of latches", 3, 1, habits_of([](Habits& h) {
       h.namespaces = h.names = 2;
       h.many = 90;
       h.blocks = 5;
       h.timeout = 60;
       h.slow_rests = 40;
       h.clear = 20;
       h.rounds = 6;
     }),
     faults_of([](Faults& f) {
       f.stops = 3;
       f.stops_inside = f.long_stops = true;
     })},
    {"threads end in stalled namespaces", 3, 1, habits_of([](Habits& h) {
       h.namespaces = 2;
       h.many = 90;
       h.slow_rests = 30;
       h.ends = 30;
       h.rounds = 5;
     }),
     faults_of([](Faults& f) {
       f.stops = 4;
       f.stops_inside = f.long_stops = true;
     })},
    {"a stalled namespace is entered", 3, 2, habits_of([](Habits& h) {
       h.namespaces = h.names = 2;
       h.many = 50;
       h.pauses = 30;
       h.slow_rests = 60;
     }),
     faults_of([](Faults& f) {
       f.stops = 2;
       f.stops_inside = f.long_stops = true;
     })},
    {"busy event loops in a stalled namespace", 3, 1, habits_of([](Habits& h) {
       h.busy = 40;
       h.many = 40;
       h.slow_rests = 50;
       h.timeout = 0;
     }),
     faults_of([](Faults& f) {
       f.stops = 3;
       f.stops_inside = f.long_stops = true;
     })},
    {"busy event loops after long rests",
     3,
     1,
     habits_of([](Habits& h) {
       h.busy = 30;
       h.many = 40;
       h.long_rests = 60;
       h.timeout = 0;
       h.pauses = 10;
     }),
     {}},
    {"threads of one process, busy after long rests",
     1,
     3,
     habits_of([](Habits& h) {
       h.busy = 30;
       h.many = 30;
       h.long_rests = 60;
       h.timeout = 0;
       h.rounds = 2;
     }),
     {}},
    {"pauses",
     3,
     1,
     habits_of([](Habits& h) {
       h.pauses = 60;
       h.many = 30;
       h.listens = 20;
       h.steal = 10;
       h.busy = 10;
       h.rounds = 4;
     }),
     {}},
    {"deaths and stops", 3, 1, habits_of([](Habits& h) {
       h.many = 50;
       h.blocks = 20;
       h.long_rests = 10;
       h.clear = 30;
       h.ends = 5;
     }),
     faults_of([](Faults& f) {
       f.deaths = 2;
       f.stops = 3;
       f.execs = 4;
     })},
    {"no threads", 3, 1, habits_of([](Habits& h) {
       h.many = 50;
       h.listens = 20;
       h.steal = 10;
       h.long_rests = 10;
     }),
     faults_of([](Faults& f) {
       f.no_threads = 50;
       f.few_threads = 50;
     })},
    {"no threads, deaths and stops", 2, 2, habits_of([](Habits& h) {
       h.many = 50;
       h.ends = 5;
       h.long_rests = 10;
     }),
     faults_of([](Faults& f) {
       f.deaths = 1;
       f.stops = 2;
       f.no_threads = 40;
       f.few_threads = 40;
     })},
    {"one word to sleep on", 3, 1, habits_of([](Habits& h) {
       h.namespaces = 2;
       h.many = 70;
       h.listens = 30;
       h.steal = 10;
       h.long_rests = 20;
     }),
     faults_of([](Faults& f) { f.no_wait_for_many = 70; })},
    {"clocks", 3, 1, habits_of([](Habits& h) {
       h.many = 40;
       h.busy = 20;
       h.long_rests = 20;
     }),
     faults_of([](Faults& f) {
       f.clocks = 60;
       f.stops = 1;
     })},
    {"all at once", 3, 1, habits_of([](Habits& h) {
       h.namespaces = h.names = 2;
       h.many = 60;
       h.blocks = h.busy = h.listens = h.steal = h.downgrade = h.clear = h.long_rests = h.closes = 10;
       h.ends = 5;
       h.rounds = 4;
     }),
     faults_of([](Faults& f) {
       f.deaths = f.stops = 2;
       f.execs = 3;
       f.no_threads = f.few_threads = f.no_wait_for_many = f.no_watcher = f.watcher_ends = f.pidfds_refused =
           f.late = f.silent = f.elsewhere = f.clocks = f.opens_refused = 15;
     })},
};
constexpr uint32_t kScenariosCount = sizeof kScenarios / sizeof kScenarios[0];

class Schedule {
 public:
  bool weak_only = false;

  // Runs one schedule; a failure ends the process.
  void run(uint32_t scenario, uint64_t seed) {
    const Scenario& s = kScenarios[scenario];
    current_ = this;
    seed_ = seed;
    scenario_ = scenario;
    the_machine.describe = &Schedule::describe;
    the_machine.thread_locals = {&proclock::Patience::current(), &Client::of_thread()};
    proclock::Patience::current() = 0;
    Client::of_thread() = nullptr;
    Random random(seed * 64 + scenario);
    Plan plan = plan_of(s, random);
    plan.weak = plan.weak || weak_only;
    the_machine.begin(plan, random.next(), nullptr, &the_world);
    the_world.begin();
    for (int h = 0; h < s.hosts; h++) {
      auto* host = new Host(h, conditions_of(s, random));
      the_hosts.push_back(host);
      for (int t = 0; t < s.threads; t++) {
        auto* loop =
            new Loop(*host, static_cast<uint32_t>(the_world.threads.size()), s.habits, random.next());
        the_world.threads.push_back(loop);
        loop->runs_on(the_machine.add_actor(*host, &Loop::play, loop));
      }
    }
    the_machine.run();
    proclock::Patience::current() = 0;
    Client::of_thread() = nullptr;
    the_world.inspect();
  }

 private:
  static Plan plan_of(const Scenario& s, Random& random) {
    Plan plan;
    plan.weak = random.one_in(3);
    plan.stale_one_in = 2 + random.below(4);
    plan.by_priority = random.one_in(3);
    plan.priority_changes = random.below(12);
    plan.switch_mean = 16u << random.below(8);
    plan.deaths = s.faults.deaths == 0 ? 0 : random.below(s.faults.deaths + 1);
    plan.exec_one_in = s.faults.execs;
    plan.stops = s.faults.stops == 0 ? 0 : random.below(s.faults.stops + 1);
    plan.whole_stops = true;
    plan.at_rest = random.one_in(3);
    plan.disturb_one_in = 4u << random.below(7);
    if (s.faults.long_stops && random.one_in(2))
      plan.shortest_stop_ns = (1 + random.below(3)) * proclock::Arena<RuntimePlatform>::kPatienceNs;
    plan.timer_bits = random.one_in(3) ? 20 : 0;
    plan.magnitude = 9 + random.below(8);
    plan.in_latch = random.one_in(3);
    plan.stops_in_latch = s.faults.stops_inside || random.one_in(3);
    plan.spins = random.one_in(6);
    plan.blind = true;  // who sleeps is woken by what its own runtime is told, and by nothing else
    plan.keeps_token = s.faults.elsewhere == 0 && random.one_in(6);
    plan.steps_per_period = kStepsPerPeriod;
    return plan;
  }
  static Conditions conditions_of(const Scenario& s, Random& random) {
    const Faults& f = s.faults;
    const auto odds = [&](int percent) { return static_cast<int>(random.below(100)) < percent; };
    Conditions c;
    c.no_threads = odds(f.no_threads);
    if (odds(f.few_threads)) c.threads_refused = 1 + random.below(4);
    c.no_wait_for_many = odds(f.no_wait_for_many);
    c.no_watcher = odds(f.no_watcher);
    if (odds(f.watcher_ends)) c.watches = random.below(5);
    if (odds(f.pidfds_refused)) c.pidfds_refused = 1 + random.below(4);
    if (odds(f.late)) c.late_bits = 20 + random.below(10);
    c.silent = odds(f.silent);
    c.elsewhere = odds(f.elsewhere);
    if (odds(f.clocks)) c.clock_ahead_ns = random.up_to_power(50);
    if (odds(f.opens_refused)) c.opens_refused = 1 + random.below(2);
    return c;
  }

  static const char* describe() {
    static char text[256];
    const Plan& plan = the_machine.plan();
    snprintf(text, sizeof text, "scenario %u (%s), seed %llu%s%s; again with PROCLOCK_SIM=%u:%llu",
             current_->scenario_, kScenarios[current_->scenario_].name,
             static_cast<unsigned long long>(current_->seed_), plan.weak ? ", weak memory" : "",
             plan.by_priority ? ", by priority" : "", current_->scenario_,
             static_cast<unsigned long long>(current_->seed_));
    return text;
  }

  // Ten times the most that any thread has taken so far, and a fortieth of what one takes that never sleeps.
  static constexpr uint64_t kStepsPerPeriod = 50000;
  static inline Schedule* current_ = nullptr;
  uint64_t seed_ = 0;
  uint32_t scenario_ = 0;
};

}  // namespace sim
