// Each mutant of native/model/mutants.json (mutants.mjs puts them into a copy of the core) is to be found by the exploration.
// PROCLOCK_SIM_MUTANT=NAME hunts one of them alone; PROCLOCK_SIM_SCHEDULES sets how long.
#include <unordered_map>

#include "harness.h"

// Everything once more, with the mutants in it.
#define SIM_MUTANTS
#define proclock proclock_mutants
#define sim sim_mutants
#include "sim_circles.h"
#include "sim_enumeration.h"
#include "sim_scenarios.h"
// After the scenarios.
#include "sim_hunt.h"

namespace {

using proclock::Mutant;

const char* why_not_hunted(const char* name) {
  for (const auto& entry : proclock::kNotHunted) {
    if (strcmp(entry[0], name) == 0) return entry[1];
  }
  return nullptr;
}

// Those that one scenario shows, and that so seldom that to try all of them in turn would take too long.
constexpr const char* kSeldom[][2] = {
    {"FLOOR_AFTER_NAME", "names, deaths and stops"},
    {"REBUILD_NO_POKE", "thieves die"},
    {"UPGRADE_LEFT_RECOVERING", "upgrades, deaths and stops"},
};

const char* scenario_of(const char* name) {
  for (const auto& entry : kSeldom) {
    if (strcmp(entry[0], name) == 0) return entry[1];
  }
  return nullptr;
}

TEST("every argument of the core that is broken on purpose is found out", 900) {
  for (const char* line : proclock::kStale) {
    if (line[0] != '\0') harness::fail("test/native/mutants.mjs", 0, line);
  }
  const char* only = getenv("PROCLOCK_SIM_MUTANT");
  const uint64_t schedules = harness::number_from("PROCLOCK_SIM_SCHEDULES", 200000);
  int found = 0, survived = 0, skipped = 0;
  const uint64_t begun = harness::now_ms();
  for (int n = 1; n < proclock::kFirstOfRuntime; n++) {
    const char* name = proclock::kMutantNames[n];
    if (only != nullptr && strcmp(only, name) != 0) continue;
    if (only == nullptr && why_not_hunted(name) != nullptr) {
      skipped++;
      printf("  -        %-22s %s\n", name, why_not_hunted(name));
      continue;
    }
    const Mutant mutant = static_cast<Mutant>(n);
    const auto breaks = [&] {
      proclock::mutant = mutant;
      sim::reads_wake_word_late = mutant == Mutant::WAKE_READ_LATE;
    };
    sim::Hunt hunt;
    if (mutant == Mutant::V1_AFTER_V2) {
      // Two switches at exact steps of a recovery: among all schedules, rather than among any.
      hunt = sim::hunt_in_child([&](std::atomic<uint64_t>& done) {
        breaks();
        for (const auto& the_case : sim::enumeration::kCases)
          done.fetch_add(sim::enumeration::enumerate(the_case));
      });
    } else if (strncmp(name, "CYCLE_", 6) == 0) {
      hunt = sim::hunt_in_child([&](std::atomic<uint64_t>& done) {
        breaks();
        sim::Circle circle;
        for (uint64_t seed = 1; seed <= schedules; seed++) {
          done.store(seed, std::memory_order_relaxed);
          circle.run(seed);
        }
      });
    } else {
      hunt = sim::hunt(schedules, 1, false, breaks, scenario_of(name));
    }
    ++(hunt.killed ? found : survived);
    printf("  %-8s %-22s %6llu schedules%s%s\n", hunt.killed ? "found" : "SURVIVED", name,
           static_cast<unsigned long long>(hunt.schedules), hunt.killed ? ":" : "", hunt.how.c_str());
    fflush(stdout);
  }
  printf("  %d mutants found, %d survived, %d not hunted, in %llu ms\n", found, survived, skipped,
         static_cast<unsigned long long>(harness::now_ms() - begun));
  CHECK_EQ(survived, 0);
}

}  // namespace
