// The shipped core in one hundred thousand schedules, made of seeds. PROCLOCK_SIM=scenario:seed runs one of them again and
// prints each step; PROCLOCK_SIM_SCHEDULES sets their number, PROCLOCK_SIM_FIRST the first seed.
#include "sim_scenarios.h"

namespace {

TEST("no schedule of acquire, release, wait, downgrade, upgrade, steal and death breaks the lock", 600) {
  sim::Schedule schedule;
  if (const char* again = getenv("PROCLOCK_SIM")) {
    unsigned scenario = 0;
    unsigned long long seed = 0;
    CHECK(sscanf(again, "%u:%llu", &scenario, &seed) == 2 && scenario < sim::kScenariosCount);
    sim::the_machine.verbose = true;
    schedule.run(scenario, seed);
    return;
  }
  const uint64_t schedules = harness::number_from("PROCLOCK_SIM_SCHEDULES", 100000);
  const uint64_t first = harness::number_from("PROCLOCK_SIM_FIRST", 1);
  const uint64_t begun = harness::now_ms();
  uint64_t steps = 0, switches = 0, deaths = 0, stops = 0;
  for (uint64_t n = 0; n < schedules; n++) {
    schedule.run(static_cast<uint32_t>(n % sim::kScenariosCount), first + n / sim::kScenariosCount);
    steps += sim::the_machine.steps;
    switches += sim::the_machine.switches;
    deaths += sim::the_machine.deaths;
    stops += sim::the_machine.stops;
  }
  const sim::Counts& counts = sim::the_world.counts;
  const auto n = [](uint64_t value) { return static_cast<unsigned long long>(value); };
  printf("  %llu schedules in %llu ms: %llu steps, %llu switches, %llu old values read\n", n(schedules),
         n(harness::now_ms() - begun), n(steps), n(switches), n(sim::the_machine.stale_reads));
  printf("  %llu grants, %llu refused, %llu timeouts, %llu downgrades, %llu steals (%llu robbed)\n",
         n(counts.grants), n(counts.refused), n(counts.timeouts), n(counts.downgrades), n(counts.steals),
         n(counts.robbed));
  printf("  %llu upgrades, %llu refused because of another one\n", n(counts.upgrades),
         n(counts.upgrades_refused));
  printf("  %llu deaths (%llu held exclusively), %llu stops, %llu times all was quiet\n", n(deaths),
         n(counts.deaths_holding), n(stops), n(counts.quiets));
}

}  // namespace
