// The shipped runtime in schedules made of seeds: several processes, each with its doorbell thread, its watcher and its event
// loops, on systems that refuse, stop and kill. PROCLOCK_SIM_RUNTIME=scenario:seed runs one of them again and prints each step;
// PROCLOCK_SIM_SCHEDULES sets their number, PROCLOCK_SIM_FIRST the first seed.
#define sim sim_runtime
#include "sim_runtime_scenarios.h"

namespace {

struct Totals {
  sim::Counts counts;
  uint64_t steps, switches, deaths, stops, stale_reads, steps_most;
};

// In a process of its own: what the stacks of killed threads refer to is never given back.
constexpr uint64_t kBatch = 2000;

void run_batch(uint64_t first, uint64_t count, Totals* totals) {
  sim::Schedule schedule;
  sim::the_world.counts = totals->counts;
  for (uint64_t n = first; n < first + count; n++) {
    schedule.run(static_cast<uint32_t>(n % sim::kScenariosCount), n / sim::kScenariosCount);
    totals->steps += sim::the_machine.steps;
    totals->switches += sim::the_machine.switches;
    totals->deaths += sim::the_machine.deaths;
    totals->stops += sim::the_machine.stops;
  }
  totals->counts = sim::the_world.counts;
  totals->stale_reads += sim::the_machine.stale_reads;
  totals->steps_most = std::max(totals->steps_most, sim::the_machine.steps_most);
}

TEST("no schedule of event loops, doorbells, watchers, and whatever fails around them, keeps anybody waiting",
     600) {
  if (const char* again = getenv("PROCLOCK_SIM_RUNTIME")) {
    unsigned scenario = 0;
    unsigned long long seed = 0;
    CHECK(sscanf(again, "%u:%llu", &scenario, &seed) == 2 && scenario < sim::kScenariosCount);
    sim::the_machine.verbose = true;
    sim::Schedule().run(scenario, seed);
    return;
  }
  const uint64_t schedules = harness::number_from("PROCLOCK_SIM_SCHEDULES", 50000);
  const uint64_t first = harness::number_from("PROCLOCK_SIM_FIRST", 1) * sim::kScenariosCount;
  const uint64_t begun = harness::now_ms();
  Totals* totals = harness::shared<Totals>();
  for (uint64_t done = 0; done < schedules; done += kBatch) {
    JOIN_OK(harness::start([&] { run_batch(first + done, std::min(kBatch, schedules - done), totals); }));
  }
  const sim::Counts& counts = totals->counts;
  const auto n = [](uint64_t value) { return static_cast<unsigned long long>(value); };
  printf("  %llu schedules in %llu ms: %llu steps, %llu switches, %llu old values read\n", n(schedules),
         n(harness::now_ms() - begun), n(totals->steps), n(totals->switches), n(totals->stale_reads));
  printf(
      "  %llu grants, %llu refused, %llu timeouts, %llu downgrades, %llu upgrades, %llu steals (%llu robbed, "
      "%llu told)\n",
      n(counts.grants), n(counts.refused), n(counts.timeouts), n(counts.downgrades), n(counts.upgrades),
      n(counts.steals), n(counts.robbed), n(counts.told_stolen));
  printf(
      "  %llu deaths (%llu held exclusively), %llu stops, %llu threads ended, %llu times served by a timer\n",
      n(totals->deaths), n(counts.deaths_holding), n(totals->stops), n(counts.ends), n(counts.served));
  printf("  the longest wait for nobody: %llu ms; the most steps of a thread in 50 ms: %llu\n",
         n(counts.longest_ns / 1000000), n(totals->steps_most));
}

}  // namespace
