// What the actors of a schedule do, and how a schedule is made of a seed.
#pragma once

#include <optional>

#include "sim_thread.h"

namespace sim {

// Odds in percent.
struct Scenario {
  const char* name;
  int hosts;
  int threads;  // each
  int names;
  int rounds;
  int exclusive;
  int waits;  // rather than one try
  int fair;
  int async;
  int timeout;  // of those that wait
  int rests;    // while it holds
  int downgrade;
  int clear;
  int ends;  // its thread ends instead of a release, or of a time-out
  int steal;
  int reopen;
  int looks;
  uint32_t deaths;
  uint32_t stops;
  int twice = 0;       // another wait at the same time
  int long_rests = 0;  // so long that those who wait look seldom
  int comes = 0;       // enters while the others are at it
  int upgrade = 0;
};

constexpr Scenario kScenarios[] = {
    // name                     h  t  n  r  excl wait fair asyn tmo rest down clr end stl reop look d  s
    {"tries", 3, 1, 1, 3, 50, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
    {"tries and deaths", 3, 1, 1, 3, 50, 0, 0, 0, 0, 0, 5, 30, 0, 0, 0, 60, 3, 0},
    {"tries, deaths and stops", 4, 1, 1, 3, 40, 10, 0, 0, 0, 0, 10, 30, 0, 0, 0, 60, 3, 3},
    {"writers wait", 3, 1, 1, 3, 100, 100, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0},
    {"readers and writers wait", 4, 1, 1, 2, 40, 95, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0},
    {"timeouts", 4, 1, 1, 3, 50, 95, 10, 20, 60, 40, 0, 0, 0, 0, 0, 0, 0, 0},
    {"fair", 4, 1, 1, 3, 50, 80, 60, 20, 10, 40, 5, 0, 0, 0, 0, 0, 0, 0},
    {"event loops", 2, 2, 1, 3, 50, 100, 20, 90, 20, 30, 5, 0, 0, 0, 0, 0, 0, 1},
    {"downgrade", 4, 1, 1, 2, 60, 95, 0, 10, 10, 30, 70, 0, 0, 0, 0, 0, 0, 0},
    {"waiters die", 4, 1, 1, 3, 50, 90, 10, 20, 20, 30, 10, 20, 5, 0, 0, 10, 3, 0},
    {"waiters die and stop", 4, 1, 1, 3, 50, 90, 10, 20, 20, 30, 10, 20, 5, 0, 0, 10, 3, 3},
    {"stops", 4, 1, 1, 3, 50, 90, 20, 30, 20, 30, 10, 0, 0, 0, 0, 0, 0, 4},
    {"threads of a process", 2, 3, 1, 2, 50, 90, 10, 40, 20, 30, 10, 20, 10, 0, 0, 10, 2, 1},
    {"steal", 4, 1, 1, 2, 60, 60, 0, 20, 20, 40, 10, 20, 10, 35, 0, 0, 0, 0},
    {"steal, deaths and stops", 4, 1, 1, 3, 60, 70, 0, 20, 20, 40, 10, 20, 10, 25, 0, 30, 3, 2},
    {"names come and go", 3, 1, 3, 3, 50, 50, 0, 10, 40, 10, 10, 10, 20, 5, 70, 10, 0, 0},
    {"names, deaths and stops", 3, 1, 3, 3, 50, 60, 10, 20, 40, 20, 10, 10, 10, 10, 60, 20, 3, 1},
    {"whoever releases dies", 4, 1, 1, 2, 80, 100, 0, 40, 0, 10, 5, 10, 5, 0, 0, 0, 2, 0},
    {"event loops die", 4, 1, 1, 2, 60, 100, 0, 95, 0, 10, 5, 10, 5, 10, 0, 10, 3, 0},
    {"long stops", 4, 1, 1, 2, 60, 100, 10, 40, 10, 20, 5, 0, 0, 0, 0, 0, 0, 3},
    {"thieves die", 3, 1, 1, 2, 60, 50, 0, 20, 0, 10, 5, 10, 10, 60, 0, 20, 3, 0},
    {"overtaking", 4, 1, 1, 4, 80, 60, 10, 0, 10, 90, 0, 0, 0, 0, 0, 0, 0, 0},
    {"threads end", 4, 1, 1, 3, 60, 90, 10, 30, 40, 20, 10, 10, 50, 0, 0, 0, 0, 2},
    {"threads end, and processes", 2, 3, 1, 3, 60, 80, 10, 40, 30, 20, 10, 10, 40, 10, 0, 10, 2, 2},
    {"two waits of a thread", 3, 1, 1, 3, 50, 100, 0, 90, 20, 20, 10, 0, 5, 0, 0, 0, 0, 2, 80},
    {"two waits of a thread, and deaths", 3, 1, 1, 3, 50, 100, 0, 90, 20, 20, 10, 0, 10, 0, 0, 0, 2, 2, 80},
    {"long rests", 4, 1, 1, 2, 90, 100, 0, 100, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 70},
    {"upgrades", 4, 1, 1, 3, 30, 90, 0, 20, 20, 40, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 70},
    {"upgrades that time out", 4, 1, 1, 3, 20, 90, 20, 40, 70, 60, 20, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 80},
    {"upgrades, deaths and stops",
     4,
     1,
     1,
     3,
     30,
     90,
     10,
     30,
     20,
     40,
     20,
     20,
     10,
     10,
     0,
     10,
     3,
     2,
     0,
     0,
     0,
     70},
    {"threads upgrade", 2, 2, 1, 3, 30, 90, 10, 40, 20, 40, 20, 20, 20, 10, 0, 10, 2, 1, 0, 0, 0, 70},
    {"processes come and go", 4, 1, 1, 2, 60, 60, 0, 20, 20, 10, 10, 0, 0, 0, 0, 20, 3, 2, 0, 0, 80},
};
constexpr uint32_t kScenariosCount = sizeof kScenarios / sizeof kScenarios[0];

struct Role {
  const Scenario* scenario = nullptr;
  bool comes = false;
  std::optional<Thread> thread;
};

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
    Random random(seed * 64 + scenario);
    Plan plan = plan_of(s, random);
    plan.weak = plan.weak || weak_only;
    the_machine.begin(plan, random.next(), nullptr, &the_world);
    the_world.begin();
    the_world.slow_detection = plan.blind || (s.ends != 0 && random.one_in(2));
    if (s.reopen != 0) fill(s.names);
    int role = 0;
    for (int h = 0; h < s.hosts; h++) {
      Host& host = the_world.add_host();
      const bool comes = s.comes != 0 && random.below(100) < static_cast<uint32_t>(s.comes);
      if (!comes) host.attach();
      for (int t = 0; t < s.threads; t++) {
        Role& r = roles_[role++];
        r.scenario = &s;
        r.comes = comes;
        Actor& actor = the_machine.add_actor(host, &Schedule::play, &r);
        r.thread.emplace(host, actor);
        r.thread->random = Random(random.next());
        for (int n = 0; n < s.names; n++) {
          if (s.reopen == 0 && !comes) r.thread->open(n);
        }
        r.thread->takes_turns(random.one_in(2));
      }
    }
    the_machine.run();
    if (s.reopen != 0) empty();
    the_world.inspect();
  }

  // Everything that an actor does.
  static void play(Actor&, void* argument) {
    Role& role = *static_cast<Role*>(argument);
    const Scenario& s = *role.scenario;
    Thread& thread = *role.thread;
    Random& random = thread.random;
    const auto odds = [&](int percent) { return static_cast<int>(random.below(100)) < percent; };
    if (role.comes) {
      thread.rest(random.up_to_power(18));
      thread.host().attach();
    }
    for (int round = 0; round < s.rounds; round++) {
      const int n = static_cast<int>(random.below(static_cast<uint32_t>(s.names)));
      if (odds(s.looks)) thread.look_for_dead();
      if (thread.ref(n).slot == nullptr && !thread.open(n)) continue;
      if (odds(s.steal)) {
        thread.steal(n);
      } else {
        Request request;
        request.mode = odds(s.exclusive) ? Mode::kExclusive : Mode::kShared;
        request.fair = odds(s.fair);
        request.async = odds(s.async);
        request.twice = odds(s.twice);
        request.leaves = odds(s.ends);
        request.patience_ns = !odds(s.waits) ? 0 : odds(s.timeout) ? random.up_to_power(23) : kForever;
        if (!thread.acquire(n, request)) continue;
      }
      if (odds(s.clear) && thread.mode() == Mode::kExclusive) thread.clear_abandoned(n);
      if (odds(s.rests)) thread.rest(random.up_to_power(21));
      if (odds(s.long_rests)) thread.rest(random.up_to_power(30));
      if (odds(s.clear / 2) && thread.mode() == Mode::kExclusive) thread.clear_abandoned(n);
      if (thread.mode() == Mode::kExclusive && odds(s.downgrade)) thread.downgrade(n);
      if (thread.mode() == Mode::kShared && odds(s.upgrade)) {
        thread.upgrade(n, !odds(s.waits) ? 0 : odds(s.timeout) ? random.up_to_power(23) : kForever);
        if (odds(s.rests)) thread.rest(random.up_to_power(21));
        if (thread.mode() == Mode::kExclusive && odds(s.downgrade)) thread.downgrade(n);
      }
      the_machine.yield();
      if (odds(s.ends)) {
        thread.leave(n);
      } else {
        thread.release(n);
      }
      if (odds(s.reopen)) thread.close(n);
    }
    thread.finish();
  }

 private:
  static Plan plan_of(const Scenario& s, Random& random) {
    Plan plan;
    plan.weak = random.one_in(2);
    plan.stale_one_in = 2 + random.below(4);
    plan.by_priority = random.one_in(3);
    plan.priority_changes = random.below(8);
    plan.switch_mean = 16u << random.below(8);
    plan.deaths = s.deaths == 0 ? 0 : random.below(s.deaths + 1);
    plan.stops = s.stops == 0 ? 0 : random.below(s.stops + 1);
    plan.magnitude = 8 + random.below(8);
    plan.in_latch = random.one_in(3);
    plan.stops_in_latch = random.one_in(4);
    plan.long_stops = random.one_in(2);
    if (s.twice != 0) plan.longest_stop_ns = 30 * kTickNs;
    plan.spins = random.one_in(3);
    plan.blind = random.one_in(5);
    plan.keeps_token = random.one_in(4);
    return plan;
  }

  // Names that stay, so that there is room for all names but one of those that come and go: some have to make room.
  static void fill(int names) {
    Host& host = the_world.add_host();
    host.attach();
    const uint32_t room = static_cast<uint32_t>(proclock::kPage / sizeof(proclock::Lock<Platform>));
    for (uint32_t n = 0; n < room - static_cast<uint32_t>(names) + 1; n++) {
      filling_.emplace_back();
      SIM_CHECK(host.arena->open_lock(name_of("stays " + std::to_string(n)), 0, &filling_.back()) ==
                Status::kOk);
    }
    Segment::get().full = true;
  }
  static void empty() {
    Arena& arena = *the_world.hosts[0]->arena;
    for (const SlotRef& ref : filling_) SIM_CHECK(arena.unbind(ref) == Status::kOk);
    filling_.clear();
    SIM_CHECK(arena.detach() == Status::kOk);
    the_world.hosts[0]->open = false;
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

  static inline Schedule* current_ = nullptr;
  static inline std::vector<SlotRef> filling_;
  uint64_t seed_ = 0;
  uint32_t scenario_ = 0;
  Role roles_[kActorsMax];
};

}  // namespace sim
